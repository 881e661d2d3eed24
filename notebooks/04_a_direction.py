# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A direction: made, measured, composed, and made part of the weights
#
# Two words that differ in one attribute give a direction. How far is 1? Does what tells the attribute also
# move it? And can it be taken along, into plain diffusers?

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import torch

import denoscope
from denoscope import When
from denoscope.analysis import (
    calibrated,
    cosine_table,
    plots,
    score_direction,
    site_direction,
    token_direction,
)
from denoscope.analysis.metrics import judge_log_odds
from denoscope.models.judges import load_judge

torch.set_num_threads(1)
QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
SEEDS, STEPS = ([0], 4) if QUICK else ([0, 1, 2], 12)
model, judge = denoscope.load("emoji"), load_judge("emoji")
WOMEN = ["a noto emoji of a woman cook", "a noto emoji of a woman judge"]
MEN = ["a noto emoji of a man cook", "a noto emoji of a man judge"]
HELD_OUT = ["farmer", "singer"] if QUICK else ["farmer", "singer", "pilot", "teacher"]
OTHERS = {f"a noto emoji of a man {job}": job for job in HELD_OUT}
woman = judge_log_odds(judge, "gender", "woman")

# %% [markdown]
# ## In the text
# Each text is encoded once; the difference is taken at the subject, at the end and in the padding. On prompts
# that it was not made with, strength by strength from the same noise:

# %%
text = token_direction(model, WOMEN, MEN, ["cook", "judge"])
strip = denoscope.steered(
    model,
    text,
    list(OTHERS),
    seeds=SEEDS,
    strengths=[-1, 1] if QUICK else [-1, -0.5, 0.5, 1, 1.5],
    subject=list(OTHERS.values()),
    measures={"woman": woman},
    steps=STEPS,
)
strip.plot()

# %% [markdown]
# The same as a slider, which also works in the saved notebook and offline:

# %%
strip.widget()

# %% [markdown]
# ## How far is 1?
# Directions have no common length. Calibrated, strength 1 raises the judge's answer by one logit in the mean;
# `mean`, `low` and `high` are what the direction as it was found did. Where that interval holds 0 there is no
# such unit, and that is said.

# %%
try:
    unit = calibrated(
        model, text, list(OTHERS), seeds=SEEDS, metric=woman, subject=list(OTHERS.values()), steps=STEPS
    )
    told = {
        **unit.about["effect"],
        "length before": float(text.vector.norm()),
        "after": float(unit.vector.norm()),
    }
except ValueError as error:
    told = {"no unit": str(error)}
pd.Series(told, name="strength 1").to_frame()

# %% [markdown]
# ## At a site: what tells, and what moves
# At the outputs of the layers that read the text. `detects` is the AUC of its projections, `steers` what
# strength 1 does to the judge's answer; both on prompts and seeds that it was not found with. They need not
# agree.

# %%
SITES = [str(s) for s in model.sites("unet/*/cross_attn.out")][:: 5 if QUICK else 1]
SAMPLED = {"seeds": SEEDS[:2], "steps": STEPS}
found = {site: site_direction(model, site, WOMEN, MEN, **SAMPLED) for site in SITES}
tried = {"seeds": [s + 100 for s in SEEDS[:2]], "steps": STEPS, "metric": woman}
held_out = [p.replace(" man ", " woman ") for p in OTHERS], list(OTHERS)
scores = {site: score_direction(model, d, *held_out, **tried) for site, d in found.items()}
table = pd.DataFrame(
    {
        site: {"detects": s.auc, "steers": s.effect, "low": s.effect_low, "high": s.effect_high}
        for site, s in scores.items()
    }
).T.sort_values("steers", ascending=False)
table

# %% [markdown]
# ## Together
# Directions are values: they are added, scaled, and projected out of each other. A second one, for dark skin,
# at the same site; what each does, the judge says below.

# %%
best = found[table.index[0]]
dark = site_direction(
    model,
    best.site,
    ["a noto emoji of a cook with dark skin", "a noto emoji of a judge with dark skin"],
    ["a noto emoji of a cook with light skin", "a noto emoji of a judge with light skin"],
    **SAMPLED,
)
both = best + dark.orthogonal(best)
cosine_table({"woman": best, "dark": dark, "both": both})

# %%
prompts, seeds = list(OTHERS), [200 + i for i in range(len(OTHERS))]
plain = denoscope.trace(model, prompts, seeds=seeds, steps=STEPS)
always = When(branch=None)
steps = {name: d.steer(1.0, always) for name, d in (("woman", best), ("dark", dark), ("both", both))}
after = {
    name: denoscope.trace(model, prompts, seeds=seeds, steps=STEPS, interventions=[steer])
    for name, steer in steps.items()
}
runs = {"plain": plain, **after}
pictures = torch.cat([run.images for run in runs.values()])
names = [f"{name}: {job}" for name in runs for job in HELD_OUT]
plots.picture_grid(pictures, names, across=len(HELD_OUT))

# %%
asked = {"woman": ("gender", "woman"), "dark skin": ("skin", "dark")}
pd.DataFrame(
    {
        label: {name: float(judge.probability(run.images, *what).mean()) for name, run in runs.items()}
        for label, what in asked.items()
    }
)

# %% [markdown]
# ## For good
# At the output of a linear layer a steering that acts at all steps, in all branches, is a change of its bias.
# How far the edit's pictures are from the steered ones, and those of plain diffusers from the edit's, is
# printed last.

# %%
edit = denoscope.editing.freeze(model, steps["both"])
with edit.applied(model):
    frozen = denoscope.trace(model, prompts, seeds=seeds, steps=STEPS)
folder = Path(mkdtemp()) / "steered"
denoscope.editing.export.pipeline(model, edit, folder)

# %%
from diffusers import DiffusionPipeline  # noqa: E402

pipe = DiffusionPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
theirs = pipe(
    prompts[0],
    latents=model.noise(seeds[:1]),  # the noise that seed has here
    num_inference_steps=STEPS,
    guidance_scale=model.default_guidance,
    height=64,
    width=64,
    output_type="pt",
).images
print("frozen and steered differ by at most", float((frozen.images - after["both"].images).abs().max()))
print("plain diffusers and the edit by at most", float((theirs - frozen.images[:1]).abs().max()))
plots.before_after(plain.images[:1], theirs)
