"""How well maps find things whose place is known: ``python benchmarks/word_places.py``.

The composed scenes of the evaluation data, encoded, noised to two levels and looked at by each embedded model
that reads text. Every way to make maps in ``METHODS`` has a row in the tables of docs/attention.md; another
one is one more function. Results are kept in --output under a hash of the weights, in blocks of scenes: a run
that was stopped goes on; finished rows are kept in benchmarks/found. Some 25 minutes of one core a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from pages import bounds, output, table, write
from safetensors.torch import load_file, save_file
from shelf import shelved_json
from torch import Tensor

import denoscope
from denoscope.analysis import (
    Placed,
    SanityChecks,
    attribute,
    concept_maps,
    mutual_information,
    sanity_checks,
    score_maps,
    word_maps,
)
from denoscope.analysis.attribution.evaluating.placed import MapsOf
from denoscope.analysis.information.each_word import word_information
from denoscope.analysis.information.words import chosen_words, without
from denoscope.models import zoo
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes.denoising_errors.strata import StrataOptions

PAGE = "docs/attention.md"
MODELS = ("emoji", "emoji-dit", "emoji-mmdit")
LEVELS = (-1.0, 1.0)
"""Log-SNR: somewhat more noise than picture, and the other way round."""
SCENES: int | None = None
"""The first so many; None: all."""
BLOCK = 20
CHECKED = 40
"""So many scenes are asked for their sanity."""
REST = "background"
"""What competes with the words of a scene in a softmax; a scene may have one word alone."""


def levels(model: denoscope.Model) -> list[denoscope.Step]:
    """The noise levels at which scenes are looked at."""
    return [model.step_at(log_snr=a) for a in LEVELS]


def seen(model: denoscope.Model, scene: Placed, n: int) -> dict[str, object]:
    """What maps of one scene are given: its picture, a seed of its own."""
    return {"seeds": [n], "images": scene.picture[None], "levels": levels(model)}


def words(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """Where the words of the caption are read."""
    found = word_maps(model, [scene.caption], scene.words, **seen(model, scene, n))
    return torch.from_numpy(found.maps.values[0])


def concepts(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """Where the words are as concepts, read by themselves, in the published score; the caption is read."""
    return _concepts(model, scene, n, scene.caption, None)


def concepts_blind(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """The same, where the prompt says nothing."""
    return _concepts(model, scene, n, "", None)


def concepts_rivals(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """Where the words win against one another and the rest."""
    return _concepts(model, scene, n, scene.caption, "softmax")


def _concepts(model: denoscope.Model, scene: Placed, n: int, prompt: str, score: str | None) -> Tensor:
    given = [*scene.words, REST]
    found = concept_maps(model, [prompt], given, score=score, **seen(model, scene, n))
    return torch.from_numpy(found.maps.sel(concept=list(scene.words)).values[0])


def gradients(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """How steeply what a word changes in the prediction depends on each place of the noised latents."""
    prompt = model.encode([scene.caption])[0]
    maps = []
    for word in scene.words:
        each = [
            attribute(
                model, [scene.caption], of="shift", to="latents", method="gradient", seeds=[n],
                against=prompt.without(word), images=scene.picture[None], at=level,
            ).values.values[0, 0]
            for level in levels(model)
        ]  # fmt: skip
        maps.append(torch.from_numpy(sum(each)))
    return torch.stack(maps)


def information(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """What each word tells given all others, weighed as errors of v, at noisy levels: as a page shows it."""
    return _information(model, scene, n, log_snr=(-5.0, -2.0), levels=4, draws=4)


def information_cheap(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """The same from four rows for each text: two noises and their opposites, at one noisy level."""
    return _information(model, scene, n, log_snr=(-4.9, -4.7), levels=1, draws=2)


def unique_information(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """What each word of two tells that the other does not; of one, all that it tells."""
    return _information(model, scene, n, parts=True, log_snr=(-5.0, -2.0), levels=4, draws=4)


def _information(
    model: denoscope.Model, scene: Placed, n: int, *, parts: bool = False, **how: Unpack[StrataOptions]
) -> Tensor:
    own = chosen_words(scene.caption, scene.words, least=1)
    found = word_information(model, scene.picture[None], scene.caption, own, seed=n, **how)
    if parts and len(own) == 2:
        return torch.from_numpy(found["pair_map"].sel(part=["unique 1", "unique 2"]).values[0, 0])
    return torch.from_numpy(found["map"].values[0])


def information_published(model: denoscope.Model, scene: Placed, n: int) -> Tensor:
    """How far each word moves the prediction, given all others, at all levels, in nats (Kong et al.)."""
    own = chosen_words(scene.caption, scene.words, least=1)
    rest = [without(scene.caption, [word]) for word in own]
    pictures = scene.picture.expand(len(own), -1, -1, -1)
    found = mutual_information(
        model, pictures, scene.caption, given=rest, estimator="orthogonal", levels=16, draws=1, seed=n
    )
    return torch.from_numpy(found.map.values)


def centre(_: denoscope.Model, scene: Placed, __: int) -> Tensor:
    """Things stand in the middle."""
    side = torch.linspace(-1, 1, 16)
    heat = torch.exp(-2 * (side[:, None] ** 2 + side**2))
    return heat.expand(len(scene.words), -1, -1)


def even(_: denoscope.Model, scene: Placed, __: int) -> Tensor:
    """The same everywhere: chance."""
    return torch.ones(len(scene.words), 4, 4)


One = Callable[[denoscope.Model, Placed, int], Tensor]
"""Maps of one scene, [word, y, x]; the number of the scene is its seed."""
METHODS: dict[str, One] = {
    "word maps": words,
    "concept maps": concepts,
    "concept maps, no caption": concepts_blind,
    "concept maps, softmax": concepts_rivals,
    "gradients": gradients,
    "information": information,
    "information, one level": information_cheap,
    "information, only its own": unique_information,
    "information, orthogonal": information_published,
    "picture centre": centre,
    "even": even,
}
NO_CHECK = ("picture centre", "even")  # they look at nothing


def kept(folder: Path, name: str, method: str, scenes: Sequence[Placed]) -> list[Tensor]:
    """The maps of some scenes, made block by block, or read where they are."""
    model, made = denoscope.load(name), list[Tensor]()
    for first in range(0, len(scenes), BLOCK):
        some = list(enumerate(scenes))[first : first + BLOCK]
        path = folder / f"{name}-{_file(method)}-{first}-{len(some)}.safetensors"
        if not path.exists():
            maps = {str(i): METHODS[method](model, scene, i).float().contiguous() for i, scene in some}
            part = path.with_suffix(".part")
            save_file(maps, part)
            part.rename(path)
        read = load_file(path)
        made += [read[str(i)] for i, _ in some]
    return made


Cells = Callable[[Path, str, str, Sequence[Placed]], list[str]]
"""The numbers of a row, of a model's way to make maps."""


def places(folder: Path, name: str, method: str, scenes: Sequence[Placed]) -> list[str]:
    """How well it finds what is there."""
    found = score_maps({method: kept(folder, name, method, scenes)}, scenes)
    frame = found.to_frame().set_index("measure")
    return [bounds(frame.loc[measure]) for measure in ("hit", "iou", "precision")]


def checks(folder: Path, name: str, method: str, scenes: Sequence[Placed]) -> list[str]:
    """How alike maps stay when weights and words are others."""
    path = folder / f"{name}-{_file(method)}-checks-{len(scenes)}.zarr"
    if not path.exists():
        sanity_checks(denoscope.load(name), scenes, {method: stacked(METHODS[method])}).save(path)
    frame = SanityChecks.load(path).to_frame().set_index("check")
    return [bounds(frame.loc[check]) for check in ("weights", "words")]


def rows(folder: Path, cells: Cells, scenes: Sequence[Placed], left_out: Sequence[str] = ()) -> list[Any]:
    """A row for each model and way, those from benchmarks/found that are there."""
    found = []
    for name in MODELS:
        of = {"weights": fingerprint(denoscope.load(name)), "scenes": len(scenes), "levels": LEVELS}
        for method in (m for m in METHODS if m not in left_out):
            make = partial(cells, folder, name, method, scenes)
            told = shelved_json("word_places", of, f"{cells.__name__}-{_file(method)}", make)
            found.append((f"`{name}`", method, *told))
    return found


def _file(method: str) -> str:
    return method.replace(" ", "_").replace(",", "")


def stacked(one: One) -> MapsOf:
    """A way to make maps of one scene as one of several."""

    def maps_of(model: denoscope.Model, scenes: Sequence[Placed]) -> list[Tensor]:
        return [one(model, scene, i) for i, scene in enumerate(scenes)]

    return maps_of


def known(model: denoscope.Model) -> Iterator[Placed]:
    """The scenes whose words a model's tokenizer knows."""
    for scene in map(Placed.of, zoo.data().scenes):
        prompt = model.encode([scene.caption])[0]
        if all(prompt.reads(word) for word in scene.words):
            yield scene


def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    prints = [fingerprint(denoscope.load(name)) for name in MODELS]
    folder = where / f"word-places-{'-'.join(p[:8] for p in prints)}"
    folder.mkdir(parents=True, exist_ok=True)
    scenes = list(known(denoscope.load(MODELS[0])))[:SCENES]
    head = ("model", "map", "highest place inside", "IoU", "average precision")
    write(PAGE, "places", table(head, rows(folder, places, scenes)))
    head = ("model", "map", "likeness, weights shuffled", "likeness, another word")
    write(PAGE, "sanity", table(head, rows(folder, checks, scenes[:CHECKED], NO_CHECK)))


if __name__ == "__main__":
    main()
