"""Who is called: a choice of steps, branch and rows, and what is known inside a call of a network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..arguments import check_fields
from ..errors import UsageError
from ..site import Site
from ..suggest import near
from ..text.prompt import Words
from .levels import Step

Branch: TypeAlias = str
"""Name of a guidance branch: "cond", "uncond", or one that a Guidance adds."""


@dataclass(frozen=True)
class When:
    """Which moments, guidance branch and samples of a run.

    Args:
        steps: step indices; None is all.
        branch: ``"cond"`` (the rows that read the prompt), ``"uncond"`` (the rows that read the negative
            prompt), the name of another branch of the guidance, or None for all.
        rows: sample indices inside the batch; None is all.
    """

    steps: Collection[int] | None = None
    branch: Branch | None = "cond"
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.branch is not None and (not isinstance(self.branch, str) or not self.branch):
            raise UsageError(f"branch is {self.branch!r}; it is 'cond', 'uncond', ... or None (all of them)")
        if self.steps is not None and (not self.steps or min(self.steps) < 0):
            raise UsageError(f"steps is {self.steps!r}; it holds indices 0, 1, ... (0 is the noisiest)")

    def __contains__(self, step: object) -> bool:
        index = step.index if isinstance(step, Step) else step
        return self.steps is None or index in self.steps

    def check(self, n_steps: int, n_rows: int, branches: Collection[Branch]) -> None:
        """Raise ValueError if this can never happen in a run of so many steps and rows."""
        if self.steps is not None and max(self.steps) >= n_steps:
            raise UsageError(f"steps {self.steps!r} reach past the run, which has steps 0 to {n_steps - 1}")
        if self.rows is not None and not all(0 <= r < n_rows for r in self.rows):
            raise UsageError(f"rows {self.rows!r} are not all among the run's samples 0 to {n_rows - 1}")
        if self.branch is not None and self.branch not in branches:
            if self.branch == "uncond":
                raise UsageError(
                    "branch 'uncond' does not exist in an unguided run; set guidance above 1 "
                    "(on models told their guidance, CFG(scale, true_scale=...))"
                )
            raise UsageError(f"the run has no branch {self.branch!r}; {near(self.branch, branches)}")


@dataclass(frozen=True)
class CallContext:
    """What an intervention is told about the rows that it gets.

    Args:
        step: the step, or None while text is encoded.
        branch: the guidance branch of the rows.
        samples: which samples of the run the rows are.
        prompts: what each row reads: its Prompt in the denoiser; in a text encoder, where nothing is encoded
            yet, its Words with that encoder's own tokens. ``prompts[0].find("cat")`` gives them in both.
        part: the component that is called, "unet" or "text_encoder_2".
    """

    step: Step | None
    branch: Branch
    samples: tuple[int, ...]
    prompts: tuple[Words, ...]
    part: str

    @property
    def index(self) -> int | None:
        """The step's place in the run; None while text is encoded."""
        return None if self.step is None else self.step.index


TEXT = "text_encoder"
"""The part of a Call in which all text encoders run."""


@dataclass(frozen=True)
class Call:
    """One call of a network: which rows of its batch are whose.

    Args:
        part: the denoiser's component, or ``TEXT``.
        rows: where each guidance branch lies in the batch.
        steps: the step of each sample of a branch; empty while text is encoded.
        prompts: for each branch what its rows read.
        guidance_scale: the scale of the run, for networks that are told it.
        samples: which samples of the run the rows of a branch are; empty where they are all, in order.
        words: for each text encoder the words of all rows, as it cuts them up; known when it is called.
        layers_read: how many layers of a text encoder the denoiser reads, where it is not all.
    """

    part: str
    rows: Mapping[Branch, slice]
    steps: tuple[Step, ...] = ()
    prompts: Mapping[Branch, Sequence[Words]] = field(default_factory=dict)
    guidance_scale: float | None = None
    samples: tuple[int, ...] = ()
    words: Mapping[str, Sequence[Words]] = field(default_factory=dict)
    layers_read: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return max((rows.stop for rows in self.rows.values()), default=0)

    def reaches(self, component: str) -> bool:
        """Return whether a component runs in this call."""
        return component.startswith(TEXT) if self.part == TEXT else component == self.part

    def check_read(self, site: Site) -> None:
        """Raise ValueError if the denoiser reads nothing of what passes through a site."""
        n = self.layers_read.get(site.component)
        group, _, layer = site.block.partition(".")
        if n is None or group == "embed" or (group == "layer" and int(layer) < n):
            return
        last = f"layer.{n - 1}/resid.post" if n else "embed/out"
        what = f"layers 0 to {n - 1}" if n else "the embeddings"
        raise UsageError(
            f"{site} does not reach the denoiser: of {site.component} it reads {what} alone; the last place "
            f"to intervene is {site.component}/{last}"
        )

    def select(self, when: When, component: str) -> Iterator[tuple[list[int], CallContext]]:
        """Yield the batch rows that ``when`` speaks of, branch by branch, and what is known of them."""
        for branch, rows in self.rows.items():
            if when.branch not in (None, branch):
                continue
            samples = self.samples or tuple(range(rows.stop - rows.start))
            wanted = samples if when.rows is None else [s for s in when.rows if s in samples]
            chosen = [samples.index(s) for s in wanted]
            for step in dict.fromkeys(self.steps) or (None,):
                if step is not None and step not in when:
                    continue
                here = [r for r in chosen if step is None or self.steps[r] == step]
                if here:
                    own = self.words[component][rows] if component in self.words else ()
                    prompts = own or self.prompts.get(branch, ())
                    read = tuple(prompts[r] for r in here) if prompts else ()
                    known = tuple(samples[r] for r in here)
                    yield [rows.start + r for r in here], CallContext(step, branch, known, read, component)
