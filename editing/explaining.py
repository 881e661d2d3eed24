"""Where did an edit go wrong? How far each request is met, what moved, how each solve was conditioned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ..models.arguments import check_fields, checked
from ..models.base import Model
from ..models.drawn import Figure, figure
from ..models.errors import UsageError
from ..models.html import panel, table
from ..models.site import Site
from ..probes.joint_text import joint_layers
from ..probes.text_layers import text_layers
from .edit import Edit
from .lowrank import dense, spectrum
from .methods import locoedit, nullspace, time, uce
from .methods.quickfix import site_rows
from .requests import prompt_pairs
from .text_edit import SpaceRows, Wish, noted, space_rows
from .weights import carries

ASKED = {"locoedit": locoedit.asked, "nullspace": nullspace.asked, "time": time.asked, "uce": uce.asked}
"""For each method what an edit's note asks for."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an edit does to the rows that it was solved for.

    Args:
        requests: for each request, over its rows and all layers, ``met``: 1 - |D k - r| / |r| for the wanted
            change r of a layer's output: 1 if it is reached, 0 if nothing of it is, less if it moves away;
            and how many ``rows`` there are.
        kept: for each weight, how far the outputs of the rows moved that were ``kept`` or ``held``,
            |D c| / |W0 c|: ``mean`` and ``largest`` over the rows.
        layers: for each weight, the ``condition`` number of the system solved, ``norm`` of the change,
            ``relative`` to that of the weight, and its numerical ``rank``.
    """

    requests: pd.DataFrame
    kept: pd.DataFrame
    layers: pd.DataFrame

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        met, moved = self.requests["met"], self.kept["largest"].max() if len(self.kept) else 0.0
        worst = f"{met.idxmin()!r} is met to {met.min():.0%}"
        return f"Explanation({worst}; what is kept moved by up to {moved:.1%})"

    def to_frame(self) -> pd.DataFrame:
        """Return the table of requests."""
        return self.requests

    def plot(self) -> Figure:
        """Return bars of how far each request is met, ``analysis.plots.effect_bars``: 1 is reached."""
        frame = self.requests.rename_axis("measure").reset_index().rename(columns={"met": "mean"})
        return figure("effect_bars", frame.assign(when="met", low=float("nan"), high=float("nan")))

    def _repr_html_(self) -> str:
        frames = [f for f in (self.requests, self.kept, self.layers) if len(f)]
        return panel(repr(self), *(table([str(f.index.name), *f.columns], f.itertuples()) for f in frames))


@checked
def explain(edit: Edit, model: Model) -> Explanation:
    """Return how far an edit meets what it was asked for, on the weights that it is for.

    Args:
        edit: of one method, perhaps scaled; of a sum, explain each part.
        model: the model that it was made on, without it.

    Raises:
        ValueError: for an edit whose rows are not known (a sum, one by hand), and a model that carries it.

    >>> from denoscope.editing import uce
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> list(explain(uce(model, {"cat": "dog"}), model).requests.index)
    ['cat -> dog']
    """
    method = str(edit.note.get("method", "by hand"))
    if method not in {*ASKED, "quickfix"}:
        raise UsageError(
            f"the rows of an edit of method {method!r} are not known; explain one of quickfix, "
            f"{', '.join(ASKED)}, and of a sum each part"
        )
    if carries(model, edit):
        raise UsageError(
            f"{model.name!r} carries {edit!r}; revert it first, or explain it on the plain model"
        )
    wishes, spaces = _rows(model, method, edit)
    labels = [_label(wish) for wish in wishes]
    wanted, missed, counts = dict.fromkeys(labels, 0.0), dict.fromkeys(labels, 0.0), dict.fromkeys(labels, 0)
    kept = list[tuple[str, str, float, float]]()
    layers = list[tuple[str, float, float, float, int]]()
    for rows in spaces:
        owners = [labels[i] for i in rows.wishes]
        for owner in owners:
            counts[owner] += 1
        condition = _condition(rows)
        for layer in (x for x in rows.layers if x.weight in edit.deltas):
            weight = layer.module.weight.detach().cpu().double()[:, : layer.columns]
            change = dense(edit.deltas[layer.weight])[:, : layer.columns]
            want = (rows.targets - rows.keys) @ weight.T
            lost = (want - rows.keys @ change.T).square().sum(1).tolist()
            for owner, a, b in zip(owners, want.square().sum(1).tolist(), lost, strict=True):
                wanted[owner] += a
                missed[owner] += b
            kept += _moved(rows, layer.weight, weight, change)
            s = spectrum(edit.deltas[layer.weight])
            layers.append((layer.weight, condition, s.norm, s.norm / float(weight.norm()), s.rank))
    met = [(n, 1 - (missed[n] / wanted[n]) ** 0.5 if wanted[n] else 1.0, counts[n]) for n in wanted]
    return Explanation(
        pd.DataFrame(met, columns=["request", "met", "rows"]).set_index("request"),
        pd.DataFrame(kept, columns=["weight", "how", "mean", "largest"]).set_index("weight"),
        pd.DataFrame(layers, columns=["weight", "condition", "norm", "relative", "rank"]).set_index("weight"),
    )


def _rows(model: Model, method: str, edit: Edit) -> tuple[Sequence[Wish], Iterator[SpaceRows]]:
    """What an edit's note asks for, and its rows, made again."""
    note = edit.note
    if method != "quickfix":
        how = noted(note)
        asked = ASKED[method](note, how)
        layers = [x for x in (*text_layers(model), *joint_layers(model)) if x.weight in edit.deltas]
        found = space_rows(model, layers, asked, how, keep=note["keep"], hold=note["hold"])
        return asked[0], found
    pairs, ridges = prompt_pairs(note["requests"], note["templates"]), note["ridge"]
    each = (
        site_rows(model, Site(site), pairs, note["tokens"], note["keep"], ridge)
        for site, ridge in ridges.items()
    )
    return [Wish((pair,), (1.0,)) for pair in pairs], each


def _label(wish: Wish) -> str:
    said = wish.pairs[0].said
    if not wish.own:
        return f"{said} -> {wish.pairs[0].meant}"
    more = " ".join(f"{a:+g} {p.meant}" for a, p in zip(wish.amounts, wish.pairs, strict=True))
    return f"{said} {more}"


def _moved(
    rows: SpaceRows, name: str, weight: Tensor, change: Tensor
) -> Iterator[tuple[str, str, float, float]]:
    """How far kept and held rows moved, in one layer."""
    for how, some in (("kept", rows.kept), ("held", rows.held)):
        if some is not None:
            far = (some @ change.T).norm(dim=1) / (some @ weight.T).norm(dim=1).clamp_min(1e-30)
            yield name, how, float(far.mean()), float(far.max())


def _condition(rows: SpaceRows) -> float:
    """The condition number of M: kept and wanted rows, and the ridge."""
    moment = rows.keys.T @ rows.keys + rows.ridge * torch.eye(rows.keys.shape[1], dtype=torch.float64)
    if rows.kept is not None:
        moment += rows.kept.T @ rows.kept
    values = torch.linalg.eigvalsh(moment)
    return float(values[-1] / values[0])
