"""A steering or an ablation becomes an edit of weights, where that is exact.

At the output ``y = W x + b`` of a linear layer or a convolution, adding ``a v`` to y is ``b' = b + a v``, and
projecting ``u = v / |v|`` out of y is ``W' = W - u uᵀ W``, ``b' = b - u uᵀ b``. Weights cannot tell steps,
branches or rows apart, so the intervention must act everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import UsageError
from ..models.run.context import When
from ..probes.dictionary import DictionaryEdit
from ..probes.direction import Direction
from ..probes.intervene import Intervention
from .edit import Edit
from .lowrank import Delta, LowRank

_ALWAYS = When(branch=None)


@checked
def freeze(model: Model, interventions: Intervention | Sequence[Intervention]) -> Edit:
    """Return an Edit that does for good what ``Direction.steer`` and ``.ablate`` do while a run lasts.

    Both agree to rounding, in every step and branch.

    Args:
        model: an opened model.
        interventions: of ``steer`` or ``ablate``, or a dictionary's ``edit(..., add=...)``; one for each site
            at most. Features that are scaled or set depend on what is on, and are refused.

    Raises:
        ValueError: for other interventions, those of some steps, branches, samples or tokens alone, gated
            ones, sites that are no layer's output, two at one layer, and a layer without bias to steer by.
        LookupError: for sites that the model does not have.

    >>> import torch
    >>> from denoscope.models.run.context import When
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> d = Direction("unet/mid.attn.0.0/cross_attn.out", torch.ones(16))
    >>> sorted(freeze(model, d.steer(0.5, When(branch=None))).deltas)
    ['unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias']
    """
    given = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    if not given:
        raise UsageError("interventions is empty; give what Direction.steer or .ablate returns")
    deltas: dict[str, Delta] = {}
    for each in given:
        made = _frozen(model, each)
        twice = deltas.keys() & made.keys()
        if twice:
            raise UsageError(
                f"two interventions change {min(twice)}, and which acts first would matter; freeze one, "
                "apply it, and freeze the other on the edited model"
            )
        deltas |= made
    sites = [str(each.site) for each in given]
    return Edit.of(model, deltas, method="freeze", site=", ".join(sites))


def _frozen(model: Model, intervention: Intervention) -> dict[str, Delta]:
    if isinstance(intervention, DictionaryEdit):
        intervention.fn.dictionary.check(model)
        intervention = _as_steering(intervention)
    site, spec = intervention.site, intervention.spec
    if spec is None or spec.kind not in {"steer", "ablate"}:
        raise UsageError(
            f"{intervention!r} is no steering or ablation along a direction; freeze takes what "
            "Direction.steer or .ablate returns"
        )
    if "gate" in spec.parameters or "rows" in spec.parameters:
        raise UsageError(
            f"the intervention at {site} acts where a gate is open, or on some tokens alone; weights act on "
            "all of them: make it without gate, of a direction that has no rows"
        )
    if intervention.when != _ALWAYS:
        raise UsageError(
            f"the intervention at {site} acts on some steps, branches or samples alone "
            f"({intervention.when}); weights act on all of them: make it with when=When(branch=None)"
        )
    place, vector = model.place(site), spec.parameters["vector"].double()
    layer = place.module
    if (
        place.port != "out"
        or not isinstance(layer, (nn.Linear, nn.Conv2d))
        or len(vector) != len(layer.weight)
    ):
        raise UsageError(
            f"{site} is not the output of one linear layer or convolution ({type(layer).__name__}), so no "
            "weight does the same; sites like unet/**/cross_attn.out and text_encoder/**/mlp.out are"
        )
    weights = {n.rpartition(".")[2]: n for n in model.weights(site)}
    if spec.kind == "steer":
        if "bias" not in weights:
            raise UsageError(f"the layer at {site} has no bias that could hold the steering")
        return {weights["bias"]: spec.parameters["alpha"] * vector}
    return _projected(layer, vector / vector.norm(), weights)


def _as_steering(edit: DictionaryEdit) -> Intervention:
    """What adds so much of some features everywhere, as the steering that does the same."""
    change = edit.fn
    if change.how != "add" or change.dictionary.channels.kernel == "map":
        raise UsageError(
            f"the edit of features at {edit.site} depends on which are on, and no weight does that; freeze "
            "takes dictionary.edit(..., add=..., branch=None) and dictionary.direction(f).ablate(...)"
        )
    added = torch.tensor(change.by) @ change.dictionary.decoder[list(change.features)]
    return Direction(edit.site, added).steer(1.0, edit.when)


def _projected(layer: nn.Linear | nn.Conv2d, unit: Tensor, names: Mapping[str, str]) -> dict[str, Delta]:
    """What takes a unit vector out of a layer's output."""
    weight = layer.weight.detach().cpu().double()
    along = unit @ weight.flatten(1)
    rank_one = LowRank(-unit[:, None], along[None])
    change: Delta = rank_one if weight.ndim == 2 else rank_one.dense().view(weight.shape)
    found: dict[str, Delta] = {names["weight"]: change}
    if layer.bias is not None:
        found[names["bias"]] = -unit * (unit @ layer.bias.detach().cpu().double())
    return found
