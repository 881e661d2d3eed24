"""What is asked of a model, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from ..analysis.metrics import ClipScorer, Metric, clip_score, latent_distance, text_fit
from ..bench.ranking import best
from ..models.arguments import check_fields
from ..models.base import Model, check_run
from ..models.errors import UsageError
from ..models.judges.choosing import TextJudge, about_judge, any_judge
from ..models.judges.classifier import ClassifierJudge
from ..models.load import load
from ..models.opening.placing import placing
from ..models.run.sampling import Sampling
from ..models.zoo import ZOO
from .changes.analyses import ANALYSES, check_analyses
from .goal import Goal, goal_of
from .wording import OTHERS, Wording, fit, wording

METHOD = "quickfix"
"""Of editing, where no benchmark says which is best."""


@dataclass(frozen=True)
class Case:
    """What is asked, and how thoroughly.

    Args:
        prompt: a text that contains ``about``.
        about: the word (or run of words) whose cause is looked for; ``"cook:2"`` is the second cook in it.
        change_to: what it shall mean after the change; or one of the other goals:
        remove: whether it shall be gone;
        balance: two attributes that shall come equally often, ``"gender=woman,man"``;
        steer: an attribute that it shall have, ``"woman"``.
        model: a name from the zoo, a folder, or a hub id.
        seeds: how many starting noises (0, 1, ...), or which.
        steps: sampling steps; 6 do for the embedded models, others want more.
        guidance: guidance scale; None is the model's default.
        draws: how many noise draws take the word out in causal tracing.
        device: where the model computes.
        dtype: number format of its weights: ``"float32"``, ``"float16"``, ``"bfloat16"``.
        method: of the edit: "quickfix", "uce", "nullspace", "locoedit", "refact" or "memit"; None is the one
            that the benchmark that ships found best (``denoscope.bench.best``).
        judge: says what pictures show: a folder or hub id of a CLIP, a SigLIP or an image classifier; a
            judge; or a function of pictures and texts. None is the one that ships with the model, if any.
        analyses: which look for changes, of "mediation", "information", "features" and "directions"; None is
            all but features, which need a dictionary.
        dictionary: a file of ``denoscope features train``, for the features.
    """

    prompt: str
    about: str
    change_to: str = ""
    model: str = "emoji"
    seeds: int | Sequence[int] = 4
    steps: int = 6
    guidance: float | None = None
    draws: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    method: str | None = None
    judge: Any = None
    remove: bool = False
    balance: str = ""
    steer: str = ""
    analyses: Sequence[str] | None = None
    dictionary: str | Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_analyses(self.analyses, self.dictionary)

    @property
    def looked_by(self) -> tuple[str, ...]:
        """Which analyses look for changes, in their order."""
        asked = self.analyses
        if asked is None:
            return tuple(a for a in ANALYSES if a != "features" or self.dictionary is not None)
        return tuple(a for a in ANALYSES if a in asked)

    @property
    def goal(self) -> Goal:
        """What the change is for.

        Raises:
            ValueError: for none or several.
        """
        return goal_of(
            self.model, self.prompt, self.about, self.change_to, self.remove, self.balance, self.steer
        )


@runtime_checkable
class ReadingJudge(Protocol):
    """A judge that knows which texts it can read."""

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError or LookupError for one that it cannot."""


@dataclass(frozen=True, eq=False)
class Setup:
    """A case made ready: everything that the stages share.

    Args:
        case: what is asked.
        model: opened.
        judge: says what pictures show; None if none was given and none ships with the model.
        guidance: the scale that is used.
        wording: in which texts the edit is tried.
    """

    case: Case
    model: Model
    judge: TextJudge | None
    guidance: float
    wording: Wording

    @property
    def goal(self) -> Goal:
        """What the change is for."""
        return self.case.goal

    @property
    def run(self) -> dict[str, Any]:
        """What every sampling run is given."""
        return {"seeds": self.seeds, "steps": self.case.steps, "guidance": self.guidance}

    @property
    def seeds(self) -> list[int]:
        """The starting noises."""
        return seeds_of(self.case.seeds)

    @property
    def method(self) -> str:
        """The method of editing: the case's, or the one that the benchmark found best."""
        found = best(self.case.model)
        return self.case.method or (found.method if found else METHOD)

    @property
    def why_method(self) -> str:
        """Why it is that one, where the case names none; else empty."""
        found = best(self.case.model)
        return "" if self.case.method or found is None else found.why(self.case.model)

    @property
    def metric(self) -> Metric:
        """What pictures are scored by in causal tracing."""
        if self.judge is None:
            return latent_distance()
        return clip_score(self.judge) if isinstance(self.judge, ClipScorer) else text_fit(self.judge)

    @property
    def settings(self) -> dict[str, Any]:
        """What the case says, in JSON; a judge of its own by name and hash."""
        case = replace(self.case, seeds=self.seeds, judge=None, method=self.method)
        plain = {name: value for name, value in asdict(case).items() if value not in (None, "", False)}
        plain |= {"analyses": list(self.case.looked_by), "guidance": self.case.guidance}
        plain.pop("dictionary", None)  # by its hash, which investigate adds
        plain |= {} if self.case.dictionary is None else {"dictionary_file": str(self.case.dictionary)}
        return plain if self.case.judge is None else {**plain, "judge": about_judge(self.judge)}


def prepare(case: Case) -> Setup:
    """Open the model and check the case, so that faults show before any work is done.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for runs that cannot be made.
    """
    model, judge, guidance = open_case(case)
    goal = case.goal
    others = judge.names if isinstance(judge, ClassifierJudge) else OTHERS
    words = wording(case.model, case.prompt, case.about, goal.meant, others)
    asked = [(phrase, goal.written(words.efficacy[0], phrase)) for phrase in goal.asked]
    check_judge_reads(judge, [text for _, text in asked])
    with torch.no_grad():
        said, *outright = model.encode([case.prompt, *(text for _, text in asked)])  # not too long either
    for encoder in model.text_encoders:
        for (phrase, _), prompt in zip(asked, outright, strict=True):
            if said.of(encoder).reads(case.about):
                prompt.of(encoder).find(phrase)
    return Setup(case, model, judge, guidance, judgeable(judge, fitting(model, words)))


def check_judge_reads(judge: TextJudge | None, texts: Sequence[str]) -> None:
    """Raise an error if a judge cannot say whether pictures show some texts.

    Raises:
        LookupError: if it has no label for one of them.
        ValueError: if a text is too long for it.
    """
    if isinstance(judge, ReadingJudge):
        judge.check(texts)


def judgeable(judge: TextJudge | None, words: Wording) -> Wording:
    """Leave out further texts of a wording that a judge cannot read, or has no label for.

    Any of the words is asked about in any of the templates, so other things go first, then templates.
    """
    if not isinstance(judge, ReadingJudge):
        return words
    own = words.efficacy[0]

    def reads(text: str) -> bool:
        try:
            judge.check([text])
        except (ValueError, LookupError):
            return False
        return True

    others = {w: ts for w, ts in words.neighbourhood.items() if reads(fit(own, w).replace("{}", w))}
    known = (words.about, words.change_to, *others)
    return replace(
        words,
        generality=tuple(t for t in words.generality if all(reads(t.replace("{}", w)) for w in known)),
        neighbourhood={
            w: kept
            for w, templates in others.items()
            if (kept := tuple(t for t in templates if all(reads(t.replace("{}", x)) for x in known)))
        },
        peers=tuple(w for w in words.peers if reads(fit(own, w).replace("{}", w))),
    )


def fitting(model: Model, words: Wording) -> Wording:
    """Leave out further texts of a wording that are too long for a model, or unknown to its tokenizers."""

    def reads(text: str) -> bool:
        try:
            with torch.no_grad():
                read = model.encode([text])[0]
        except ValueError:  # too long
            return False
        return not any(read.of(encoder).unknown for encoder in model.text_encoders)

    return words.fitting(reads)


def open_case(case: Case) -> tuple[Model, TextJudge | None, float]:
    """Open a case's model and judge, and settle its guidance.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for runs that cannot be made.
    """
    seeds = seeds_of(case.seeds)
    check_run(len(seeds), seeds)
    Sampling(steps=case.steps, guidance=case.guidance)
    model = load(case.model, **placing(case.device, case.dtype))
    if not model.text_encoders:
        raise UsageError(
            f"{model.name} has no text encoder, so no word of a prompt can be investigated; take 'emoji'"
        )
    with torch.no_grad():
        model.encode([case.prompt])[0].find(case.about)
    model.steps(case.steps)
    guidance = model.default_guidance if case.guidance is None else case.guidance
    named = case.model if case.judge is None and case.model in ZOO else case.judge
    return model, None if named is None else any_judge(named, case.device), guidance


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Return the starting noises: 0, 1, ... for a number of them.

    Raises:
        ValueError: if there are none.

    >>> seeds_of(3), seeds_of([7, 8])
    ([0, 1, 2], [7, 8])
    """
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found:
        raise UsageError(f"seeds is {seeds}; it is how many pictures are made, at least 1, or a list of them")
    return found
