"""What carries the text in the embedded models: ``python benchmarks/carriers.py``, some 25 minutes.

Writes the tables of docs/carriers.md: kinds of rows alone and left out, the dose of padding, another padding
token, padding that the denoiser may not look at, heads of the text encoder that may not write into padding,
how special tokens are read, outlier channels. Results are kept in --output under a hash of the weights.

    python benchmarks/carriers.py --trained OTHER --beside SAME

measures instead two denoisers of one training, of which one saw texts with another padding token (how they
are made stands in models/zoo/training/README.md), and writes the table of the disagreement alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from faster import bfloat16
from mediation import own_concept
from pages import ROOT, bounds, table, write
from torch import Tensor

import denoscope
from denoscope import Intervention, When, intervening
from denoscope.analysis import Scores, channels_ablated, outlier_channels, special_tokens, text_rows
from denoscope.analysis.carriers.text_rows import KINDS, alone_and_without, kinds_of, with_rows
from denoscope.analysis.localisation.scoring import score_runs
from denoscope.models.store.fingerprint import fingerprint
from denoscope.models.text.prompt import Prompt
from denoscope.probes.sweep.sweeping import SweepRun, sweep

PAGE = "docs/carriers.md"
WORDS = (
    "firefighter", "astronaut", "cook", "judge", "farmer", "mechanic", "pilot", "singer", "teacher",
    "artist", "detective", "guard", "dog", "cat", "fox", "bear", "lion", "koala", "crab", "fish",
    "pizza", "lemon", "banana", "bread", "cookie", "carrot", "grapes", "rocket", "bus", "bicycle",
    "helicopter", "locomotive", "guitar", "drum", "crown", "backpack", "cactus", "castle", "ghost",
    "butterfly",
)  # fmt: skip
PEOPLE = 12
SEEDS, STEPS = range(4), 6
FEW = 10
"""Prompts of the smaller tables: every fourth."""
NEXT = {"begin+words+end": ("begin", "words", "subject", "end"), "end+padding": ("end", "padding")}
Encoded = Sequence[Prompt]


def prompts() -> list[str]:
    """The text of each word."""
    return [f"a noto emoji of a {'woman ' if i < PEOPLE else ''}{word}" for i, word in enumerate(WORDS)]


def kept(path: Path, measure: Callable[[], Scores]) -> Scores:
    """Scores that lie on disk, or are measured and put there."""
    if not path.exists():
        measure().save(path)
    return Scores.load(path)


def rows(model: denoscope.Model, folder: Path) -> str:
    """What each kind of row is enough for, and what is left without it."""
    found = kept(
        folder / "rows.zarr",
        lambda: text_rows(
            model,
            prompts(),
            WORDS,
            seeds=SEEDS,
            metric=own_concept(),
            kept={**alone_and_without(), **NEXT},
            steps=STEPS,
        ),
    )
    frame = found.to_frame().set_index("kept")
    lines = [("all", bounds(frame.loc["all"]), ""), ("none", bounds(frame.loc["none"]), "")]
    lines += [(k, bounds(frame.loc[f"{k} alone"]), bounds(frame.loc[f"all but {k}"])) for k in KINDS]
    lines += [(name, bounds(frame.loc[name]), "") for name in NEXT]
    return table(("rows of the prompt", "these alone", "all but these"), lines)


def given(model: denoscope.Model, what: Mapping[str, Encoded]) -> Scores:
    """The probability of the own concept, by what prompts were given; the first is the plain one."""
    plain = next(iter(what.values()))
    runs = [SweepRun(p, s) for some in what.values() for p in some for s in SEEDS]
    latents = sweep(model, runs, steps=STEPS, guidance=model.default_guidance).latents
    latents = latents.unflatten(0, (len(what), len(plain), len(SEEDS)))
    scores = [
        score_runs(model, own_concept(), latents[:, i].flatten(0, 1), p, seeds=len(SEEDS), batch=16)
        for i, p in enumerate(plain)
    ]
    coords = {"site": list(what), "prompt": [p.text for p in plain], "seed": list(SEEDS)}
    return Scores(xr.DataArray(np.stack(scores, 1), coords, ("site", "prompt", "seed")))


def some() -> list[str]:
    """Fewer prompts."""
    return prompts()[:: len(WORDS) // FEW]


@torch.no_grad()
def dose(model: denoscope.Model) -> Scores:
    """The prompt with some of its padding, and no text elsewhere."""
    plain, nothing = model.encode(some()), model.encode([""])[0]
    what: dict[str, Encoded] = {"the prompt": plain}
    for n in (1, 3, 5, 10, 15):
        for where, pick in (("first", _first), ("last", _last), ("random", _random)):
            what[f"{n} {where}"] = [with_rows(p, nothing, pick(p, n)) for p in plain]
    return given(model, what)


def _padding(prompt: Prompt) -> list[int]:
    return [i for i, kind in enumerate(kinds_of(prompt, None)) if kind == "padding"]


def _first(prompt: Prompt, n: int) -> list[bool]:
    return [i in _padding(prompt)[:n] for i in range(len(prompt.embeds))]


def _last(prompt: Prompt, n: int) -> list[bool]:
    return [i in _padding(prompt)[-n:] for i in range(len(prompt.embeds))]


def _random(prompt: Prompt, n: int) -> list[bool]:
    chosen = np.random.default_rng(n).permutation(_padding(prompt))[:n]
    return [i in chosen for i in range(len(prompt.embeds))]


@contextmanager
def padded(model: denoscope.Model, token: str) -> Iterator[None]:
    """Texts are padded with another token."""
    tokenizer: Any = model.pipe.tokenizer
    before = tokenizer.pad_token
    tokenizer.pad_token = token
    try:
        yield
    finally:
        tokenizer.pad_token = before


@torch.no_grad()
def other_padding(model: denoscope.Model) -> Scores:
    """The prompt as it is, with other padding, and from that padding alone."""
    plain = model.encode(some())
    what: dict[str, Encoded] = {"end token (as trained)": plain}
    for token in _other_tokens(model):
        with padded(model, token):
            nothing, other = model.encode([""])[0], model.encode(some())
        what[f"`{token}`"] = other
        what[f"`{token}`, padding alone"] = [with_rows(p, nothing, _first(p, len(p.embeds))) for p in other]
    return given(model, what)


def _other_tokens(model: denoscope.Model) -> list[str]:
    vocabulary = model.pipe.tokenizer.get_vocab()
    return [t for t in ("!", "of</w>", "zombie</w>", "a</w>") if t in vocabulary][:2]


def retrained(folders: Sequence[Path], output: Path) -> str:
    """What rows are enough for in denoisers that were trained with the end token, and with another one."""
    keep = {**alone_and_without(), **NEXT}
    shown = ("all", "padding alone", "all but padding", "begin+words+end", "none")
    lines = []
    for folder in folders:
        model = denoscope.load(str(folder))
        found = kept(
            output / f"retrained-{fingerprint(model)[:12]}.zarr",
            lambda model=model: text_rows(  # type: ignore[misc]
                model, prompts(), WORDS, seeds=SEEDS, metric=own_concept(), kept=keep, steps=STEPS
            ),
        )
        frame = found.to_frame().set_index("kept")
        lines.append((f"`{model.pipe.tokenizer.pad_token}`", *(bounds(frame.loc[name]) for name in shown)))
    return table(("trained with padding", *shown), lines)


@torch.no_grad()
def unread(model: denoscope.Model) -> Scores:
    """Cross-attention may not look at the padding."""
    plain = model.encode(some())
    read = {name: given(model, {name: plain}).values for name in ("as it is",)}
    changes = [Intervention(s, _unseen) for s in model.reading_sites()]
    with_out = [SweepRun(p, s, tuple(changes)) for p in plain for s in SEEDS]
    latents = sweep(model, with_out, steps=STEPS, guidance=model.default_guidance).latents
    n = len(SEEDS)
    scores = [
        score_runs(model, own_concept(), latents[i * n : (i + 1) * n], p, seeds=n, batch=16)
        for i, p in enumerate(plain)
    ]
    masked = read["as it is"].copy(data=np.stack(scores, 1)).assign_coords(site=["padding not looked at"])
    return Scores(xr.concat([read["as it is"], masked], "site"))


def _unseen(x: Tensor, context: denoscope.CallContext) -> Tensor:
    new = x.clone()
    for row, prompt in enumerate(context.prompts):
        new[row, ..., _padding(prompt)] = 0  # type: ignore[arg-type]
    return new / new.sum(-1, keepdim=True)


@torch.no_grad()
def knocked_out(model: denoscope.Model) -> Scores:
    """Heads of the text encoder's first layer may not write the word into the padding."""
    site = "text_encoder/layer.0/self_attn.probs"
    n = model.layout(site).heads or 1
    what: dict[str, Encoded] = {"as it is": model.encode(some())}
    for heads in (*([h] for h in range(n)), list(range(n))):
        name = f"head {heads[0]}" if len(heads) == 1 else "all heads"
        words = [w for w in WORDS if any(p.endswith(f" {w}") for p in some())]
        read = []
        for text, word in zip(some(), words, strict=True):
            with intervening(model, Intervention(site, _cut(model, text, word, heads), When(branch=None))):
                read += model.encode([text])
        what[name] = read
    return given(model, what)


def _cut(model: denoscope.Model, text: str, word: str, heads: Sequence[int]) -> Callable[..., Tensor]:
    prompt = model.encode([text])[0]
    subject, padding = prompt.find(word), _padding(prompt)

    def fn(x: Tensor, _: Any) -> Tensor:
        new = x.clone()
        for head in heads:
            for key in subject:
                new[:, head, padding, key] = 0
        return new / new.sum(-1, keepdim=True)

    return fn


def listed(found: Scores, title: str) -> str:
    """Scores of a few variants, in the order in which they were made."""
    frame = found.to_frame().set_index("site").loc[list(found.values["site"].values)]
    return table((title, "own concept"), [(name, bounds(row)) for name, row in frame.iterrows()])


def tokens(folder: Path) -> str:
    """How special tokens are read, in both text models."""
    lines = []
    for name in ("emoji", "emoji-dit"):
        path = folder / f"tokens-{name}.json"
        if not path.exists():
            found = special_tokens(denoscope.load(name), some(), seeds=[0, 1], steps=STEPS)
            path.write_text(found.to_frame().to_json())
        frame = pd.read_json(path)
        for kind, row in frame.iterrows():
            cells = [
                bounds({"mean": row[m], "low": row[f"{m} low"], "high": row[f"{m} high"]})
                for m in ("mass", "value", "contribution")
            ]
            lines.append((f"`{name}`", str(kind), *cells))
    return table(("model", "tokens", "mass", "value", "contribution"), lines)


def channels(folder: Path) -> tuple[str, str]:
    """Outlier channels of both models, and what is lost without them in the transformer."""
    lines, model = [], denoscope.load("emoji-dit")
    for name in ("emoji-dit", "emoji"):
        found = outlier_channels(denoscope.load(name), some()[:4], seeds=range(4), steps=STEPS)
        frame = found.to_frame().sort_values("ratio", ascending=False)
        for _, row in frame.head(4).iterrows():
            cells = [
                f"{row[c]:.2f}" for c in ("ratio", "energy_1", "energy_3", "one_sign", "by_step", "by_run")
            ]
            lines.append((f"`{name}`", f"`{row['site']}`", str(row["channel"]), *cells))
    first = table(
        ("model", "site", "channel", "× median", "energy of 1", "of 3", "one sign", "by step", "by run"),
        lines,
    )
    sites = [f"transformer/block.{i}/resid.post" for i in (0, 3, 6)]

    def ablated() -> Scores:
        large = outlier_channels(model, some(), seeds=[0, 1], sites=sites, steps=STEPS)
        return channels_ablated(model, large, some(), seeds=[0, 1], metric=own_concept(), steps=STEPS)

    lost = kept(folder / "channels.zarr", ablated).to_frame().set_index(["site", "channels", "way"])
    second = table(
        ("site", "channels", "mean of the step", "another prompt's", "zero"),
        [
            (
                f"`{site}`",
                group,
                *(bounds(lost.loc[site, group, way]) for way in ("mean", "resample", "zero")),
            )
            for site in sites
            for group in ("top", "others", "energy")
        ],
    )
    return first, second


@bfloat16()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings")
    parser.add_argument("--trained", type=Path, help="a model trained with another padding token")
    parser.add_argument("--beside", type=Path, help="one trained alike with the end token")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if (options.trained is None) != (options.beside is None):
        parser.error("the disagreement takes two models: give --trained and --beside")
    if options.trained:
        options.output.mkdir(parents=True, exist_ok=True)
        write(PAGE, "retrained", retrained((options.beside, options.trained), options.output))
        return
    model = denoscope.load("emoji")
    folder = options.output / f"carriers-{fingerprint(model)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)

    def variants(name: str, measure: Callable[[denoscope.Model], Scores], title: str) -> str:
        return listed(kept(folder / f"{name}.zarr", lambda: measure(model)), title)

    write(PAGE, "rows", rows(model, folder))
    write(PAGE, "dose", variants("dose", dose, "padding that is kept, all else from no text"))
    write(PAGE, "padding", variants("padding", other_padding, "padded with"))
    write(PAGE, "unread", variants("unread", unread, "cross-attention"))
    write(PAGE, "heads", variants("heads", knocked_out, "the word may not be written into the padding by"))
    write(PAGE, "tokens", tokens(folder))
    first, second = channels(folder)
    write(PAGE, "channels", first)
    write(PAGE, "ablated", second)


if __name__ == "__main__":
    main()
