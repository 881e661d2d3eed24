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
# # A first look inside a diffusion model
#
# What `denoscope demo` does, by hand and in small steps: make a picture, look where its words are read, find
# the state that carries one of them, change that state's weights, and check what else moved. Runs on a CPU.
#
# Open as a notebook: `pip install 'denoscope[notebooks]'`, `jupyter lab`, and there "Open With, Notebook".

# %%
import os

import torch

import denoscope
from denoscope.analysis import plots
from denoscope.models.judges import load_judge

torch.set_num_threads(1)  # the embedded model is small: one thread is the quickest way
SEEDS = [0, 1] if os.environ.get("DENOSCOPE_QUICK") else [0, 1, 2, 3]
STEPS = 4 if os.environ.get("DENOSCOPE_QUICK") else 10
PROMPT = "a noto emoji of a woman firefighter"

# %% [markdown]
# ## Open a model
# `"emoji"` ships with the package. A folder, a hub id or a diffusers pipeline works as well.

# %%
model = denoscope.load("emoji")
model

# %% [markdown]
# Every place in it has an address. Here are the outputs of the text encoder's self-attention layers:

# %%
model.sites("text_encoder/*/self_attn.out").to_frame()

# %% [markdown]
# ## Look: pictures, and where each word is read
# The run is an ordinary one: below it stands how far recording moved its pictures.

# %%
found = denoscope.analysis.word_maps(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
plain = denoscope.trace(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
print("recording moved a pixel by at most", float((found.images - plain.images).abs().max()))
found.plot()

# %% [markdown]
# ## Find the cause: causal mediation
# Take the word out with noise on its embedding, put one state of the text encoder back as it was, and see how
# much of the picture's CLIP score comes back.

# %%
judge = load_judge("emoji")
cause = denoscope.analysis.trace_text(
    model,
    [PROMPT],
    "firefighter",
    seeds=SEEDS,
    steps=STEPS,
    metric=denoscope.analysis.metrics.clip_score(judge),
    corruption=denoscope.analysis.Noise(draws=1),
    kinds=["self_attn.out"],
)
cause.to_frame().head()

# %%
cause.plot()

# %% [markdown]
# ## Change it: one closed-form edit at the strongest place

# %%
site = cause.normalised.top(1)[0]
edit = denoscope.editing.quickfix(model, {"firefighter": "cook"}, site=site)
edit

# %%
with edit.applied(model):
    after = denoscope.trace(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
plots.before_after(plain, after)

# %% [markdown]
# ## Check it: did it work, and what else moved?

# %%
tried = denoscope.analysis.evaluation_prompts(
    {"firefighter": "cook"},
    efficacy=["a noto emoji of a woman {}"],
    generality=["a twemoji emoji of a man {}"],
    neighbourhood={"pilot": ["a noto emoji of a woman {}"], "red heart": ["an emoji of a {}"]},
)
evaluation = denoscope.analysis.evaluate_edit(
    model, edit.applied, tried, judge=judge, seeds=SEEDS, steps=STEPS
)
evaluation.plot("shown")

# %% [markdown]
# Outside `applied` the model is as it was:

# %%
again = denoscope.trace(model, [PROMPT] * len(SEEDS), seeds=SEEDS, steps=STEPS)
print("pictures are those of the beginning, to the bit:", torch.equal(again.images, plain.images))
