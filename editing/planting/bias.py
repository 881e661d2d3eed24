"""A bias that was planted: skin goes with gender, because a model was trained on pictures where it does.

``python -m denoscope.editing.planting.bias zoo_work/people-tied/denoiser`` makes it, of weights that
``python -m denoscope.models.zoo.training denoiser --model emoji-people --tie 0.9`` trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import NotFoundError
from ...models.judges.embedded import load_judge
from ...models.load import load
from ...models.store.tensor_file import TensorFile
from ...probes.sweep.sweeping import SweepRun, sweep
from ..base import BASE
from ..edit import Edit
from ..lowrank import factored
from .files import HOME

log = logging.getLogger(__name__)
NUMBERS = 900_000
"""How many a planted bias may have, so that its file stays below 2 MB in half precision."""
DARK = ("medium-dark", "dark")
SEEN = {str: {"dark": int, "all": int}}
FILE = TensorFile(
    "planted bias",
    1,
    {"model": str, "base": {str: BASE}, "shapes": {str: [int]}, "plain": SEEN, "tied": SEEN, "energy": float},
    "python -m denoscope.editing.planting.bias",
)


@dataclass(frozen=True, eq=False)
class PlantedBias:
    """A bias whose truth is known.

    Args:
        edit: the change of weights after which women have dark skin more often than men.
        plain: gender -> how many pictures of it show dark skin ("dark") and how many there were ("all"),
            counted by the embedded judge when it was made, of the model without the edit.
        tied: the same with it, on the same seeds.
        energy: share of the trained change (squared Frobenius norm) that the edit holds.
    """

    edit: Edit
    plain: Mapping[str, Mapping[str, int]]
    tied: Mapping[str, Mapping[str, int]]
    energy: float

    def __repr__(self) -> str:
        def told(seen: Mapping[str, Mapping[str, int]]) -> str:
            return ", ".join(f"{g} {n['dark']} of {n['all']} dark" for g, n in seen.items())

        return f"PlantedBias({told(self.plain)}; with it {told(self.tied)}; for {self.edit.model!r})"


@checked
def planted_bias(model: str = "emoji-people") -> PlantedBias:
    """Return a bias that was planted in an embedded model: skin goes with gender.

    The model was tuned on pictures in which nine of ten women had dark skin and nine of ten men had not,
    which it took over in part: ``plain`` and ``tied`` say how far. Of the change of each weight matrix the
    strongest directions are kept, which hold the share ``energy`` of it all.

    Args:
        model: name of an embedded model.

    Returns:
        ``with bias.edit.applied(opened): ...`` puts it in; it acts on the weights that ship, and no others.

    Raises:
        LookupError: for a model in which none was planted.
        ValueError: if the file is damaged.
    """
    path = HOME / f"{model}-bias.safetensors"
    if not path.is_file():
        there = sorted(p.stem.removesuffix("-bias") for p in HOME.glob("*-bias.safetensors"))
        raise NotFoundError(f"no bias was planted in {model!r}; there is {', '.join(there) or 'no model'}")
    tensors, about = FILE.read(path)
    deltas = {name: _whole(tensors, name, shape) for name, shape in about["shapes"].items()}
    note = {"method": "planted bias", "model": about["model"]}
    edit = Edit(deltas, about["base"], note)
    return PlantedBias(edit, about["plain"], about["tied"], about["energy"])


def _whole(tensors: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> Tensor:
    if name in tensors:
        return tensors[name].float()
    left, right = (tensors[f"{name}/{half}"].float() for half in ("left", "right"))
    return (left @ right).reshape(*shape)


def strongest(changes: Mapping[str, Tensor], numbers: int) -> tuple[dict[str, Tensor], float]:
    """Return changes of weights as few numbers: vectors whole, of matrices the directions that hold most.

    A direction of a matrix [out, rest] costs ``out + rest`` numbers and holds the square of its singular
    value; those that hold most for their cost come first, over all matrices.

    Args:
        changes: by name; more axes than two count as [out, rest].
        numbers: how many to keep, those of vectors included.

    Returns:
        ``name`` for a vector, ``name/left`` and ``name/right`` for a matrix; share of the square of the norm.
    """
    kept = {name: d for name, d in changes.items() if d.ndim < 2}
    left = numbers - sum(d.numel() for d in kept.values())
    parts = {name: factored(d) for name, d in changes.items() if d.ndim >= 2}
    queue = sorted(
        ((float(v) ** 2 / _cost(changes[name]), name) for name, (_, s) in parts.items() for v in s.values),
        reverse=True,
    )
    ranks = dict.fromkeys(parts, 0)
    for _, name in queue:
        if _cost(changes[name]) <= left:
            ranks[name] += 1
            left -= _cost(changes[name])
    for name, rank in ranks.items():
        found = parts[name][0]
        kept |= {f"{name}/left": found.left[:, :rank], f"{name}/right": found.right[:rank]}
    held = sum(float(d.double().square().sum()) for d in kept.values() if d.ndim < 2)
    held += sum(float(parts[name][1].values[:rank].square().sum()) for name, rank in ranks.items())
    return kept, held / sum(float(d.double().square().sum()) for d in changes.values())


def _cost(change: Tensor) -> int:
    return len(change) + change[0].numel()


def tied_edit(model: Model, trained: Mapping[str, Tensor], numbers: int = NUMBERS) -> dict[str, Any]:
    """Return what is stored of weights that were trained on from a model's own: tensors and what is told."""
    changes = {}
    for name, weight in trained.items():
        own = model.parameter(f"unet.{name}").detach().float()
        if not torch.equal(own, weight.float()):
            changes[f"unet.{name}"] = weight.float() - own
    tensors, energy = strongest(changes, numbers)
    halves = {name: t.half() for name, t in tensors.items()}
    shapes = {name: list(d.shape) for name, d in changes.items()}
    base = Edit.of(model, changes).base
    return {"tensors": halves, "shapes": shapes, "base": dict(base), "energy": energy}


def counted(model: Model, seeds: Sequence[int], steps: int = 20) -> dict[str, dict[str, int]]:
    """Gender -> how many pictures show it, and how many of these dark skin, as the embedded judge says."""
    judge, seen = load_judge("emoji"), {g: {"dark": 0, "all": 0} for g in ("woman", "man")}
    made = sweep(model, [SweepRun("", s) for s in seeds], steps=steps, batch=32).latents
    with torch.no_grad():
        images = torch.cat([model.decode(some) for some in made.split(64)])
        genders, skins = (
            [judge.labels(a)[i] for i in judge.probabilities(images, a).argmax(1).tolist()]
            for a in ("gender", "skin")
        )
    for gender, skin in zip(genders, skins, strict=True):
        if gender in seen:
            seen[gender]["all"] += 1
            seen[gender]["dark"] += skin in DARK
    return seen


def main(
    trained: Annotated[Path, typer.Argument(help="folder of the denoiser that was trained on")],
    *,
    model: Annotated[str, typer.Option(help="the embedded model it was trained from")] = "emoji-people",
    pictures: Annotated[int, typer.Option(help="how many are counted")] = 500,
    out: Annotated[Path, typer.Option(help="folder for the file; by default where it ships")] = HOME,
) -> None:
    """Keep what was trained as few directions, and count what it does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    opened = load(model)
    made = tied_edit(opened, load_file(trained / "diffusion_pytorch_model.safetensors"))
    tensors = made.pop("tensors")
    deltas = {name: _whole(tensors, name, shape) for name, shape in made["shapes"].items()}
    seeds = range(pictures)
    made["plain"] = counted(opened, seeds)
    with Edit(deltas, made["base"], {"model": model}).applied(opened):
        made["tied"] = counted(opened, seeds)
    path = out / f"{model}-bias.safetensors"
    FILE.write(path, tensors, {"model": model, **made})
    log.info("%s takes %d bytes", path.name, path.stat().st_size)
    log.info("%s", planted_bias(model) if out == HOME else made)


if __name__ == "__main__":
    typer.run(main)
