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
# # What does each word do?
#
# One prompt, one picture: what each word tells of it that no other word tells, where it is read, where the
# model sees what it names; and what two words have in common. Then the same of a picture that is given, and a
# prompt that did not make it.

# %%
import os

import torch

import denoscope

torch.set_num_threads(1)
QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
PROMPT = "a noto emoji of a woman firefighter with dark skin"
WORDS = ["woman", "firefighter", "dark"] if QUICK else None  # None: all but articles and prepositions
HOW = {"words": WORDS, "levels": 8 if QUICK else 16, "steps": 4 if QUICK else 20}
model = denoscope.load("emoji")

# %%
found = denoscope.explain(model, PROMPT, seed=0, **HOW)
found

# %% [markdown]
# ## How much: nats that no other word tells
# An interval is of the noise that was drawn. It says nothing of other pictures of the prompt: change the
# seed.

# %%
found.to_frame()

# %% [markdown]
# ## Where: four questions, four maps
# *Information*: where the picture is foretold better because the word was read (blue: worse). The colours
# of each word run to its own most, which stands above it.

# %%
found.plot()

# %% [markdown]
# *Attention*: where the word is read, which is not what it causes. The mean over steps; single ones are in
# `found.data["attention"]`.

# %%
found.plot("attention")

# %% [markdown]
# *Concept* (`found.plot("concept")`): where the model sees what the word names. *Gradient*: which places
# decide how far the word moves the prediction. Each figure can be had for print:

# %%
found.plot("gradient", static=True)

# %% [markdown]
# The words that matter at one place, the middle of the picture:

# %%
found.at(8, 8)

# %% [markdown]
# ## Two words: alike, alone, together
# Below the diagonal what both tell alike (where it is below 0, a word misleads until its companion is there),
# above it what only the two together tell.

# %%
found.plot_pairs()

# %%
found.plot_pairs("woman + firefighter")

# %% [markdown]
# ## A picture of your own
# Here the same picture, asked about another word: the prompt need not be the one that made it. A file does
# as well: `image="picture.png"`.

# %%
wrong = denoscope.explain(
    model, PROMPT.replace("woman", "man"), image=found.image, words=["man", "firefighter"], levels=8
)
wrong.to_frame()

# %% [markdown]
# ## Take it along: a page that works offline, and all numbers

# %%
found.save("words.zarr")
found.page("words.html")
