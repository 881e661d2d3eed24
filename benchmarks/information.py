"""What information costs, and what it finds on ``emoji``: ``python benchmarks/information.py``.

All pairs of an eight-word prompt from one bank, against a call for each pair with noise of its own; rows to
the same standard error of strata and antithetic pairs, against independent draws; whether a picture's own
caption is told from others; and pairs of words whose reading is known. Writes the tables of
docs/information.md. Predictions are kept in --output under a hash of the weights: a run that was stopped goes
on. Some ten minutes of one core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from localising import WORDS
from measure import Row
from pages import ROOT, output, table, write
from torch import Tensor

import denoscope
from denoscope.analysis import pid
from denoscope.models.run.prediction import scales
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes.denoising_errors import error_bank

PAGE = "docs/information.md"
EIGHT = "noto emoji of a woman firefighter dark skin"
N_PAIRS = math.comb(len(EIGHT.split()), 2)
ASKED, CALLED = 1 + len(EIGHT.split()) + N_PAIRS, 9 * N_PAIRS
"""Rows of one noise at one level for all pairs: of one bank, and where each information is a call."""
CAPTION = "a noto emoji of a {}"
LOW, HIGH, LEVELS = -5.0, 7.0, 16
CENTRE, SCALE, CLIP = 1.0, 2.0, 3.0
"""The published proposal of log-SNR: logistic, clipped to -5 to 7."""
PAIRS = (
    ("a noto emoji of a woman firefighter", ("woman", "firefighter")),
    ("a noto emoji of a woman cook, dark skin", ("dark", "skin")),
    ("a noto emoji of a red heart", ("red", "heart")),
    ("a noto emoji of a hot dog", ("hot", "dog")),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    draws: int
    samples: int
    pairs: int
    pictures: int
    captions: int


SIZES = Sizes(draws=24, samples=768, pairs=6, pictures=10, captions=20)


@cache
def model() -> denoscope.Model:
    """The embedded model."""
    return denoscope.load("emoji")


@cache
def painted(prompts: tuple[str, ...]) -> denoscope.Trace:
    """One picture of each prompt."""
    return denoscope.trace(model(), list(prompts), seeds=range(len(prompts)), steps=20)


def independent(clean: Tensor, texts: Sequence[str], n: int, seed: int, shared: bool = True) -> Tensor:
    """Values [n] of the standard estimate of the second text beyond the first: one level, one noise each.

    Levels are drawn from the published proposal, and count by what it makes of them.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    prompts = model().prompts(texts)
    for _ in range(n):
        level, weight = proposed(float(torch.rand((), generator=generator)))
        step = model().step_at(log_snr=level)
        eps = torch.randn(1, *clean.shape, generator=generator).expand(2, *clean.shape)
        if not shared:
            eps = torch.randn(2, *clean.shape, generator=generator)
        a, s = scales(model().scheduler, step, clean)
        x = a * clean + s * eps
        with torch.no_grad():
            out = model().to_eps(x, model().denoise(x, step, prompts), step)
        errors = (out - eps).double().square().flatten(1).sum(1)
        found.append(0.5 * weight * (errors[0] - errors[1]))
    return torch.stack(found)


def proposed(u: float) -> tuple[float, float]:
    """A log-SNR of a uniform number, and its importance weight."""
    low = 1 / (1 + math.exp(CLIP))
    p = low + (1 - 2 * low) * u
    return CENTRE + SCALE * math.log(p / (1 - p)), SCALE * math.tanh(CLIP / 2) / (p * (1 - p))


def kept(folder: Path, name: str, **how: Any) -> Tensor:
    """Independent values, from disk if they are there."""
    path = folder / f"{name}-logistic.npy"
    if not path.exists():
        np.save(path, independent(**how).numpy())
    return torch.from_numpy(np.load(path))


def all_pairs(folder: Path, sizes: Sizes) -> str:
    """Rows to the same standard error of the synergy: one bank, and a call for each information."""
    start = time.process_time()
    one = pid(model(), painted((EIGHT,)), EIGHT, log_snr=(LOW, HIGH))
    seconds = time.process_time() - start
    samples = CALLED / (one.data.attrs["rows"] / (2 * LEVELS))
    times = samples * called(folder, sizes)
    rows = [
        ("rows of one noise at one level", f"{ASKED}", f"{CALLED}", f"{samples:.1f}"),
        ("rows to one standard error of the synergy", "1", f"{times:.1f}", f"{times:.1f}"),
        ("seconds for 16 levels and an antithetic pair", f"{seconds:.1f}", f"{seconds * samples:.1f}", ""),
    ]
    return table((f"all {N_PAIRS} pairs of `{EIGHT}`", "one bank", "calls", "ratio"), rows)


def called(folder: Path, sizes: Sizes) -> float:
    """Variance of the synergy of a pair times noises, of calls for each information over one bank."""
    run, words = painted((EIGHT,)), EIGHT.split()
    many = pid(
        model(), run, EIGHT, words[4 : 4 + 2 + (sizes.pairs > 1) * 2], log_snr=(LOW, HIGH),
        draws=sizes.draws, store=folder / "bank",
    )  # fmt: skip
    ratios = []
    for pair in many.data["pair"].values[: sizes.pairs]:
        a, b = str(pair).split(" + ")
        one_told, two_told = (many.nats.sel(pair=pair, part=f"information {k}").item() for k in (1, 2))
        better = a if one_told > two_told else b  # the synergy is what both tell beyond the better one
        texts = (better, f"{a} {b}")
        how = {"clean": run.latents[0], "n": sizes.samples}
        each = [
            kept(folder, f"{t}-{sizes.samples}", **how, texts=["", t], seed=i) for i, t in enumerate(texts)
        ]
        ours = many.stderr.sel(pair=pair, part="synergy").item() ** 2 * sizes.draws * 2 * LEVELS
        ratios.append(sum(float(c.var()) for c in each) / ours)
    return _middle(ratios)


def _middle(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(float(np.log(ratios).mean()))


def sampled(folder: Path, sizes: Sizes) -> dict[str, tuple[float, float, float]]:
    """For some words nats of their caption, and rows to one standard error over ours of independent levels.

    First with noise that both texts share, then with noise of their own.
    """
    found = {}
    for word in WORDS[: max(1, sizes.pictures // 3)]:
        text = CAPTION.format(word)
        run = painted((text,))
        bank = error_bank(model(), run, {"none": "", "own": text}, pairs=[("own", "none")],
                          log_snr=(LOW, HIGH), draws=sizes.draws, store=folder / "bank")  # fmt: skip
        value, error = (float(v[0]) for v in bank.integral(bank.densities("own", "none")))
        ours = error**2 * bank.rows
        how = {"clean": run.latents[0], "texts": ["", text], "n": sizes.samples, "seed": 9}
        shared, apart = (
            2 * float(kept(folder, f"{name}-{word}-{sizes.samples}", **how, shared=name == "shared").var())
            for name in ("shared", "apart")
        )
        found[word] = value, shared / ours, apart / ours
    return found


def sampling(folder: Path, sizes: Sizes) -> str:
    """How many rows reach the same standard error of one caption's information."""
    rows = [
        (f"{word}, {nats:.0f} nats", *(f"{times:.1f} x" for times in others))
        for word, (nats, *others) in sampled(folder, sizes).items()
    ]
    return table(("caption", "independent levels, shared noise", "independent levels and noise"), rows)


def captions(folder: Path, sizes: Sizes) -> str:
    """How often a picture's own caption tells most, among those of the others."""
    words = WORDS[: sizes.captions]
    texts = [CAPTION.format(w) for w in words]
    conditions = {"": "", **dict(zip(words, texts, strict=True))}
    pairs = [(w, "") for w in words]
    bank = error_bank(model(), painted(tuple(texts)), conditions, pairs=pairs, levels=6,
                      store=folder / "bank")  # fmt: skip
    rows = []
    for estimator, weight in (("standard", "nats"), ("standard", "v"), ("orthogonal", "nats")):
        told = torch.stack([bank.integral(bank.densities(*p, estimator), weight)[0] for p in pairs], 1)
        ranks = 1 + (told > told.diagonal()[:, None]).sum(1)
        first = int((ranks == 1).sum())
        rows.append(
            (f"{estimator}, {weight}", f"{first} of {len(words)}", f"{float(ranks.double().mean()):.1f}")
        )
    return table(("estimate", "own caption first", f"mean rank of {len(words)}"), rows)


def known_pairs(folder: Path, sizes: Sizes) -> str:
    """Parts of pairs of words, means over pictures, given the rest of the prompt and alone."""
    rows = []
    for text, words in PAIRS:
        seeds = range(max(1, sizes.pictures // 2))
        run = denoscope.trace(model(), [text] * len(seeds), seeds=seeds, steps=20)
        for name, how in READINGS.items():
            found = pid(model(), run, text, list(words), store=folder / "bank", **how)
            mean = found.nats.mean("image").isel(pair=0)
            parts = ("information 1", "information 2", "total", "synergy")
            rows.append((" + ".join(words), name, *(f"{float(mean.sel(part=p)):.0f}" for p in parts)))
    return table(("words", "read", "I1", "I2", "I12", "S"), rows)


READINGS: Mapping[str, Mapping[str, Any]] = {
    "given the rest, standard": {"given_rest": True},
    "alone, orthogonal": {"estimator": "orthogonal"},
}


def kept_in(output: Path) -> Path:
    """Where predictions are kept."""
    folder = output / f"information-{fingerprint(model())[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure() -> list[Row]:
    """Rows to the same standard error as the straightforward ways, those of docs/information.md.

    Predictions are read where ``main`` kept them; without that some ten minutes.
    """
    folder = kept_in(ROOT / "build" / "findings")
    pairs = ASKED / CALLED / called(folder, SIZES)
    others = list(sampled(folder, SIZES).values())
    shared, apart = (1 / _middle([times[i] for times in others]) for i in (1, 2))
    what = "information of a caption, strata and antithetic pairs: rows to one standard error"
    note = f"geometric mean of {len(others)} pictures"
    return [
        Row(f"PID of all {N_PAIRS} pairs of 8 words: rows to one standard error",
            "a call for each information", pairs, 1 / 6,
            note=f"{ASKED} against {CALLED} rows a noise; variance of the synergy"),
        Row(what, "independent levels, shared noise", shared, note=note),
        Row(what, "independent levels and noise", apart, note=note),
    ]  # fmt: skip


def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    folder = kept_in(where)
    write(PAGE, "all-pairs", all_pairs(folder, SIZES))
    write(PAGE, "sampling", sampling(folder, SIZES))
    write(PAGE, "captions", captions(folder, SIZES))
    write(PAGE, "known-pairs", known_pairs(folder, SIZES))


if __name__ == "__main__":
    main()
