"""The same word in two denoisers, a UNet and a transformer: ``python benchmarks/two_denoisers.py``.

Text encoder, autoencoder, pictures and training script are the same; what differs is the denoiser. Where is a
word carried? Results go to --output (a run that was stopped goes on), the figure to docs/images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

import denoscope
from denoscope.analysis import Mediation, Noise, trace_denoiser, trace_text
from denoscope.analysis.metrics import judge_probability
from denoscope.models.judges import load_judge

NAMES = ("emoji", "emoji-dit")
PROMPT, WORD = "a noto emoji of a woman firefighter", "firefighter"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "two-denoisers.png"
ROLES = {"end": "end token", "pad": "padding", "subject": f"“{WORD}”"}
KINDS = {"self_attn.out": "self-attention", "cross_attn.out": "cross-attention", "mlp.out": "MLP"}


def measure(name: str, what: str, seeds: int, output: Path) -> Mediation:
    """One causal map of one model, kept on disk."""
    path = output / f"{name}-{what}.zarr"
    if not path.exists():
        settings = {
            "seeds": list(range(seeds)),
            "metric": judge_probability(load_judge(name), "concept", WORD),
            "corruption": Noise(draws=3),
            "steps": 12,
        }
        model = denoscope.load(name)
        if what == "text":
            found = trace_text(model, [PROMPT], WORD, **settings)
        else:
            found = trace_denoiser(model, [PROMPT], WORD, source=what, **settings)
        found.save(path)
    return Mediation.load(path)


def role(label: str) -> str | None:
    """What a token position is: end, padding, or the subject."""
    name = label.split(":", 1)[-1]
    return {"end": "end", "pad": "pad", WORD: "subject"}.get(name)


def draw(found: dict[tuple[str, str], pd.DataFrame]) -> None:
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


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("two_denoisers"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--models", nargs="+", default=NAMES, choices=NAMES)
    told = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in told.models:
        for what in ("text", "trajectory", "in_place"):
            cause = measure(name, what, told.seeds, told.output)
            total = cause.total()
            table = found[name, what] = cause.normalised.to_frame()
            print(f"\n{name}, {what}: clean {float(cause.clean.mean()):.2f}, {cause.rows:,} rows")
            mean, low, high = (float(total[k]) for k in ("mean", "low", "high"))
            print(f"total effect {mean:.2f} [{low:.2f}, {high:.2f}]")
            print(table.head(12).round(3).to_string())
            if what != "text":
                kinds = table.assign(kind=table["site"].str.rsplit("/", n=1).str[-1])
                print(kinds.groupby("kind")["mean"].agg(["max", "median", "count"]).round(3).to_string())
    if set(told.models) == set(NAMES):
        draw(found)


if __name__ == "__main__":
    main()
