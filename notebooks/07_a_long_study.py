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
# # A long study: planned, killed, resumed, spread, read back
#
# Which layer makes a firefighter of a cook, and at which steps? The question takes many runs, and on a large
# model it takes days, in which machines stop. Here it is asked in small, and treated as it would be there:
# what it takes is counted first, its process is killed on purpose, the same call goes on, workers share
# it, and the answer is read from the folder where it lies. Every number in the text is written by its cell.

# %%
import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from multiprocessing import Process
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
from IPython.display import Markdown

import denoscope
from denoscope.analysis import Mediation, plan_study, rows_per_second, trace_denoiser
from denoscope.models.store.studies import read_studies, units_table

QUICK = bool(os.environ.get("DENOSCOPE_QUICK"))
WORKERS = 1 if QUICK else 2
FOLDER = Path(mkdtemp())

# %% [markdown]
# ## The study is a file
# Another process must be able to make the same call, so it stands in a file. One site is restored at a time,
# in one window of steps, while the prompt says "cook"; CLIP says how much of a firefighter comes back.

# %%
STUDY = f"""
import torch

import denoscope
from denoscope.analysis import Swap, metrics, trace_denoiser
from denoscope.models.judges import load_judge

torch.set_num_threads(1)  # sums in another number of threads round otherwise
model = denoscope.load("emoji")
asked = dict(
    prompts=["a noto emoji of a woman firefighter"],
    subject="firefighter",
    corruption=Swap("cook"),
    metric=metrics.clip_score(load_judge("emoji"), "a firefighter"),
    sites={"unet/up.1.attn.1.0/cross_attn.out" if QUICK else "unet/*/cross_attn.out"!r},
    windows={[[0], [1]] if QUICK else [[0, 1], [2, 3], [4, 5], [6, 7]]},
    steps={2 if QUICK else 8},
    seeds=range({5 if QUICK else 12}),
)

def run(**how):
    return trace_denoiser(model, **{{**asked, **how}})
"""
(FOLDER / "study.py").write_text(STUDY)
sys.path.insert(0, str(FOLDER))
import study  # the same in this process

# %% [markdown]
# ## What it will take
# Counted before anything is run, row by row of the denoiser; the time is those rows at this machine's pace.
# Scoring pictures is not in it.

# %%
plan = plan_study(trace_denoiser, study.model, **study.asked)
pace = rows_per_second(study.model, samples=plan.samples)
Markdown(f"""
{plan.runs} sampling runs in {plan.units} units, one for each seed; {plan.rows:,} rows of the denoiser, where
the published scheme makes {plan.reference_rows:,}. At {pace:.0f} rows a second that is
{plan.seconds(pace):.0f} s. At a time {plan.kept / 1e6:.1f} MB of activations are kept.
""")

# %% [markdown]
# ## Started, and killed
# In a process of its own, with a folder as its store. As soon as a third of the units are in it, the process
# gets SIGKILL, which nothing can catch: no goodbye, nothing tidied.


# %%
def units_in(folder):
    try:
        return sum(one.units for one in read_studies(folder))
    except FileNotFoundError:  # it has not got as far as that
        return 0


process = Process(target=study.run, kwargs={"store": FOLDER / "store"})
process.start()
while process.is_alive() and units_in(FOLDER / "store") < plan.units // 3:
    time.sleep(0.05)
process.kill()
process.join()
code = process.exitcode
(killed,) = read_studies(FOLDER / "store")
Markdown(f"""
The process ended with {signal.Signals(-code).name if code < 0 else code}. In the store: {killed.units} of
{killed.total} units, {killed.rows:,} rows. The rest will take {killed.left:.0f} s at the pace so far.
""")

# %% [markdown]
# ## The same call again
# It finds what is there, and makes what is missing. Nothing is said about resuming: the call is the same.


# %%
def timed(run, **how):
    start = time.perf_counter()
    return run(**how), time.perf_counter() - start


found, rest = timed(study.run, store=FOLDER / "store")
(resumed,) = read_studies(FOLDER / "store")
_, reading = timed(study.run, store=FOLDER / "store")
Markdown(f"""
Already there: {killed.units} of {resumed.total} units. The rest took {rest:.1f} s; the study is
{"done" if resumed.done else "not done"}. Asked once more, it answered in {reading:.2f} s.
""")

# %% [markdown]
# ## Does it matter that it was killed?
# The same without a store, in one go:

# %%
SCORES = ["clean", "corrupted", "restored"]


def differing(one, other):
    return sum(int((one.data[k].values != other.data[k].values).sum()) for k in SCORES)


whole, alone = timed(study.run)
n_scores = sum(whole.data[k].size for k in SCORES)
Markdown(f"""
Of {n_scores} scores, {differing(found, whole)} differ between the study that was killed and the one that was
not, which took {alone:.1f} s and {whole.rows:,} rows ({plan.rows:,} were planned).
""")

# %% [markdown]
# ## Workers
# Inside `on_ray` the batches are made by other processes: here on this machine, elsewhere the nodes of a
# cluster. This process scores the pictures and writes the store.

# %%
if find_spec("ray") is None:
    told = "Ray is not installed, so this part was left out: `pip install 'denoscope[ray]'`."
else:
    start = time.perf_counter()
    with denoscope.on_ray(workers=WORKERS):
        ready = time.perf_counter() - start
        spread, together = timed(study.run, store=FOLDER / "spread")
    told = f"""
{differing(spread, whole)} of {n_scores} scores differ from those of one process. Workers ({WORKERS}) took
{together:.1f} s, opening the model included, where one process took {alone:.1f} s; before that Ray took
{ready:.1f} s to start. This machine has {os.cpu_count()} cores.
"""
Markdown(told)

# %% [markdown]
# ## Read back
# What lies in the stores, study by study, and all scores as one table. `denoscope studies FOLDER` tells the
# same on the command line; `--export scores.parquet` writes the table to a file.

# %%
pd.DataFrame(
    [
        [one.folder.name, one.what, f"{one.units} of {one.total}", one.rows, round(one.bytes / 1e6, 1)]
        for one in read_studies(FOLDER)
    ],
    columns=["store", "study", "units", "rows", "MB"],
)

# %%
table = pd.DataFrame(units_table(FOLDER))
table["store"] = [Path(store).name for store in table["store"]]
table["seed"] = [json.loads(about)["seed"] for about in table["about"]]
of_one = table[table["store"] == "store"].pivot(index="position", columns="seed", values="value")
of_one.head().round(3)  # of each seed: the clean run, the corrupted one, then site by site

# %%
restored = of_one.iloc[2:].to_numpy()
labelled = found.data["restored"].values.reshape(restored.shape)
Markdown(f"""
{len(table)} numbers in {table["unit"].nunique()} units and {table["store"].nunique()} stores. Of those of the
first study, {int((restored != labelled).sum())} differ from what the call returned with its labels.
""")

# %% [markdown]
# ## The answer
# A place's share of the total effect: 0 is the cook, 1 the firefighter.

# %%
found.plot()

# %% [markdown]
# The best of many places looks better than it is, on the seeds that chose it. So one half of the seeds
# chooses, and the other half says how much:

# %%
choosing, saying = (Mediation(found.data.isel(seed=slice(k, None, 2))) for k in (1, 0))
place = list(choosing.to_frame().loc[0, ["site", "window"]])
chosen = choosing.to_frame().loc[0, "mean"]


def share(of):
    return of.to_frame().set_index(["site", "window"]).loc[tuple(place)]


there = share(saying)
settled = "" if there["low"] > 0 else " That holds 0: so few seeds do not settle it."
Markdown(f"""
Chosen: `{place[0]}` at steps {place[1]}. On the seeds that chose it, it brings back {chosen:.2f} of the
effect, on the others {there["mean"]:.2f} [{there["low"]:.2f}, {there["high"]:.2f}].{settled}
""")

# %% [markdown]
# ## Was it long enough?
# The share there, seed by seed, as the half that did not choose comes in:

# %%
counts = range(2, saying.data.sizes["seed"] + 1)
course = pd.DataFrame(
    {n: share(Mediation(saying.data.isel(seed=slice(n)))) for n in counts}, index=["mean", "low", "high"]
).T.rename_axis("seeds")
course["half"] = (course["high"] - course["low"]) / 2
figure = course.reset_index().plot.scatter(x="seeds", y="mean", error_y="half", backend="plotly")
figure.update_layout(height=320, template="simple_white", yaxis_title="share of the effect")

# %%
_, more = timed(study.run, store=FOLDER / "store", seeds=range(plan.units + 1))
longer = read_studies(FOLDER / "store")[-1]
first, last = 2 * course["half"].iloc[[0, -1]]
Markdown(f"""
With {course.index[0]} seeds the interval was {first:.2f} wide, with {course.index[-1]} it is {last:.2f}. If
that is too wide, ask for more: a study of {longer.total} seeds took {more:.1f} s in the same store, as it had
{resumed.units} of its units already.
""")

# %% [markdown]
# ## What this does not say
# - The intervals are of seeds. Of other prompts, words and trainings they say nothing.
# - Restoring tells what a place suffices for, not what it is needed for (`direct=True` tells that).
# - Workers on one machine show that the numbers stay, not how fast a cluster is.
