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
# # A bias found, explained and mitigated
#
# A prompt names a job and no gender, and the pictures show one all the same. How unequal are they, on which
# features of the network does that hang, and does pushing those features make it fair? Everything below is
# measured when this runs; what is found here can come out otherwise with other seeds, prompts and trainings.

# %%
import os

import torch

import denoscope
from denoscope.analysis import count_labels
from denoscope.bias.labels import classes_of
from denoscope.probes import shipped_dictionary

torch.set_num_threads(1)
QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
PROMPT, WORD, CLASSES = "a noto emoji of a judge", "judge", ["woman", "man"]
SEEDS = range(8) if QUICK else range(64)
HOW = {"steps": 2 if QUICK else 20}
model = denoscope.load("emoji")
asked = classes_of("gender=woman,man", model)  # who says what pictures show: the judge that ships

# %% [markdown]
# ## The bias
# Some pictures, and the share of each class in all of them, with Wilson's intervals. The judge also knows
# "person": what it calls so counts as neither.

# %%
denoscope.trace(model, [PROMPT] * 4, seeds=list(SEEDS[:4]), **HOW).plot()

# %%
count_labels(model, {WORD: PROMPT}, asked.label, CLASSES, seeds=SEEDS, **HOW).to_frame()

# %% [markdown]
# ## A dictionary
# What passes through one site, as a sum of few directions out of many. A small one ships: it was trained on
# captions of all that the model knows, people foremost, at a site where the difference between women and men
# moves what is painted (docs/bias-features.md). One of your own takes minutes: `train_dictionary`.

# %%
dictionary = shipped_dictionary("emoji")
dictionary.record["held_out"]  # explained: how much of the variance it writes down

# %%
dictionary

# %% [markdown]
# ## Find, calibrate, push
# Half of the seeds find the features that tell a pair of prompts apart, and the strength at which the classes
# are painted as often. The others say what comes of it, so that nothing is measured on what chose it.

# %%
study = denoscope.study_bias(
    model, dictionary, CLASSES, PROMPT, about=WORD, seeds=SEEDS, label=asked.label, judge=asked.judge, **HOW
)
study

# %% [markdown]
# The features found. `auc`: how often a prompt with the class has more of the feature than its twin; on the
# samples that chose it, so it is too good. What tells a class need not move it.

# %%
study.features()

# %% [markdown]
# ## Does it help?
# Beside the push stand its rivals: as many features that are as active and were not chosen (if they do as
# much, the features found are nothing special), features by plain class contrast, the difference of the
# classes' mean activations, which needs no features, and the class written into the prompt, half and half.

# %%
study.shares()

# %% [markdown]
# And what it costs. `discrepancy`: distance from equal shares, beside `chance`, what a fair model shows in as
# few pictures; `kept`: likeness to the plain picture of the same seed; `quality`: distance from plain ones.

# %%
study.to_frame()

# %% [markdown]
# ## What are these features?
# How often the first of each class are on, how far a picture moves with each off, twice and five times as
# strong, and the word or label that it tells best, on samples that did not choose it. The page has pictures.

# %%
first = study.features().groupby("class")["feature"].head(2).tolist()
texts = [f"a noto emoji of a {name} {WORD}" for name in CLASSES] * 8
atlas = denoscope.browse_features(
    model, dictionary, texts, seeds=range(2000, 2016), features=first, judge=asked.judge, **HOW
)
atlas.to_frame()

# %% [markdown]
# ## What this does not say
# - The classes are a judge's. A push that fools the judge counts as success: look at the page.
# - One prompt, one site, one dictionary. Features of another seed are others.
# - With as few pictures an interval is wide; shares within it are not shown to be equal, nor unequal.
#
# ## Take it along: pages that work offline, and all numbers

# %%
study.save("bias.zarr")
study.page("bias.html"), atlas.page("features.html")
