"""Arguments and options that several commands share, each declared once.

A command takes a group as one argument, ``run: Runs = Runs(steps=20)``, whose value holds the defaults;
``groups.expanded`` makes options of the group's fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..models.errors import UsageError

PromptArg = Annotated[str, typer.Argument(help="What to generate, in quotes.", show_default=False)]
AboutOpt = Annotated[
    str,
    typer.Option(
        "--about",
        help="The word of the prompt to ask about; 'cook:2' is the second cook in it.",
        show_default=False,
    ),
]
ChangeOpt = Annotated[
    str, typer.Option("--change-to", help="What it shall mean instead.", show_default=False)
]


@dataclass(frozen=True)
class Goals:
    """What a change is for; one of them."""

    change_to: Annotated[
        str, typer.Option("--change-to", help="What the word shall mean instead.", show_default=False)
    ] = ""
    remove: Annotated[bool, typer.Option("--remove", help="It shall not be painted.")] = False
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            help="Two attributes that shall come equally often, gender=woman,man; give 16 seeds or more.",
            show_default=False,
        ),
    ] = ""
    steer: Annotated[
        str,
        typer.Option(
            "--steer", help="An attribute that it shall have: woman, or woman,man.", show_default=False
        ),
    ] = ""
    analyses: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="Which analyses look for changes, with commas between them: mediation, information, "
            "features, directions; if left out all but features, which need a dictionary.",
            show_default=False,
        ),
    ] = None
    dictionary: Annotated[
        Path | None,
        typer.Option(help="A file of  denoscope features train, for the features.", show_default=False),
    ] = None

    @property
    def case(self) -> dict[str, Any]:
        """The settings of a Case."""
        asked = None if self.analyses is None else tuple(a.strip() for a in self.analyses.split(","))
        goals = {name: getattr(self, name) for name in ("change_to", "remove", "balance", "steer")}
        return {**goals, "analyses": asked, "dictionary": self.dictionary}


@dataclass(frozen=True)
class Opening:
    """Which model is opened, and how."""

    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A name from the zoo, a folder in diffusers' layout, or a hub id."
        ),
    ] = "emoji"
    device: Annotated[str, typer.Option(help="Where it computes: cpu, cuda, cuda:1, mps.")] = "cpu"
    dtype: Annotated[str, typer.Option(help="Number format of its weights: float32, float16, bfloat16.")] = (
        "float32"
    )


@dataclass(frozen=True)
class Seeds:
    """Starting noises: how many, or which."""

    seeds: Annotated[int, typer.Option(help="How many seeds: 0, 1, ...")] = 4
    seed: Annotated[
        str | None, typer.Option(help="Which seeds, in place of --seeds: 7 or 7,8,9.", show_default=False)
    ] = None

    @property
    def chosen(self) -> int | tuple[int, ...]:
        """What a Case takes: how many, or which.

        Raises:
            ValueError: if ``seed`` is not whole numbers with commas between them.
        """
        if self.seed is None:
            return self.seeds
        try:
            return tuple(int(one) for one in self.seed.split(","))
        except ValueError:
            raise UsageError(
                f"--seed is {self.seed!r}; write whole numbers with commas between them: --seed 7,8,9"
            ) from None


@dataclass(frozen=True)
class Runs(Seeds, Opening):
    """How pictures are sampled, by which model."""

    steps: Annotated[int, typer.Option(help="Sampling steps; embedded models do with 6, others want 20.")] = 6
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own if left out.")] = (
        None
    )

    @property
    def case(self) -> dict[str, Any]:
        """The settings of a Case."""
        opening = {"model": self.model, "device": self.device, "dtype": self.dtype}
        return {**opening, "seeds": self.chosen, "steps": self.steps, "guidance": self.guidance}


@dataclass(frozen=True)
class JudgedRuns(Runs):
    """How pictures are sampled, and who says what they show."""

    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="Who says what pictures show: a folder or hub id of a CLIP, a SigLIP or an image "
            "classifier in transformers' format; the one that ships with the model if left out.",
            show_default=False,
        ),
    ] = None

    @property
    def case(self) -> dict[str, Any]:
        """The settings of a Case."""
        return {**super().case, "judge": self.judge}
