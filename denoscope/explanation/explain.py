"""What does each word do? One picture, its words, and every map of them that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..analysis.information.each_word import word_information
from ..analysis.information.mutual import check_reads
from ..analysis.information.words import Word, chosen_words, content_words
from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import UsageError
from ..models.images import to_array
from ..models.progress import Progress, called, showing
from ..models.store.provenance import provenance
from .kinds import KINDS
from .looking import Looking
from .own_picture import own_picture
from .result import Explanation


@checked
def explain(
    model: Model,
    prompt: str,
    *,
    image: Tensor | str | Path | None = None,
    words: Sequence[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    levels: int = 16,
    draws: int = 1,
    batch: int = 32,
    progress: Progress | None = None,
) -> Explanation:
    """Say what each word of a prompt does to one picture, alone and in pairs, and where.

    For each word: how many nats it tells of the picture given all others, and where (conditional information,
    Kong et al. 2024); where it is read at each step (attention, DAAM); where the model sees what it names
    (concept maps); which places decide how far it moves the prediction (gradients). For each pair of words:
    redundancy, unique parts and synergy (DiffusionPID). All informations come from one bank of predictions:
    (1 + words + pairs) x levels x 2 x draws rows of the network, beside one run. Standard errors are of the
    noise that was drawn for this one picture; other pictures of the prompt differ by more.

    Args:
        model: a model that reads prompts by attention.
        prompt: what the picture is made from, or shows.
        image: a picture of your own, in place of a generated one: a file (scaled to the model's size), or a
            tensor [channel, height, width] in 0..1. Attention is then of noise levels, not of steps.
        words: words or phrases of the prompt; ``"cook:2"`` is the second cook. None is all but articles,
            prepositions and the like.
        seed: of the run, or of the noise on a given picture.
        steps: of the run; None is 20.
        guidance: of the run; None is the model's default. Informations are of the network without guidance.
        levels: noise levels of the informations.
        draws: noises at each level.
        batch: rows in one call of the network.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        LookupError: for words that are not in the prompt, near misses named, or unknown to a tokenizer; and
            for a model that reads no words.
        ValueError: for a model that reads no text, a prompt without words, a word that stands in several
            places without saying which, a picture that cannot be read or is of other proportions, and
            settings of a run beside a picture.
        FileNotFoundError: if there is no such file.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> found = explain(load(tiny_sd()), "a red cat", steps=2, levels=4)
    >>> found.data["word"].values.tolist(), found.data["pair"].values.tolist()
    (['red', 'cat'], ['red + cat'])
    """
    check_reads(model)
    model.reading_sites()
    those, unread = chosen(model, prompt, words)
    given = None if image is None else own_picture(model, image)
    if given is not None and len(given) != 1:
        raise UsageError(f"image holds {len(given)} pictures; give one: image[0]")
    run = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    look = Looking(model, prompt, those, seed, _grid(model))
    with showing(progress) as show:
        attention, made = look.attention(given, run, show)
        picture = made.images.detach().clamp(0, 1) if given is None else given
        shown = called(show, "what words tell")
        told = word_information(
            model, made, prompt, those, batch=batch, progress=shown, levels=levels, draws=draws, seed=seed
        )
        maps = {
            "information": told["map"].values[0],
            "attention": attention.mean("step").values,
            "concept": look.concepts(picture, show),
            "gradient": look.gradients(picture, show),
        }
    own = {} if given is not None else {"steps": len(made.steps), "guidance": _guidance(model, guidance)}
    about = {
        **provenance(model), **own, "prompt": prompt, "seed": seed, "levels": levels, "draws": draws,
        "own_picture": int(image is not None), "unread": list(unread), "rows": told.attrs["rows"],
    }  # fmt: skip
    return Explanation(_labelled(told, attention, maps, those, picture, about))


def chosen(model: Model, prompt: str, words: Sequence[str] | None) -> tuple[list[Word], list[str]]:
    """Return the words that are explained; and content words that no tokenizer knows, which are left out.

    Raises:
        LookupError: for words that are not in the prompt, or unknown to a tokenizer.
        ValueError: for a prompt without words.
    """
    with torch.no_grad():
        [encoded] = model.encode([prompt])
    if words is not None:
        found = chosen_words(prompt, words, least=1)
        for word in found:
            encoded.find(word.name)  # raises, and says what may have been meant
        return found, []
    every = content_words(prompt)
    unread = [name for name in every if not encoded.reads(name)]
    known = [name for name in every if name not in unread]
    if not known:
        raise UsageError(
            f"the prompt {prompt!r} has no words to explain but articles and the like, or words that the "
            "tokenizer does not know; name some: words=[...]"
        )
    return chosen_words(prompt, known, least=1), unread


def _guidance(model: Model, guidance: float | None) -> float:
    return model.default_guidance if guidance is None else guidance


def _grid(model: Model) -> tuple[int, int]:
    """Height and width of the information maps: cells of the latents, or their tokens."""
    if len(model.latent_shape) == 2:
        height, width = model.token_grid  # type: ignore[attr-defined]
        return (height, width)
    return model.picture_grid


def _labelled(  # noqa: PLR0917  # all that was found
    told: xr.Dataset,
    attention: xr.DataArray,
    maps: dict[str, Any],
    words: Sequence[Word],
    picture: Tensor,
    about: dict[str, Any],
) -> xr.Dataset:
    data: dict[str, Any] = {
        "picture": (("row", "column", "channel"), to_array(picture.float()).values[0]),
        "maps": (("kind", "word", "y", "x"), np.stack([maps[kind] for kind in KINDS]).astype(np.float64)),
        "attention": (("step", "word", "y", "x"), attention.values),
    }
    for name in ("nats", "stderr", "pair_nats", "pair_stderr", "pair_map"):
        if name in told:
            data[name] = (told[name].dims[1:], told[name].values[0])
    coords: dict[str, Any] = {
        name: told[name] for name in ("pair", "part", "first", "second") if name in told.coords
    }
    coords |= {"kind": list(KINDS), "word": [w.name for w in words]}
    coords |= {"begins": ("word", [w.first for w in words]), "ends": ("word", [w.last for w in words])}
    coords |= {"step": attention["step"].values, "sigma": ("step", attention["sigma"].values)}
    return xr.Dataset(data, coords, about)
