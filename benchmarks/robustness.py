"""Is it gone? A sheet for each of four methods and four concepts, on the emoji model.

    python benchmarks/robustness.py              16 sheets of some five minutes of one core each
    python benchmarks/robustness.py --quick      the cheap probes and small budgets: about a minute each

A sheet is kept in --output, under a hash of the weights, as soon as it is made: what was stopped goes on, and
two processes with a --method or --concept of their own share the work.

    python benchmarks/robustness.py --retained R --full F

measures instead how deep the same edits of "rose" go in F, against R that never saw one. Each is the folder
of a UNet, and both went on from one without roses (models/zoo/training/README.md has the commands). With
--second a full model that was trained as R was, what its states do is no loss.

Edits are solved for general wordings, and held by texts of other things. Nothing is tuned to equal efficacy:
the column "edited" says how much is left before anybody tries. The tables are written into
docs/robustness.md, between its markers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pages
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from faster import bfloat16

import denoscope
from denoscope import editing
from denoscope.analysis import Budget, depth, robustness
from denoscope.analysis.erasure.attacks import CHEAP, PROBES
from denoscope.analysis.erasure.completion import switched
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint

PERSON = "a noto emoji of a woman {}"
THING = "a noto emoji of a {}"
CONCEPTS = {  # what is edited away: what it means then, the prompt, a description, and other words
    "firefighter": (
        "cook",
        PERSON,
        "a noto emoji of a woman with a red helmet",
        ("singer", "judge", "pilot"),
    ),
    "pizza": (
        "doughnut",
        THING,
        "a noto emoji of a round flat bread with cheese",
        ("bread", "taco", "cookie"),
    ),
    "fox": ("panda", THING, "a noto emoji of an orange animal with a tail", ("bear", "lion", "wolf")),
    "rose": ("tulip", THING, "a noto emoji of a red flower", ("sunflower", "cactus", "herb")),
}
ABSENT = "rose"
TOLERANCE = 0.3
"""What R's states may do to other things, of what they do to roses. Two networks that were trained, however
alike, are never as near as the usual 0.05 wants."""
STYLES = ("noto", "twemoji", "flat")
UNRELATED = tuple(THING.replace("{}", word) for word in ("rocket", "guitar", "ghost", "umbrella"))
Method = Callable[[Any, Mapping[str, str], list[str]], denoscope.Edit]
METHODS: dict[str, Method] = {
    "quickfix, first layer": lambda m, r, keep: editing.quickfix(m, r, keep=["", *keep]),
    "memit, MLP of the encoder": lambda m, r, keep: editing.memit(m, r, keep=["", *keep]),
    "uce, K and V of the UNet": lambda m, r, keep: editing.uce(m, r, keep=keep),
    "nullspace, K and V of the UNet": lambda m, r, keep: editing.nullspace(m, r, keep=keep),
}


def sheet(
    model: Any, judge: Any, method: str, about: str, *, quick: bool, seeds: int, steps: int
) -> pd.DataFrame:
    """The table of one edit."""
    instead, template, description, others = CONCEPTS[about]
    keep = [template.replace("{}", word) for word in others]
    edit = METHODS[method](model, {about: instead}, keep)
    found = robustness(
        model, edit.applied, about, instead, judge=judge, seeds=range(seeds), steps=steps, template=template,
        probes=CHEAP if quick else tuple(PROBES), budget=Budget.short() if quick else Budget(),
        wordings={"description": description, "context": f"{template} in a city", "plain": "a {}"},
        unrelated=UNRELATED, progress=lambda *_: None,
    )  # fmt: skip
    frame = found.to_frame()
    frame.insert(0, "concept", about)
    frame.insert(0, "method", method)
    return frame.assign(reaches_clean=found.reaches_clean, steps=steps)


def table(found: pd.DataFrame) -> str:
    """For each method and concept what is shown before, after, and by the strongest attack of each probe.

    Of completions it is the one in the middle of the run; in brackets the control.
    """
    probes = [p for p in PROBES if p in set(found["probe"])]
    rows = []
    for (method, about), part in found.groupby(["method", "concept"], sort=False):
        plain = part[part["probe"] == "plain"].set_index("who")["mean"]
        cells = [f"{plain['clean']:.2f}", f"{plain['edited']:.2f}"]
        rows.append((str(method), str(about), *cells, *(_cell(part, probe) for probe in probes)))
    return pages.table(("method", "concept", "clean", "edited", *probes), rows)


def _cell(part: pd.DataFrame, probe: str) -> str:
    own = part[part["probe"] == probe]
    if probe == "completion":
        steps = int(part["steps"].iloc[0])
        half = min(switched(steps), key=lambda k: abs(k - steps / 2))
        own = own[own["budget"] == half]
    if own.empty:
        return ""
    best = own[own["who"] == "edited"]
    best = best.loc[best["mean"].idxmax()]
    text, control = f"{best['mean']:.2f}", own[own["who"] == "clean"]
    if probe == "clean_embeddings":
        return f"{text}{', to the bit' if best['reaches_clean'] else ''}"
    same = control if best["budget"] != best["budget"] else control[control["budget"] == best["budget"]]
    return f"{text} ({same['mean'].max():.2f})" if len(same) else text


def show(text: str, *, quick: bool) -> None:
    """Put the table into the page."""
    if quick:
        pages.write("docs/robustness.md", "quick", text)
    else:
        pages.write("docs/robustness.md", "sheets", text)


def with_denoiser(folder: Path) -> denoscope.Model:
    """The embedded model with a UNet that was trained elsewhere."""
    parts = denoscope.load("emoji").pipe.components
    unet = UNet2DConditionModel.from_pretrained(folder)
    return denoscope.load(StableDiffusionPipeline(**{**parts, "unet": unet}, requires_safety_checker=False))


def depths(full: Path, retained: Path, second: Path | None, *, seeds: int, steps: int) -> str:
    """How deep each edit goes, component by component, beside how often what it takes away is shown."""
    model, lacking = with_denoiser(full), with_denoiser(retained)
    beside = None if second is None else with_denoiser(second)
    instead, template, _, others = CONCEPTS[ABSENT]
    kept = [template.replace("{}", word) for word in others]
    prompts, judge = [f"a {style} emoji of a {ABSENT}" for style in STYLES], load_judge("emoji")

    def shown(of: denoscope.Model) -> str:
        each = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
        run = denoscope.trace(of, [p for p, _ in each], seeds=[seed for _, seed in each], steps=steps)
        return f"{float(judge.probability(run.images, 'concept', ABSENT).mean()):.2f}"

    rows = [(name, shown(of), *[""] * 6) for name, of in (("nothing done, F", model), ("R", lacking))]
    for method, make in METHODS.items():
        edit = make(model, {ABSENT: instead}, kept)
        with edit.applied(model):
            left = shown(model)
        found = depth(
            model, edit.applied, lacking, prompts, kept=[*kept, *UNRELATED], second=beside,
            seeds=range(seeds), steps=steps, progress=lambda *_: None,
        )  # fmt: skip
        cuts = found.cuts(tolerance=TOLERANCE)
        for row in found.to_frame(tolerance=TOLERANCE).to_dict("records"):
            counted = cuts[(cuts["component"] == row["component"]) & cuts["carries"]]
            blocks = ", ".join(f"{c.cut.split('/')[-1]} {c.moves_others:.2f}" for c in counted.itertuples())
            numbers = ("" if pd.isna(row[k]) else f"{row[k]:.2f}" for k in ("unclipped", "twin"))
            told = (*numbers, blocks, row["state"])
            deep = "" if pd.isna(row["depth"]) else pages.bounds({**row, "mean": row["depth"]})
            rows.append((method, left, row["component"], deep, *told))
    which = "cuts that count, and what R's states do there to other things"
    header = ("edit", f"{ABSENT} shown", "component", "depth", "unclipped", "twin", which, "state")
    return pages.table(header, rows)


@bfloat16()
def main() -> None:
    """Make all sheets and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="cheap probes and small budgets")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--method", action="append", choices=list(METHODS), help="some alone; writes no page")
    parser.add_argument(
        "--concept", action="append", choices=list(CONCEPTS), help="some alone; writes no page"
    )
    parser.add_argument("--output", type=Path, default=pages.ROOT / "benchmarks" / "found")
    parser.add_argument("--full", type=Path, help="F, a UNet that saw everything")
    parser.add_argument("--retained", type=Path, help=f"R, a UNet that never saw a {ABSENT}")
    parser.add_argument("--second", type=Path, help="F2, trained as R with nothing left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if (options.full is None) != (options.retained is None):
        parser.error("depth takes two UNets: give --full and --retained")
    if options.full:
        unets = (options.full, options.retained, options.second)
        pages.write("docs/robustness.md", "depth", depths(*unets, seeds=options.seeds, steps=options.steps))
        return
    model, judge, frames = denoscope.load("emoji"), load_judge("emoji"), []
    folder = options.output / f"robustness-{fingerprint(model)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for about in options.concept or CONCEPTS:
        for method in options.method or METHODS:
            how = {"quick": options.quick, "seeds": options.seeds, "steps": options.steps}
            name = f"{method.partition(',')[0]}-{about}-{options.seeds}-{options.steps}"
            path = folder / f"{name}{'-quick' if options.quick else ''}.csv"
            if not path.is_file():
                sheet(model, judge, method, about, **how).to_csv(path, index=False)
            frames.append(pd.read_csv(path))
            text = table(pd.concat(frames))
            if not options.method and not options.concept:  # what there is so far: a stopped run is not lost
                show(text, quick=options.quick)
            sys.stdout.write(table(frames[-1]) + "\n")
            sys.stdout.flush()
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
