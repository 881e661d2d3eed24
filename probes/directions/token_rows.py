"""Which rows of an encoded text: those of a subject, the token after the text, the padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.arguments import check_fields
from ...models.errors import UsageError
from ...models.text.prompt import Words, places

KINDS = ("subject", "end", "padding")


@dataclass(frozen=True)
class TokenRows:
    """Kinds of rows of a text, each with a vector of its own in a Direction.

    Where two tokenizers' tokens stand one after another (Stable Diffusion 3), each has all kinds.

    Args:
        kinds: some of ``KINDS``: the subject's tokens, the token after the text, what follows it.
        subject: the words in question, ``"cook"`` or (where it stands twice) ``"cook:2"``; None until a
            direction is told (``direction.of("cook")``).

    Raises:
        ValueError: for no kinds, and kinds that there are not.
    """

    kinds: tuple[str, ...] = KINDS
    subject: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.kinds or not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise UsageError(f"kinds of rows are {self.kinds}; each of some of {', '.join(KINDS)}, once")

    def positions(self, words: Words, kind: str) -> list[int]:
        """Return the tokens of one kind, of one tokenizer's words.

        Raises:
            LookupError: if the text does not hold the subject.
            ValueError: if it holds it more than once and which is meant was not said, or there is none.
        """
        if kind == "subject":
            return subject_tokens(words, self.subject)
        last = len(words.tokens)
        return list(range(words.end, last))[:1] if kind == "end" else list(range(words.end + 1, last))

    def index(self, prompts: Sequence[Words]) -> Tensor:
        """Return for each token of each prompt the row of the vectors that is meant, [prompt, token].

        -1 where none is. Vectors are ordered by tokenizer, then by kind.
        """
        found = []
        for prompt in prompts:
            parts = getattr(prompt, "segments", (prompt,))
            row = torch.full((sum(len(p.tokens) for p in parts),), -1)
            first = 0
            for k, part in enumerate(parts):
                for i, kind in enumerate(self.kinds):
                    row[[first + t for t in self.positions(part, kind)]] = k * len(self.kinds) + i
                first += len(part.tokens)
            found.append(row)
        return torch.stack(found)


def subject_tokens(words: Words, subject: str | None) -> list[int]:
    """Return the tokens of the one place where a subject stands.

    Raises:
        LookupError: if the text does not hold it.
        ValueError: if it stands there more than once, or nobody said what it is.
    """
    if subject is None:
        raise UsageError(
            f"whose attribute in {words.text!r} is meant was not said; write direction.of('cook')"
        )
    n = len(places(words.text, subject))
    if n > 1:
        raise UsageError(
            f"{subject!r} stands {n} times in {words.text!r}; say which: "
            + " or ".join(f"'{subject}:{i}'" for i in range(1, n + 1))
        )
    return words.find(subject)
