"""What causal mediation restores: layers of a text encoder, sites of the denoiser, windows of steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.intervene import Change, Intervention, Spec, partly, patch
from ...probes.trace import expand

KINDS = ("resnet.out", "self_attn.out", "cross_attn.out", "joint_attn.out", "mlp.out", "attn_mlp.out")
"""What ``trace_denoiser`` restores by default: what each layer adds to the stream."""


def text_windows(
    model: Model, encoder: str, kinds: Sequence[str], layers: Sequence[int] | None, window: int
) -> dict[Site, list[Site]]:
    """For each site, layer by layer, the sites restored with it: ``window`` layers, as in ROME.

    Raises:
        ValueError: for a window of no layers, or no kinds.
        LookupError: for encoders, kinds or layers that the model does not have.
    """
    if window < 1 or not kinds:
        raise UsageError(f"window is {window} and kinds is {kinds!r}; give at least 1 layer and one kind")
    towers = [list(model.sites(f"{encoder}/layer.*/{kind}")) for kind in kinds]
    n = model.layers_read().get(encoder, len(towers[0]))
    towers = [tower[:n] for tower in towers]
    wrong = [layer for layer in layers or () if layer not in range(n)]
    if wrong:
        raise NotFoundError(
            f"{model.name} reads no layer {wrong[0]} of its {encoder}; it reads layers 0 to {n - 1}"
        )
    return {
        tower[i]: tower[max(0, i - window // 2) : i + (window + 1) // 2]
        for i in (range(n) if layers is None else layers)
        for tower in towers
    }


def denoiser_sites(model: Model, sites: Sequence[Site | str] | Site | str | None) -> list[Site]:
    """The sites that are restored; None is all of ``KINDS``.

    Raises:
        ValueError: for a site outside the denoiser, or none.
        LookupError: for a site that the model does not have.
    """
    part = model.input_site.component
    if sites is None:
        return [s for s in model.sites(f"{part}/**") if s.kind in KINDS]
    found = expand(model, sites)
    outside = [s for s in found if s.component != part]
    if outside or not found:
        raise UsageError(
            f"{outside[0] if outside else sites!r} is not in the denoiser; name sites of {part}/, "
            "and trace text encoders with trace_text"
        )
    return found


def window_name(when: When) -> str:
    """A window of steps as a label: ``"0-4"``, or ``"0,2,5"`` where steps are left out."""
    steps = tuple(when.steps or ())
    whole = steps == tuple(range(steps[0], steps[-1] + 1))
    return f"{steps[0]}-{steps[-1]}" if whole else ",".join(map(str, steps))


def step_windows(windows: Sequence[Collection[int]] | None, n_steps: int) -> list[When]:
    """Windows of steps as conditions; None is one window of all steps.

    Raises:
        ValueError: for no windows, and steps that the run does not have.
    """
    if windows is None:
        return [When()]
    if not windows:
        raise UsageError(f"windows is empty; give sets of steps like [range(0, {n_steps})], or None for all")
    whens = [When(steps=tuple(sorted(set(w)))) for w in windows]
    for when in whens:
        when.check(n_steps, 1, ("cond",))
    return whens


@dataclass(frozen=True)
class Piece:
    """What is restored of a site at a time: at some steps, and of some heads or tokens.

    Args:
        when: which steps.
        heads: None is all.
        tokens: None is all.
    """

    when: When = When()
    heads: tuple[int, ...] | None = None
    tokens: tuple[int, ...] | None = None

    @property
    def told(self) -> dict[str, Any]:
        """All of it, as JSON."""
        steps = None if self.when.steps is None else sorted(self.when.steps)
        return {"steps": steps, "heads": self.heads, "tokens": self.tokens}

    def patch(self, site: Site, values: Mapping[Site, Any]) -> Intervention:
        """Put the values of another run in place."""
        return patch(site, values, self.when, tokens=self.tokens, heads=self.heads)

    def copied(self, site: Site, source: int, target: int) -> Intervention:
        """Give one row of a batch what another one has."""
        some = {name: list(part) for name in ("tokens", "heads") if (part := getattr(self, name)) is not None}
        spec = Spec("copy_row", {"rows": [source, target], **some})
        copy = Intervention(site, copy_row(source, target), self.when, spec)
        return partly(copy, self.tokens, self.heads)


def pieces(  # noqa: PLR0917  # as trace_denoiser has them
    model: Model,
    sites: Sequence[Site],
    n_steps: int,
    windows: Sequence[Collection[int]] | None,
    heads: Sequence[int | Sequence[int]] | None,
    tokens: Sequence[int | Sequence[int]] | None,
) -> tuple[list[Piece], tuple[str, dict[str, Any]] | None]:
    """The pieces of each site, and what the dimension over them is called, if there is one.

    Raises:
        ValueError: for more than one of windows, heads and tokens, and what the sites do not have.
    """
    given = [
        name
        for name, some in (("windows", windows), ("heads", heads), ("tokens", tokens))
        if some is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are given; restore by one of them at a time")
    whens = step_windows(windows, n_steps)
    if windows is not None:
        return [Piece(w) for w in whens], ("window", {"window": [window_name(w) for w in whens]})
    if heads is None and tokens is None:
        return [Piece()], None
    name, some = ("head", heads) if heads is not None else ("token", tokens)
    groups = [(int(g),) if isinstance(g, int) else tuple(map(int, g)) for g in some or ()]
    _check_groups(model, sites, name, groups)
    labels = ["-".join(map(str, g)) if len(g) < 3 else f"{g[0]}...{g[-1]}" for g in groups]
    cuts = [Piece(heads=g) if name == "head" else Piece(tokens=g) for g in groups]
    return cuts, (name, {name: labels})


def _check_groups(model: Model, sites: Sequence[Site], name: str, groups: Sequence[tuple[int, ...]]) -> None:
    if not groups or not all(groups):
        raise UsageError(f"{name}s is {list(groups)!r}; give at least one, or groups of them")
    if len(set(groups)) < len(groups):
        raise UsageError(f"{name}s hold {[g for g in groups if groups.count(g) > 1][0]} more than once")
    for site in sites:
        layout = model.layout(site)
        if name not in layout.axes:
            raise UsageError(
                f"{name}s are given, but {site} has the axes {layout.axes}, none of {name}s; for heads "
                "choose sites like **/cross_attn.z, for tokens sites like **/self_attn.out or unet/in/text"
            )
        n = layout.heads if name == "head" else None
        wrong = [i for g in groups for i in g if n is not None and i not in range(n)]
        if n is not None and wrong:
            raise UsageError(f"{site} has heads 0 to {n - 1}, no {wrong[0]}")


def neighbouring(sites: Sequence[Site], neighbours: int) -> list[list[Site]]:
    """For each site those restored with it: of the same kind, in the order given, as ``text_windows``.

    Raises:
        ValueError: for no neighbours at all; 1 is the site alone.
    """
    if neighbours < 1:
        raise UsageError(f"neighbours is {neighbours}; 1 is each site alone, 3 one more on either side")
    kinds: dict[str, list[Site]] = {}
    for site in sites:
        kinds.setdefault(site.kind, []).append(site)
    found = []
    for site in sites:
        row = kinds[site.kind]
        i = row.index(site)
        found.append(row[max(0, i - neighbours // 2) : i + (neighbours + 1) // 2])
    return found


def copy_row(source: int, target: int) -> Change:
    """Give one row of a batch what another one has."""
    return partial(_copied, source, target)


def _copied(source: int, target: int, x: Tensor, _: CallContext) -> Tensor:
    y = x.clone()
    y[target] = x[source]
    return y
