"""UCE's debiasing: paint, count, add a little of what is missing, until the shares are as wanted.

Gandikota et al. 2024 (arXiv:2308.14761), section 4.3 and the authors' code: after each round the amount of an
attribute grows by what its share falls short of, r_j = wanted_j - seen_j, and the edit is solved anew. The
authors write each round on what the last one left in memory; here only the amounts are carried over and every
edit is solved from the original weights, which is the same sum, and needs no state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Unpack

import pandas as pd
from torch import Tensor

from ...models.arguments import batches, check_fields, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.progress import Progress, showing
from ...models.run.settings import SamplingOptions
from ...probes.trace import trace
from ..edit import Edit
from ..text_choice import Weights
from ..text_edit import EditSettings
from .uce import uce

Label = Callable[[Tensor], Sequence[str | None]]
"""Says of pictures [sample, 3, height, width] in 0..1 which attribute each shows; None for another."""


@dataclass(frozen=True, eq=False)
class Balance:
    """What balancing came to.

    Args:
        edit: the last one; None if nothing had to be changed.
        history: ``concept``, ``attribute``, ``round``, ``amount`` that was added, ``share`` seen with it, and
            the share ``wanted``.
        done: whether every share is within the tolerance.
    """

    edit: Edit | None
    history: pd.DataFrame
    done: bool

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        last = self.history[self.history["round"] == self.history["round"].max()]
        off = (last["share"] - last["wanted"]).abs().max()
        end = "within tolerance" if self.done else "not within tolerance"
        return f"Balance({end} after {len(self.history.groupby('round'))} rounds; largest gap {off:.2f})"

    def to_frame(self) -> pd.DataFrame:
        """Return the history."""
        return self.history

    def plot(self) -> Figure:
        """Return the share of each attribute, round by round; what is wanted of it is dotted.

        ``analysis.plots.interval_lines``.
        """
        told, none = self.history, float("nan")
        lines = told.assign(line=told["concept"] + ": " + told["attribute"], mean=told["share"])
        goals = lines.drop_duplicates("line")
        goals = goals.assign(line="wanted: " + goals["line"], mean=goals["wanted"], round=none)
        return figure(
            "interval_lines", pd.concat([lines, goals]).assign(low=none, high=none), "round", "share"
        )

    def _repr_html_(self) -> str:
        return panel(repr(self), frame_table(self.history))


MOST_ROUNDS = 10_000
"""More would be a slip: each paints all pictures."""


@checked
def balance(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    wanted: Mapping[str, Mapping[str, float]],
    label: Label,
    *,
    seeds: Sequence[int],
    prompts: Sequence[str] = ("a photo of a {}",),
    rounds: int = 30,
    rate: float = 1.0,
    tolerance: float = 0.05,
    keep: Sequence[str] = ("",),
    weights: Weights = None,
    settings: str | EditSettings = "ours",
    batch: int = 16,
    progress: Progress | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Balance:
    """Return the ``uce`` debiasing after which the shares of attributes in pictures are as wanted.

    The same seeds in every round, so that rounds differ by the edit alone. The pictures that are counted
    choose the edit: count it again on other seeds.

    Args:
        model: an opened model that reads text.
        wanted: concept -> attribute -> share, ``{"doctor": {"woman": 0.5, "man": 0.5}}``.
        label: says which attribute each picture shows.
        seeds: each prompt is painted with each.
        prompts: with ``{}`` for the concept.
        rounds: at most.
        rate: how much of the gap is added to the amount.
        tolerance: gaps below it count as none.
        keep: as in ``uce``.
        weights: as in ``uce``.
        settings: as in ``uce``.
        batch: pictures at once.
        progress: called with (done, total, what).
        **sampling: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Raises:
        ValueError: for shares that are none, prompts without ``{}``, no seeds, and labels that are not one
            for each picture; and as ``uce``.
    """
    _check(wanted, prompts, seeds, rounds)
    amounts = {c: dict.fromkeys(shares, 0.0) for c, shares in wanted.items()}
    rows: list[tuple[str, str, int, float, float, float]] = []
    edit: Edit | None = None
    with showing(progress) as show:
        for i in range(rounds):
            seen = {}
            for j, concept in enumerate(wanted):
                texts = [p.replace("{}", concept) for p in prompts for _ in seeds]
                with edit.applied(model) if edit else nullcontext():
                    said = _labels(model, texts, [*seeds] * len(prompts), label, batch, sampling)
                seen[concept] = {a: said[a] / len(texts) for a in wanted[concept]}
                show(
                    i * len(wanted) + j + 1, rounds * len(wanted), "rounds of painting and counting, at most"
                )
            for concept, shares in wanted.items():
                rows += [(concept, a, i, amounts[concept][a], seen[concept][a], s) for a, s in shares.items()]
            gaps = {c: {a: s - seen[c][a] for a, s in shares.items()} for c, shares in wanted.items()}
            open_ = {c: g for c, g in gaps.items() if any(abs(x) >= tolerance for x in g.values())}
            if not open_ or i == rounds - 1:
                break
            for concept, gap in open_.items():
                amounts[concept] = {a: v + rate * gap[a] for a, v in amounts[concept].items()}
            moved = {c: a for c, a in amounts.items() if any(a.values())}
            edit = uce(model, {}, debias=moved, keep=keep, weights=weights, settings=settings)
    columns = ["concept", "attribute", "round", "amount", "share", "wanted"]
    return Balance(edit, pd.DataFrame(rows, columns=columns), not open_)


def _labels(  # noqa: PLR0917  # as balance has them
    model: Model,
    texts: Sequence[str],
    seeds: Sequence[int],
    label: Label,
    batch: int,
    sampling: SamplingOptions,
) -> Counter[str | None]:
    """How often each label was given to some pictures."""
    said: Counter[str | None] = Counter()
    for some in batches(len(texts), batch):
        images = trace(model, texts[some], seeds=seeds[some], **sampling).images
        given = list(label(images))
        if len(given) != len(images):
            raise UsageError(f"label gave {len(given)} answers for {len(images)} pictures; give one for each")
        said.update(given)
    return said


def _check(
    wanted: Mapping[str, Mapping[str, float]], prompts: Sequence[str], seeds: Sequence[int], rounds: int
) -> None:
    for concept, shares in wanted.items():
        if not shares or min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9:
            raise UsageError(
                f"wanted asks for {dict(shares)!r} of {concept!r}; give shares from 0 up that make at most "
                '1: {"doctor": {"woman": 0.5, "man": 0.5}}'
            )
    if rounds > MOST_ROUNDS:
        raise UsageError(f"rounds is {rounds}; give {MOST_ROUNDS} at most, the usual are 30")
    if not wanted or not prompts or not seeds or rounds < 1:
        raise UsageError(
            f"wanted is {dict(wanted)!r}, prompts {list(prompts)!r}, seeds {list(seeds)!r}, rounds {rounds}; "
            "give at least one of each"
        )
    plain = [p for p in prompts if p.count("{}") != 1]
    if plain:
        raise UsageError(f"the prompt {plain[0]!r} needs exactly one {{}} where the concept goes")
