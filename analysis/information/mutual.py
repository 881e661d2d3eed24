"""How much a text tells of a picture: information from the errors of a denoiser.

Kong et al. (ICLR 2024, arXiv:2310.07972, "Interpretable Diffusion via Information Decomposition"), on the
identity of Kong, Brekelmans & Ver Steeg (ICLR 2023, arXiv:2302.03792) between densities and the errors of
the best denoiser. With ``z = a x + s eps``, over the log-SNR:

    standard    i(x; y)  = 1/2 ∫ E |eps - eps_hat(z)|² - |eps - eps_hat(z | y)|²
    orthogonal  i°(x; y) = 1/2 ∫ E |eps_hat(z) - eps_hat(z | y)|²

and given c, both predictions read c as well. Their means over pictures of the prompt are equal for the best
denoiser alone. On one picture, and on a real network, they say different things; see ``mutual_information``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...probes.denoising_errors import ErrorBank, error_bank
from ...probes.denoising_errors.result import Estimator, Weight
from ...probes.denoising_errors.strata import StrataOptions
from ...probes.trace import Trace
from .information import Information

Texts = str | Prompt | Sequence[str | Prompt]
PAIR = ("prompt", "given")


@checked
def mutual_information(  # noqa: PLR0913  # one measurement, all its settings by name
    model: Model,
    images: Tensor | Trace,
    prompts: str | Prompt | Sequence[str | Prompt],
    *,
    given: str | Prompt | Sequence[str | Prompt] | None = None,
    estimator: Estimator = "standard",
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
    **strata: Unpack[StrataOptions],
) -> Information:
    """Say how many nats a prompt tells of a picture, in all and in each cell of the latents.

    With ``given``, a text that says less than the prompt, it is what the rest of the prompt tells beyond it:
    ``mutual_information(model, x, "a red cat", given="a cat")`` is the conditional information of "red".
    Costs 2 conditions x levels x 2 x draws rows a picture.

    The ``standard`` estimate asks which text foretells the noise better: it is a log-ratio of densities,
    right on each picture if the denoiser is the best one, and below 0 where the text misleads. The
    ``orthogonal`` estimate asks how far the text moves the prediction: never below 0, smoother, and no
    smaller for a text that is wrong; it is an information in the mean over pictures of the text alone. For
    networks both are those of the network's own distribution, on a stretch of noise levels: no information of
    the data. Differences of prompts can be compared, nats of two models or two ranges cannot.

    Args:
        model: an opened model that reads prompts, with guidance 1 as it was trained.
        images: pictures [image, channel, height, width] in 0..1, or a run, whose final latents are taken.
        prompts: one for all pictures, or one for each.
        given: what is known already: one for all, or one for each; None is no text.
        estimator: ``"standard"`` or ``"orthogonal"``.
        batch: rows in one call of the network.
        store: a folder that keeps what was computed: a call that was stopped goes on, and the other
            estimator costs nothing.
        progress: called with (done, total, what); without it a bar comes by itself.
        **strata: noise levels and draws, as in ``Strata``: log_snr, levels, draws, seed, stderr, relative,
            most_draws.

    Raises:
        ValueError: for pictures that the model cannot take, a model that reads no text, levels that it was
            not trained on, another estimator, and numbers of prompts that do not fit.

    >>> from denoscope.models.synthetic.analytic import Analytic, two_by_two
    >>> model = Analytic(two_by_two())
    >>> points = model.denoiser.draw(1, seed=0, condition={"shape": "circle"})
    >>> found = mutual_information(model, points, "circle", log_snr=(-9.5, 9), levels=24, draws=8)
    >>> found.nats.dims, found.map.dims
    (('image',), ('image', 'y', 'x'))
    """
    check_reads(model)
    bank = error_bank(
        model,
        images,
        {"prompt": prompts, "given": "" if given is None else given},
        pairs=[PAIR],
        estimator=estimator,
        batch=batch,
        store=store,
        progress=progress,
        **strata,
    )
    n = len(bank.gram)
    return Information(_labelled(bank, estimator, _texts(prompts, n), _texts(given or "", n)))


def check_reads(model: Model) -> None:
    """Raise ValueError for a model that reads no text."""
    if not model.conditional:
        raise UsageError(f"{model.name} reads no text, so none tells it anything; give a model that does")


def _labelled(
    bank: ErrorBank, estimator: Estimator, prompts: Sequence[str], given: Sequence[str]
) -> xr.Dataset:
    density = bank.densities(*PAIR, estimator)
    nats, stderr = bank.integral(density)
    maps = {name: bank.map(*PAIR, estimator, weight) for name, weight in MAPS.items()}
    data = {
        "nats": ("image", nats.numpy()),
        "stderr": ("image", stderr.numpy()),
        "density": (("image", "level"), torch.stack([d.mean(0) for d in density]).numpy()),
        **{name: (("image", "y", "x"), values.numpy()) for name, values in maps.items()},
        "prompt": ("image", list(prompts)),
        "given": ("image", list(given)),
    }
    return xr.Dataset(data, {"image": range(len(nats)), **coordinates(bank)}, about(bank, estimator))


MAPS: Mapping[str, Weight] = {"map": "nats", "v_map": "v"}


def coordinates(bank: ErrorBank) -> dict[str, tuple[str, Sequence[float]]]:
    """The levels of a bank, and how often each picture was drawn."""
    return {"log_snr": ("level", list(bank.log_snr)), "draws": ("image", [len(g) for g in bank.gram]),
            "reached": ("image", list(bank.reached))}  # fmt: skip


def about(bank: ErrorBank, estimator: Estimator) -> dict[str, object]:
    """Where the numbers came from."""
    return {**bank.about, "estimator": estimator, "rows": bank.rows}


def _texts(prompts: Texts, n: int) -> list[str]:
    given = [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
    names = [p if isinstance(p, str) else p.text for p in given]
    return names * n if len(names) == 1 else names
