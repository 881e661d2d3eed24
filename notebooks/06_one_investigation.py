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
# # One investigation: four analyses, what they find, what is changed, what it did
#
# A firefighter is to become a cook. Where does the model keep the word, which words tell it as well, which
# features and which direction tell the two apart, and which change that follows from this is the best one?

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import torch

import denoscope
from denoscope.analysis import plots
from denoscope.investigation import Case
from denoscope.probes import Learning, train_dictionary

torch.set_num_threads(1)
pd.set_option("display.max_colwidth", None)  # whole sentences
QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
SEEDS, STEPS = (1, 1) if QUICK else (4, 10)
PROMPT, ABOUT, TO = "a noto emoji of a woman firefighter", "firefighter", "cook"
folder = Path(mkdtemp())

# %% [markdown]
# ## A dictionary, for the features
# Features are found in a sparse dictionary of one site. This one is small, and of the two prompts alone.

# %%
model = denoscope.load("emoji")
dictionary = train_dictionary(
    model,
    "unet/up.1.res.0/resid.post",
    [PROMPT, PROMPT.replace(ABOUT, TO)] * (2 if QUICK else 8),
    seeds=range(500, 504) if QUICK else range(500, 516),
    steps=STEPS,
    learning=Learning(updates=50 if QUICK else 1000),
)
dictionary.save(folder / "dictionary.safetensors")
dictionary

# %% [markdown]
# ## One call
# Each analysis says what it found and offers changes of the model; all of them are tried on the same prompts
# and seeds. A run that was stopped goes on where it was.

# %%
case = Case(
    PROMPT,
    ABOUT,
    TO,
    seeds=SEEDS,
    steps=STEPS,
    draws=1,
    dictionary=folder / "dictionary.safetensors",
    analyses=("features", "directions") if QUICK else None,
)
found = denoscope.investigate(case, folder / "run", anyway=True)
found

# %% [markdown]
# ## What was found
# Each sentence is written from numbers; those that these runs cannot settle say so.

# %%
pd.DataFrame(
    [(told.text, "no" if told.weak else "yes") for told in found.findings], columns=["found", "sure"]
)

# %% [markdown]
# ## Every change, side by side
# Efficacy: the share of pictures that show a cook. Specificity: the share of pictures of other things that
# still show themselves. Nothing done and asking outright stand beside them.

# %%
columns = ["change", "analysis", "efficacy", "efficacy_low", "efficacy_high", "specificity", "where"]
found.to_frame()[columns].round(2)

# %%
print(found.table.why)
found.plot()

# %% [markdown]
# What an analysis could not offer, and why:

# %%
pd.DataFrame(found.table.skipped, columns=["analysis", "why"])

# %% [markdown]
# ## An edit and a steering, on other prompts
# The best edit of weights, and the steering of the encoded text. Weights act on every text; the steering
# waits for the word. How far do pictures with and without the word move?

# %%
changes = found.changes
edits = [name for name in found.table.names if changes[name].edit is not None]
chosen = {
    "edit": max(edits, key=lambda name: found.table.scores[name]),
    "steering": "steering of the encoded text",
}
NEW = ["a twemoji emoji of a man firefighter", "a noto emoji of a rocket"]
seen = found.evaluation.data["prompt"].values.tolist()
print("prompts that the changes were tried on already:", [text for text in NEW if text in seen])
run = {"seeds": [7] * len(NEW), "steps": STEPS}
plain = denoscope.trace(model, NEW, **run)
after = {}
for kind, name in chosen.items():
    with found.apply(name, model) as changed:
        after[kind] = denoscope.trace(changed, NEW, **run)
moved = {kind: (made.images - plain.images).abs().mean((1, 2, 3)).tolist() for kind, made in after.items()}
pd.DataFrame(moved, index=NEW)

# %%
pictures = torch.cat([plain.images, *(made.images for made in after.values())])
plots.picture_grid(pictures, [f"{who}: {text}" for who in ("plain", *after) for text in NEW], across=len(NEW))

# %% [markdown]
# ## Taken along
# The edit as a whole pipeline for plain diffusers, the steering as a file; and the page for colleagues.

# %%
exported = found.export(folder / "edited", chosen["edit"])
steering = found.export(folder / "steering.safetensors", chosen["steering"])
print(exported, steering, found.page, sep="\n")
