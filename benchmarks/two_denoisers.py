"""The same word in two denoisers, a UNet and a transformer: ``python benchmarks/two_denoisers.py``.

Text encoder, autoencoder, pictures and training script are the same; what differs is the denoiser. Where is a
word carried? Writes the tables of docs/two-denoisers.md and its figure. Results are kept in --output under a
hash of the weights: a run that was stopped goes on, and other weights are measured anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from faster import bfloat16
from matplotlib.figure import Figure
from mediation import KINDS, kept
from pages import ROOT, bounds, table, write

import denoscope
from denoscope.analysis import Mediation, Noise, trace_denoiser, trace_text
from denoscope.analysis.metrics import judge_probability
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint

NAMES = ("emoji", "emoji-dit")
PROMPT, WORD = "a noto emoji of a woman firefighter", "firefighter"
PAGE = "docs/two-denoisers.md"
FIGURE = ROOT / "docs" / "images" / "two-denoisers.png"
ROLES = {"end": "end token", "pad": "padding", "subject": f"“{WORD}”"}
DRAWS, STEPS = 3, 12
Frames = dict[tuple[str, str], pd.DataFrame]
SOURCES = {"trajectory": "clean trajectory", "in_place": "in place"}


def measure(name: str, what: str, seeds: int, output: Path) -> Mediation:
    """One causal map of one model."""
    model = denoscope.load(name)
    metric, corruption = judge_probability(load_judge(name), "concept", WORD), Noise(draws=DRAWS)

    def make() -> Mediation:
        settings = {"seeds": range(seeds), "metric": metric, "corruption": corruption, "steps": STEPS}
        if what == "text":
            return trace_text(model, [PROMPT], WORD, **settings)
        return trace_denoiser(model, [PROMPT], WORD, source=what, **settings)

    folder = output / fingerprint(model)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return kept(folder / f"{name}-{what}-{seeds}.zarr", make)


def role(label: str) -> str | None:
    """What a token position is: end, padding, or the subject."""
    name = label.split(":", 1)[-1]
    return {"end": "end", "pad": "pad", WORD: "subject"}.get(name)


def draw(found: Frames) -> None:
    """Shares with intervals: self-attention of each text layer by token; best layer of each kind."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), NAMES, strict=True):
        table = found[name, "text"]
        table = table[table["site"].str.endswith("self_attn.out")]
        for i, (key, title) in enumerate(ROLES.items()):
            rows = table[[role(t) == key for t in table["token"]]].sort_values("site")
            x = [n + 0.25 * (i - 1) for n in range(len(rows))]
            error = [(rows["mean"] - rows["low"]).clip(lower=0), (rows["high"] - rows["mean"]).clip(lower=0)]
            axes.bar(x, rows["mean"], 0.25, yerr=error, label=title, error_kw={"linewidth": 1})
        axes.set(title=f"{name}: restored in the text encoder", xlabel="layer of the text encoder")
        axes.axhline(0, color="grey", linewidth=0.5)
    figure.axes[0].set_ylabel("share of the effect")
    figure.axes[0].legend(frameon=False)
    figure.savefig(FIGURE, dpi=110)


def by_token(found: Frames) -> str:
    """Shares of layer 0's self-attention, by the token at which it is restored."""
    rows = []
    for key, title in ROLES.items():
        cells = []
        for name in NAMES:
            frame = found[name, "text"]
            here = frame[frame["site"].str.endswith("layer.0/self_attn.out")]
            cells.append(bounds(here[[role(t) == key for t in here["token"]]].iloc[0]))
        rows.append((title, *cells))
    return table(("self-attention of layer 0, restored at", *(f"`{n}`" for n in NAMES)), rows)


def by_kind(found: Frames) -> str:
    """The best site of each kind of layer, in each model, by each source."""
    rows = []
    for port, kind in KINDS.items():
        cells = []
        for name in NAMES:
            for source in SOURCES:
                frame = found[name, source]
                here = frame[frame["site"].str.endswith(port)]
                best = None if here.empty else here.iloc[0]
                cells.append("none" if best is None else f"{best['site'].split('/')[1]}: {bounds(best)}")
        rows.append((kind, *cells))
    return table(("best", *(f"`{n}`, {s}" for n in NAMES for s in SOURCES.values())), rows)


@bfloat16()
def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, totals = {}, []
    for name in NAMES:
        for what in ("text", *SOURCES):
            cause = measure(name, what, options.seeds, options.output)
            found[name, what] = cause.normalised.to_frame()
        totals.append(f"`{name}` {bounds(cause.total())}")
    write(PAGE, "total", f"Total effect of the word: {', '.join(totals)}.")
    write(PAGE, "tokens", by_token(found))
    write(PAGE, "kinds", by_kind(found))
    draw(found)


if __name__ == "__main__":
    main()
