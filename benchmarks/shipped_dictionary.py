"""Train and measure the dictionary that ships: ``python benchmarks/shipped_dictionary.py``.

Of ``emoji``, at a stream where the mean difference of women and men moves what is painted most for what it
costs (``bias_sites.py``). Writes probes/dictionary/made/emoji.safetensors, and its card. It is trained with
two seeds, for what is found again. Some thirty minutes of one core; a run that was stopped goes on in
--output.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
import word_bias
from pages import ROOT, table, write

import denoscope
from denoscope.models import zoo
from denoscope.probes import Dictionary, Learning, stability, train_dictionary

PAGE = "probes/dictionary/made/emoji.md"
FILE = ROOT / "probes/dictionary/made/emoji.safetensors"
SITE = "unet/up.1.attn.1/resid.post"
CAPTIONS, JOBS = 256, 240
RUN: dict[str, Any] = {"steps": 20}
UPDATES, ROWS = 8000, 1024


def texts() -> list[str]:
    """Captions of the world, drawn by seed, and professions with and without a gender."""
    drawn = random.Random(0).sample(list(zoo.data().captions.texts), CAPTIONS)
    jobs = word_bias.subjects(word_bias.FULL)
    named = [word_bias.article(f"{c} {job}".strip()) for job in jobs for c in ("", "woman", "man")]
    return drawn + [named[i % len(named)] for i in range(JOBS)]


def halved(found: Dictionary) -> Dictionary:
    """The same in half precision, as it ships."""
    from dataclasses import replace  # noqa: PLC0415

    names = ("encoder", "decoder", "encoder_bias", "input_bias", "output_bias")
    return replace(found, **{name: getattr(found, name).half().float() for name in names})


def main() -> None:
    """Train twice, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings" / "shipped")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    model, prompts = denoscope.load("emoji"), texts()
    two = [
        train_dictionary(
            model, SITE, prompts, seeds=range(50_000, 50_000 + len(prompts)), store=output,
            learning=Learning(updates=UPDATES, rows=ROWS, seed=seed), **RUN,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    FILE.parent.mkdir(exist_ok=True)
    halved(two[0]).save(FILE)
    write(PAGE, "card", told(two[0], two[1], len(prompts)))


def told(one: Dictionary, other: Dictionary, samples: int) -> str:
    """The card's table."""
    held, again = one.record["held_out"], stability(one, other)
    rows = [
        ("site", f"`{one.site}`"),
        ("features", f"{one.width} of {one.decoder.shape[1]} channels, {one.k} on in a row"),
        ("trained on", f"{samples} samples of {RUN['steps']} steps, {UPDATES:,} updates of {ROWS:,} rows"),
        ("explained variance, held out", f"{held['explained']:.3f}"),
        ("the same by channel", f"{held['explained_by_channel']:.3f}"),
        ("dead features", f"{held['dead']:.1%}"),
        ("mean largest cosine with another training", f"{again.mean:.2f} (chance {again.chance:.2f})"),
        ("features found again, cosine above 0.9", f"{again.share():.0%}"),
        ("bytes", f"{FILE.stat().st_size:,}"),
    ]
    return table(("what", "value"), rows)


if __name__ == "__main__":
    main()
