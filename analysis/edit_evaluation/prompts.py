"""What an edited model is tried on: the edited wording, other wordings, and other things (neighbourhood)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...models.arguments import check_fields, checked
from ...models.errors import UsageError

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
        if self.kind not in KINDS:
            raise UsageError(f"kind is {self.kind!r}; it is one of {', '.join(KINDS)}")
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
