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
# # One change, three ways
#
# Find when and where a word comes in, change what it means by three methods, compare what they do and what
# else they move, and take them along: as a LoRA, and as a pipeline that plain diffusers opens.

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import torch

import denoscope
from denoscope.analysis import plots
from denoscope.models.judges import load_judge

torch.set_num_threads(1)
QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
SEEDS, STEPS = ([0, 1], 2) if QUICK else (list(range(6)), 10)
PROMPT, OTHER = "a noto emoji of a woman firefighter", "a noto emoji of a woman cook"
model, judge = denoscope.load("emoji"), load_judge("emoji")
metric = denoscope.analysis.metrics.judge_probability(judge, "concept", "firefighter")

# %% [markdown]
# ## When: until which step can the word still be put in, and from which is it safe?

# %%
when = denoscope.analysis.decided(
    model,
    PROMPT.replace(" firefighter", ""),
    PROMPT,
    concepts=["firefighter"],
    seeds=SEEDS,
    steps=STEPS,
    metric=metric,
)
when.plot()

# %% [markdown]
# ## Where: one call, several methods
# Restored states of the text encoder say where the word is carried before the denoiser reads it.

# %%
where = denoscope.analysis.locate(
    model,
    [PROMPT],
    "firefighter",
    method="text",
    seeds=SEEDS,
    steps=STEPS,
    metric=metric,
    corruption=denoscope.analysis.Noise(draws=1),
    kinds=["self_attn.out"],
)
site = where.top(1)[0]
print("most of it:", site)
where.plot("share of the effect")

# %% [markdown]
# ## Change it, three ways
# At the place that was found (Diff-QuickFix), in all layers of the denoiser that read the text (UCE), and by
# values that are looked for, written into an MLP of the text encoder (MEMIT).

# %%
asked = {"firefighter": "cook"}
edits = {
    "quickfix": denoscope.editing.quickfix(model, asked, site=site),
    "uce": denoscope.editing.uce(model, asked),
    "memit": denoscope.editing.memit(model, asked),
}
pd.DataFrame({name: {"numbers": e.size(), "weights": len(e.to_frame())} for name, e in edits.items()}).T

# %%
plain = denoscope.trace(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
after = {}
for name, edit in edits.items():
    with edit.applied(model):
        after[name] = denoscope.trace(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
pictures = torch.cat([plain.images, *(run.images for run in after.values())])
plots.picture_grid(pictures, [f"{name}, seed {seed}" for name in ("plain", *edits) for seed in SEEDS])

# %% [markdown]
# ## Compare: did it work, and what else moved?

# %%
tried = denoscope.analysis.evaluation_prompts(
    asked,
    efficacy=["a noto emoji of a woman {}"],
    generality=["a twemoji emoji of a man {}"],
    neighbourhood={"pilot": ["a noto emoji of a woman {}"], "red heart": ["an emoji of a {}"]},
)
found = {
    name: denoscope.analysis.evaluate_edit(model, edit.applied, tried, judge=judge, seeds=SEEDS, steps=STEPS)
    for name, edit in edits.items()
}
pd.concat(
    {
        name: e.summary().query("state == 'after' and measure == 'shown'").set_index("kind")["mean"]
        for name, e in found.items()
    },
    axis=1,
)

# %% [markdown]
# How well was it met? For each request of UCE, `met` is 1 where its outputs are exactly those asked for, and
# 0 where they are no nearer than before.

# %%
denoscope.editing.explain(edits["uce"], model).requests

# %% [markdown]
# ## Take it along
# As a LoRA in diffusers' format, and as a whole pipeline. Does plain diffusers paint with it what the edit
# paints here?

# %%
folder = Path(mkdtemp())
denoscope.editing.export.lora(model, edits["uce"], folder / "cook.safetensors")
denoscope.editing.export.pipeline(model, edits["quickfix"], folder / "cook")

# %%
from diffusers import DiffusionPipeline  # noqa: E402

pipe = DiffusionPipeline.from_pretrained(folder / "cook")
pipe.set_progress_bar_config(disable=True)
theirs = pipe(
    PROMPT,
    latents=model.noise(SEEDS[:1]),  # the noise that seed has here
    num_inference_steps=STEPS,
    guidance_scale=model.default_guidance,
    height=64,
    width=64,
    output_type="pt",
).images
print("largest difference of a pixel:", float((theirs - after["quickfix"].images[:1]).abs().max()))
plots.before_after(after["quickfix"].images[:1], theirs)
