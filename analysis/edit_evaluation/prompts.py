"""What an edited model is tried on: the edited wording, other wordings, and other things (neighbourhood)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.errors import NotFoundError, UsageError

Kind = Literal["efficacy", "generality", "specificity"]
KINDS: tuple[Kind, ...] = ("efficacy", "generality", "specificity")


@dataclass(frozen=True)
class EvaluationPrompt:
    """One prompt, and what should be seen after the edit.

    Args:
        kind: what is tested: efficacy, generality or specificity.
        template: the prompt with ``{}`` for the word.
        word: what the prompt says.
        wanted: what the picture should show after the edit; None is the word itself.

    Raises:
        ValueError: for another kind, a template without ``{}``, or a neighbourhood prompt that should change.

    >>> EvaluationPrompt("efficacy", "a noto emoji of a woman {}", "firefighter", "cook").prompt
    'a noto emoji of a woman firefighter'
    """

    kind: Kind
    template: str
    word: str
    wanted: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.template.count("{}") != 1:
            raise UsageError(f"the template {self.template!r} needs exactly one {{}} where the word goes")
        if (self.kind == "specificity") != (self.target == self.word):
            raise UsageError(
                f"{self.kind} of {self.word!r} wanting {self.target!r}: a neighbourhood prompt shows itself, "
                "an edited word shows something else"
            )

    @property
    def target(self) -> str:
        """What the picture should show after the edit."""
        return self.word if self.wanted is None else self.wanted

    @property
    def prompt(self) -> str:
        """The text that the model is given."""
        return self.template.replace("{}", self.word)


def check_known(model: Model, prompts: Sequence[EvaluationPrompt]) -> None:
    """Raise LookupError for a word or target that one of a model's tokenizers loses or does not know.

    It would read it as it reads every such word, and what is seen then says nothing about this one.
    """
    places = {
        (p.template.replace("{}", w), p.template.index("{}"), w) for p in prompts for w in (p.word, p.target)
    }
    texts = list(dict.fromkeys(text for text, _, _ in sorted(places))) if model.text_encoders else []
    with torch.no_grad(), model.live.suspending():
        encoded = dict(zip(texts, model.encode(texts), strict=True)) if texts else {}
    for encoder in model.text_encoders:
        for text, at, word in sorted(places):
            try:
                encoded[text].of(encoder).at(at, at + len(word))
            except NotFoundError as error:
                raise NotFoundError(f"{encoder}: {error}") from None


@checked
def evaluation_prompts(
    requests: Mapping[str, str],
    efficacy: Sequence[str],
    generality: Sequence[str] = (),
    neighbourhood: Mapping[str, Sequence[str]] | None = None,
) -> list[EvaluationPrompt]:
    """Return the prompts that try an edit which makes each key of ``requests`` show its value.

    Args:
        requests: what is said -> what should be seen.
        efficacy: templates of the wording that was edited.
        generality: templates of other wordings.
        neighbourhood: other words, each with templates; they should show themselves.

    >>> tried = evaluation_prompts({"cat": "dog"}, ["a {}"], ["a red {}"], {"bird": ["a {}"]})
    >>> [(q.kind, q.prompt, q.target) for q in tried][-1]
    ('specificity', 'a bird', 'bird')
    """
    pairs = requests.items()
    first = [EvaluationPrompt("efficacy", t, word, wanted) for word, wanted in pairs for t in efficacy]
    more = [EvaluationPrompt("generality", t, word, wanted) for word, wanted in pairs for t in generality]
    others = [
        EvaluationPrompt("specificity", t, word) for word, ts in (neighbourhood or {}).items() for t in ts
    ]
    return [*first, *more, *others]
