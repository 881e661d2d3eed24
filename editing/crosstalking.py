"""How much edits move what other edits wanted: at the layers that read the text, before any painting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from torch import Tensor

from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import UsageError
from ..models.progress import Progress, showing
from ..probes.text_layers import TextLayer, text_inputs, text_layers
from ..probes.text_states import TokenStates
from .edit import Edit
from .text_choice import chosen


@checked
def crosstalk(
    model: Model,
    edits: Mapping[str, Edit],
    texts: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Return how far each edit, alone and among all the others, moves what the denoiser reads of each text.

    Measured at the outputs of all layers that read the text (keys and values, or the first layers of the
    text), so edits of text encoders and of the denoiser compare. What an edit changes elsewhere in the
    denoiser cannot be seen there; ``unseen`` counts it.

    Args:
        model: the model that they were made on, without them.
        edits: by name.
        texts: a text for each edit, by the same names: what it is about. None takes the names themselves.
        progress: called with (done, total, what).

    Returns:
        ``moved`` [edit, text]: |out - before| / |before| with one edit alone; the diagonal is what is wanted.
        ``spoilt`` [text]: with all edits together, how far the outputs are from those with the text's own
        edit alone, as a share of what that one moved.
        ``unseen`` [edit]: how many weights it changes whose effect is not in these numbers.

    Raises:
        ValueError: for fewer than two edits, texts for others, edits that do not fit the model, and edits of
            which nothing can be seen.

    >>> from denoscope.editing import uce
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edits = {word: uce(model, {word: "dog"}) for word in ("cat", "mat")}
    >>> crosstalk(model, edits).moved.dims
    ('edit', 'text')
    """
    texts = dict(texts) if texts is not None else {name: name for name in edits}
    if len(edits) < 2 or set(texts) != set(edits):
        raise UsageError(
            f"there are edits {list(edits)} and texts for {list(texts)}; give at least two edits, and a text "
            "for each"
        )
    names, said = list(edits), [texts[name] for name in edits]
    layers, _ = chosen(model, text_layers(model), None, "kv")
    unseen = [len(_unseen(model, layers, name, edit)) for name, edit in edits.items()]
    before = _read(model, layers, said)
    moved = torch.empty(len(names), len(said), dtype=torch.float64)
    own: list[Tensor] = []
    with showing(progress) as show:
        for i, name in enumerate(names):
            with edits[name].applied(model):
                after = _read(model, layers, said)
            moved[i] = torch.tensor([_far(a, b) for a, b in zip(after, before, strict=True)])
            own.append(after[i])
            show(i + 1, len(names) + 1, "edits, each alone")
        with sum(list(edits.values())[1:], start=edits[names[0]]).applied(model):
            together = _read(model, layers, said)
        show(len(names) + 1, len(names) + 1, "edits, each alone")
    spoilt = [
        float((t - o).norm() / (o - b).norm().clamp_min(1e-30))
        for t, o, b in zip(together, own, before, strict=True)
    ]
    return xr.Dataset(
        {
            "moved": (("edit", "text"), moved.numpy()),
            "spoilt": ("text", spoilt),
            "unseen": ("edit", unseen),
        },
        {"edit": names, "text": said},
    )


def _unseen(model: Model, layers: Sequence[TextLayer], name: str, edit: Edit) -> list[str]:
    """Weights of the denoiser that an edit changes and that none of the layers shows."""
    part, seen = model.input_site.component, {layer.weight for layer in layers}
    found = [w for w in edit.deltas if w.startswith(f"{part}.") and w not in seen]
    if found and len(found) == len(edit.deltas):
        raise UsageError(
            f"edit {name!r} changes {found[0]}{' ...' if found[1:] else ''}, and nothing that reads the text "
            f"alone; crosstalk looks at the layers that do: {', '.join(sorted(seen)[:3])} ..."
        )
    return found


def _read(model: Model, layers: Sequence[TextLayer], texts: Sequence[str]) -> list[Tensor]:
    """All outputs of the layers for each text, as one vector a text."""
    parts: dict[str, list[Tensor]] = {text: [] for text in texts}
    inputs: dict[str, dict[str, list[TokenStates]]] = {}
    for layer in layers:
        if layer.space not in inputs:
            inputs[layer.space] = text_inputs(model, layer, texts)
        for text, states in inputs[layer.space].items():
            weight = layer.module.weight.detach().cpu().double()[:, : layer.columns]
            parts[text] += [(state.values.double() @ weight.T).flatten() for state in states]
    return [torch.cat(parts[text]) for text in texts]


def _far(after: Tensor, before: Tensor) -> float:
    return float((after - before).norm() / before.norm())
