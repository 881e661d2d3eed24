"""What guidance does on ``emoji``: ``python benchmarks/guidance.py``.

Each way of guiding on the same prompts and seeds: rows, how far the result is from plain classifier-free
guidance, and what the judge says of job and skin; and how far AND is from the joint prompt. Writes the tables
of docs/guidance.md. Some three minutes of one core. ``measure`` is the cost of a step, for run.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from measure import Row, race
from pages import bounds, table, write
from torch import Tensor

import denoscope
from denoscope.analysis.intervals import interval, proportion
from denoscope.analysis.metrics import clip_score
from denoscope.guidance import (
    CFG,
    PAG,
    Adaptive,
    Compose,
    EmbeddingMatch,
    Estimate,
    Guidance,
    JudgeGradient,
    RegionPreserve,
    cosine,
    linear,
)
from denoscope.models.judges import load_judge
from denoscope.probes import composition_gap, fit_linear_ag

PAGE = "docs/guidance.md"
JOBS = ("singer", "teacher", "artist", "detective", "guard", "student", "pilot", "cook")
SEEDS, STEPS = range(3), 12
GAPS = {
    "a noto emoji of a singer with dark skin": ("a noto emoji of a singer", "a noto emoji with dark skin"),
    "a flat emoji of a red heart": ("a red heart", "a flat emoji"),
}


def prompts(more: str = "") -> list[str]:
    """A prompt for each job and seed."""
    return [f"a noto emoji of a {job}{more}" for job in JOBS for _ in SEEDS]


def painted(model: denoscope.Model, guidance: float | Guidance, more: str = "") -> denoscope.Trace:
    """The pictures of all jobs and seeds."""
    return denoscope.trace(
        model, prompts(more), seeds=list(SEEDS) * len(JOBS), steps=STEPS, guidance=guidance
    )


def region(model: denoscope.Model, reference: Tensor) -> RegionPreserve:
    """The upper half of the latents stays as in a reference."""
    mask = torch.zeros(model.latent_shape)
    mask[:, : mask.shape[1] // 2] = 1
    return RegionPreserve(mask, reference)


def ways(model: denoscope.Model) -> dict[str, tuple[float | Guidance, str]]:
    """Each way with its guidance, and what is added to the prompts."""
    judge, base = load_judge("emoji"), CFG(4.0)
    dark = denoscope.trace(model, ["a noto emoji of a judge with dark skin"], seeds=[90], steps=STEPS)
    seeds = [100 + i for i in range(len(JOBS))]
    texts = [f"a noto emoji of a {job}" for job in JOBS]
    fit = fit_linear_ag(model, texts, seeds=seeds, computed=range(0, STEPS, 2), guidance=base, steps=STEPS)

    def log_dark(seen: Estimate) -> Tensor:
        return judge.probability(seen.images, "skin", "dark").log()

    return {
        "CFG 4": (base, ""),
        "no guidance": (1.0, ""),
        "CFG 4, first half of the steps": (CFG(4.0, steps=range(STEPS // 2)), ""),
        "CFG 4, every other step": (CFG(4.0, steps=range(0, STEPS, 2)), ""),
        "CFG 4, linear": (CFG(4.0, steps=linear(STEPS)), ""),
        "CFG 4, cosine": (CFG(4.0, steps=cosine(STEPS)), ""),
        "Adaptive": (Adaptive(base), ""),
        "Adaptive, the literal rule": (Adaptive(base, on="eps", arm="immediate"), ""),
        "LinearAG, every other step computed": (fit, ""),
        "CFG 4 + PAG 2, middle block": (base + PAG(2.0), ""),
        "CFG 4 + PAG 2, up.1": (base + PAG(2.0, "up.1*"), ""),
        "PAG 2, up.1, alone": (PAG(2.0, "up.1*"), ""),
        "CFG 4 AND dark skin 2": (base + Compose({"a noto emoji with dark skin": 2.0}), ""),
        "CFG 4 AND dark skin 4": (base + Compose({"a noto emoji with dark skin": 4.0}), ""),
        "CFG 4, ... with dark skin": (base, " with dark skin"),
        "CFG 4 NOT yellow skin 2": (base + Compose({"a noto emoji with yellow skin": -2.0}), ""),
        "CFG 4 + judge of dark skin": (base + JudgeGradient(log_dark, 0.2, normalised=True), ""),
        "CFG 4 + judge of the text": (
            base + JudgeGradient(clip_score(judge, "a noto emoji with dark skin"), 0.2, normalised=True), ""
        ),
        "CFG 4 + embedding of a dark judge": (
            base + EmbeddingMatch(judge, dark.images, 0.2, normalised=True), ""
        ),
        "CFG 4 + upper half of a dark judge": (base + region(model, dark.latents), ""),
    }  # fmt: skip


def told(values: Tensor, most: float = math.inf) -> str:
    """Mean over jobs and seeds, with its interval, cut at 0 and at the most that there can be.

    Of yes and no it is the interval of a share.
    """
    crossed = xr.DataArray(values.view(len(JOBS), -1).double().numpy(), dims=("prompt", "seed"))
    made = proportion if values.dtype == torch.bool else interval
    found = made(crossed, ["prompt", "seed"]).clip(0, most)
    return bounds({k: float(found[k]) for k in ("mean", "low", "high")})


@torch.no_grad()
def line(name: str, run: denoscope.Trace, plain: denoscope.Trace) -> Sequence[str]:
    """What one way did."""
    judge = load_judge("emoji")
    jobs = judge.probabilities(run.images, "concept")
    wanted = [judge.labels("concept").index(job) for job in JOBS for _ in SEEDS]
    right = jobs.argmax(1) == torch.tensor(wanted)
    skin = [judge.probability(run.images, "skin", label) for label in ("dark", "yellow")]
    log = run.guidance
    rows = sum(log.rows) / len(run.latents) if log else 0
    apart = (run.latents - plain.latents).square().flatten(1).mean(1).sqrt()
    return (name, f"{rows:.1f}", told(apart), told(right), *(told(x, 1.0) for x in skin))


def guided(model: denoscope.Model) -> str:
    """The table of all ways."""
    plain = painted(model, CFG(4.0))
    rows = [line(name, painted(model, g, more), plain) for name, (g, more) in ways(model).items()]
    return table(("guidance", "rows a picture", "change", "job right", "dark", "yellow"), rows)


def gaps(model: denoscope.Model) -> str:
    """How far AND is from the joint prompt, at the beginning, in the middle and at the end."""
    rows = []
    for joint, texts in GAPS.items():
        found = composition_gap(model, texts, joint, seeds=SEEDS, steps=STEPS, guidance=4.0)
        at = [found.gap[i].mean() for i in (0, STEPS // 2, STEPS - 1)]
        rows.append((" AND ".join(texts), joint, *(f"{float(g):.2f}" for g in at)))
    return table(("texts", "joint", "first step", "middle", "last"), rows)


def terms(model: denoscope.Model) -> Mapping[str, Guidance]:
    """Each term beside the guidance whose cost it is compared with."""
    latents = model.noise([0])
    with torch.no_grad():
        images = model.decode(latents)

    def light(seen: Estimate) -> Tensor:
        return seen.images.mean((1, 2, 3))

    return {
        "PAG": PAG(2.0, "up.1*"),
        "Compose, one text": Compose({"a red thing": 2.0}),
        "JudgeGradient of the mean brightness": JudgeGradient(light, 0.1),
        "EmbeddingMatch": EmbeddingMatch(load_judge("emoji"), images, 0.1),
        "RegionPreserve": region(model, latents),
    }


def measure(rounds: int, steps: int = 4) -> list[Row]:
    """Time of guided steps over that of classifier-free guidance, and the rows of each."""
    model, some = denoscope.load("emoji"), prompts()[:4]

    def run(guidance: Guidance) -> denoscope.Trace:
        return denoscope.trace(model, some, seeds=range(4), steps=steps, guidance=guidance)

    rows = []
    for name, term in terms(model).items():
        guidance = CFG(4.0) + term
        log = run(guidance).guidance
        pair = race(lambda g=guidance: run(g), lambda: run(CFG(4.0)), rounds)  # type: ignore[misc]
        ours, theirs = (1000 * s / steps for s in pair.seconds)
        made = sum(log.rows) / (8 * steps) if log else 0
        note = f"{ours:.0f} ms against {theirs:.0f} ms for 4 pictures; {made:.2f} x the rows"
        rows.append(Row(f"a guided step: CFG + {name}", "CFG", pair.ratio, note=note))
    return rows


def main() -> None:
    """Measure, and write the page."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    write(PAGE, "guided", guided(model))
    write(PAGE, "gaps", gaps(model))


if __name__ == "__main__":
    main()
