"""The token axis of several prompts at once: which positions are compared, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.errors import UsageError
from ...models.text.prompt import Words


@dataclass(frozen=True)
class TokenAxis:
    """Groups of token positions, the same in each prompt.

    Args:
        groups: positions that are treated together.
        labels: ``"4:firefighter"``, ``"8:end"``, ``"9-23:pad"``; ``*`` where prompts differ.
        roles: ``start``, ``before``, ``subject``, ``between``, ``after``, ``end`` or ``pad``.
    """

    groups: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    roles: tuple[str, ...]

    def coords(self) -> dict[str, Any]:
        """Coordinates of the dimension ``token``."""
        return {"token": list(self.labels), "role": ("token", list(self.roles))}


def token_axis(
    prompts: Sequence[Words],
    subjects: Sequence[Sequence[int]],
    tokens: Sequence[int | Sequence[int]] | None = None,
) -> TokenAxis:
    """Line up the tokens of several prompts.

    Args:
        prompts: as one text encoder cut them up.
        subjects: positions of the subject in each prompt.
        tokens: positions or groups of them; None is each one of the text and the end, with
            all that stands before it, and all padding, as one group each.

    Raises:
        ValueError: if the prompts' subjects or ends lie at different positions, or a position does not exist.
    """
    _check_aligned(prompts, subjects)
    n, end, starts = len(prompts[0].tokens), prompts[0].end, starts_of(prompts[0])
    if tokens is None:
        groups = [range(starts), *range(starts, end + 1), range(end + 1, n)]
        tokens = [t for t in groups if isinstance(t, int) or t]
    groups = [tuple(map(int, t)) if isinstance(t, Iterable) else (int(t),) for t in tokens]
    wrong = [t for g in groups for t in g if not 0 <= t < n]
    if wrong or not groups or not all(groups):
        raise UsageError(
            f"tokens is {list(tokens)!r}; it holds positions (or groups of them) from 0 to {n - 1}"
        )
    names = [_name([p.tokens[t] for p in prompts], t, end) for t in range(n)]
    roles = [role_of(t, subjects[0], end) for t in range(n)]
    names[:starts] = roles[:starts] = ["start"] * starts
    return TokenAxis(
        tuple(groups),
        tuple(_label(g, names) for g in groups),
        tuple("+".join(dict.fromkeys(roles[t] for t in g)) for g in groups),
    )


ROLES = ("before", "subject", "after", "end", "pad")


def by_role(prompts: Sequence[Words], subjects: Sequence[Sequence[int]]) -> list[TokenAxis]:
    """Group the tokens of each prompt by what they are to it; the groups of prompts may differ, and be empty.

    What stands before the text (the begin token) counts as before, what stands between parts of the subject
    as after. Roles that no prompt has anything of are left out.
    """
    found = []
    for words, subject in zip(prompts, subjects, strict=True):
        role = {"start": "before", "between": "after"}
        each = [role_of(t, subject, words.end) for t in range(len(words.tokens))]
        own = {r: tuple(t for t, name in enumerate(each) if role.get(name, name) == r) for r in ROLES}
        found.append(own)
    roles = [r for r in ROLES if any(own[r] for own in found)]
    return [TokenAxis(tuple(own[r] for r in roles), tuple(roles), tuple(roles)) for own in found]


def _check_aligned(prompts: Sequence[Words], subjects: Sequence[Sequence[int]]) -> None:
    for prompt, subject in zip(prompts, subjects, strict=True):
        if tuple(subject) != tuple(subjects[0]) or prompt.end != prompts[0].end:
            raise UsageError(
                f"tokens of {prompt.text!r} (subject at {list(subject)}, end at {prompt.end}) do not line "
                f"up with {prompts[0].text!r} (subject at {list(subjects[0])}, end at {prompts[0].end}); "
                "trace prompts of different shape in calls of their own"
            )


def starts_of(words: Words) -> int:
    """Return how many tokens stand before the text: one for CLIP, none for T5, an instruction for Sana."""
    return next((i for i, (a, b) in enumerate(words.spans) if b > a), 0)


def _name(pieces: Sequence[str], position: int, end: int) -> str:
    if position >= end:
        return "end" if position == end else "pad"
    words = dict.fromkeys(p.removesuffix("</w>").removeprefix("\u2581") for p in pieces)
    return next(iter(words)) if len(words) == 1 else "*"


def role_of(position: int, subject: Sequence[int], end: int) -> str:
    """Return what a token at a position is to the subject's positions and the end of the text."""
    if position >= end:
        return "end" if position == end else "pad"
    if position in subject:
        return "subject"
    if not subject or position < min(subject):
        return "before"
    return "after" if position > max(subject) else "between"


def _label(group: Sequence[int], names: Sequence[str]) -> str:
    words = " ".join(dict.fromkeys(names[t] for t in group))
    if len(group) == 1:
        return f"{group[0]}:{words}"
    whole = list(group) == list(range(group[0], group[-1] + 1))
    where = f"{group[0]}-{group[-1]}" if whole else ",".join(map(str, group))
    return f"{where}:{words}"
