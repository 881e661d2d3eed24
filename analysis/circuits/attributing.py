"""How features of one site make features of another: exactly, in a network whose gates are held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.errors import UsageError
from .freezing import Frozen
from .one_step import Contrast, constant


@dataclass(frozen=True, eq=False)
class Attribution:
    """What features add to the word's effect on the output, of which the whole is 1.

    Args:
        chosen: target features, those that carry most first.
        carried: by each target feature, [target feature].
        pull: what a unit of a target feature adds at each position, [position, target feature].
        edges: from each source feature through each chosen target, [source feature, chosen].
        rest: through each chosen target, of what the source dictionary leaves unexplained, [chosen].
        sources: what each source feature adds by all routes, [source feature].
        gap: how far a replay of the held network, without what the word changes at the source, is from what
            the edges say, over the largest change; rounding alone.
    """

    chosen: list[int]
    carried: Tensor
    pull: Tensor
    edges: Tensor
    rest: Tensor
    sources: Tensor
    gap: float


def attributed(asked: Contrast, features: int) -> Attribution:
    """Return the attribution of the target features that carry most, and of the root, to source features.

    With the network held, a feature's pre-activation h at a position is linear in the source's activation.
    With ``u`` the gradient of the root along a target feature, an edge is

        ``A_ij = sum_p dz_i(p) < grad_x(p) sum_q u_j(q) h_j(q), f_i >``

    over positions q where j is on; ``dz`` is what the word changes.

    Args:
        asked: what the word changes.
        features: how many target features, at most.

    Raises:
        UsageError: if the target does not depend on the source, and if the word changes no feature of either.
    """
    at, source, target = asked.at, asked.source, asked.target
    with constant(list(at.model.components.values())), torch.enable_grad():
        held = Frozen()
        added = torch.zeros_like(source.clean, requires_grad=True)
        out, x, late = _held(asked, held, added)
        slopes = torch.autograd.grad(
            (out * asked.root).sum(), [late, added], retain_graph=True, allow_unused=True
        )
        if any(slope is None for slope in slopes) or not x.requires_grad:
            raise UsageError(
                f"{target.site} does not depend on {source.site}; name them in the order in which they run"
            )
        pull = target.rows(slopes[0].float())[0] @ target.dictionary.decoder.mT
        carried = (pull * target.change).sum(0)
        chosen = strongest(carried, features)
        if not chosen or not source.alive:
            raise UsageError("the word changes no feature of one of the sites; train longer, or name others")
        weights = pull * (target.on > 0)
        read = target.dictionary.encoder
        slope = [
            torch.autograd.grad(x, added, target.shaped((weights[:, j, None] * read[j])[None]).to(x),
                                retain_graph=True)[0]
            for j in chosen
        ]  # fmt: skip
        gap = _gap(asked, held, (x, weights, slope, chosen))
    each = source.rows(torch.cat(slope).float())  # [chosen, position, channel]
    decoder, moved = source.dictionary.decoder, source.rows(source.clean - source.without)[0]
    edges = torch.stack([(source.change * (g @ decoder.mT)).sum(0) for g in each], 1)
    rest = (each * moved).sum((1, 2)) - edges.sum(0)
    alone = (source.change * (source.rows(slopes[1].float())[0] @ decoder.mT)).sum(0)
    return Attribution(chosen, carried, pull, edges, rest, alone, gap)


def strongest(values: Tensor, n: int) -> list[int]:
    """Return where the largest magnitudes are, largest first; zeros never."""
    order = values.abs().argsort(descending=True, stable=True)[:n].tolist()
    return [i for i in order if values[i] != 0]


def _held(asked: Contrast, held: Frozen, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output of the held network, the target's activation, and what is added there for its gradient."""
    source, target = asked.source.site, asked.target.site
    late = torch.zeros_like(asked.target.clean, requires_grad=True)
    changes = {source: lambda x: x + added, target: lambda x: x + late}
    with held:
        out, seen = asked.at.output(asked.at.clean, changes=changes, watched=[target])
    return out, seen[target], late


def _gap(
    asked: Contrast, held: Frozen, known: tuple[Tensor, Tensor, Sequence[Tensor], Sequence[int]]
) -> float:
    """Replay the held network with the word's change taken out at the source: is h less by what edges say?"""
    x, weights, slope, chosen = known
    source, target = asked.source, asked.target
    change = -source.added(source.change[None]).to(x)
    _, there, _ = _held(asked, Frozen(held.tape), change.requires_grad_())
    moved = target.rows((there - x).detach().float())[0] @ target.dictionary.encoder[list(chosen)].mT
    seen = (weights[:, list(chosen)] * moved).sum(0)
    said = torch.stack([(g * change).sum() for g in slope]).detach()
    return float((seen - said).abs().max() / said.abs().max().clamp_min(1e-12))
