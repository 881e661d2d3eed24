"""What causal mediation restores: layers of a text encoder, sites of the denoiser, windows of steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.run.context import When
from ...models.site import Site
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
