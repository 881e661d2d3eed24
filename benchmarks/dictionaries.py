"""Small dictionaries of emoji-people, for docs/dictionaries.md: ``python benchmarks/dictionaries.py``.

Two sites are sampled once; every form is trained with two seeds. Some ten minutes of one core; a run that was
stopped goes on where it was, in --output.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pages import ROOT, table, write

import denoscope
from denoscope.probes import Dictionary, Learning, collect_activations, stability, train_dictionary

PAGE = "docs/dictionaries.md"
MODEL, RUN = "emoji-people", {"seeds": range(128), "steps": 20}
MIDDLE, UPPER = "unet/mid.res.1/resid.post", "unet/up.1.attn.1/resid.post"
UPDATES, ROWS = 1000, 512
FORMS: list[tuple[str, str, Mapping[str, Any]]] = [
    ("top-k", MIDDLE, {}),
    ("batch top-k", MIDDLE, {"selection": "batch-top-k"}),
    ("top-k, biases of each step", MIDDLE, {"conditioned": True}),
    ("top-k, whitened", MIDDLE, {"whiten": True}),
    ("top-k, no pre-bias", MIDDLE, {"pre_bias": False}),
    ("top-k", UPPER, {}),
]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "dictionaries", help="activations, fits"
    )
    output = parser.parse_args().output
    torch.set_num_threads(1)
    model = denoscope.load(MODEL)
    store = collect_activations(model, [MIDDLE, UPPER], store=output / "activations", batch=16, **RUN)
    rows = []
    for form, site, how in FORMS:
        two = [
            train_dictionary(
                model,
                site,
                store=output,
                learning=Learning(updates=UPDATES, rows=ROWS, seed=seed, **how),
                **RUN,
            )
            for seed in (0, 1)
        ]
        rows.append(line(form, site, *two))
    header = ("site", "form", "explained", "by channel", "on in a row", "dead", "again", "above .9", "chance")
    text = (
        f"{MODEL}, {len(RUN['seeds'])} samples of {RUN['steps']} steps ({store.n_rows(MIDDLE)} and "
        f"{store.n_rows(UPPER)} rows), k 16, four features a channel, {UPDATES} updates of {ROWS} rows:\n\n"
    )
    write(PAGE, "forms", text + table(header, rows))


def line(form: str, site: str, one: Dictionary, other: Dictionary) -> tuple[str, ...]:
    """A row of the table."""
    held, again = one.record["held_out"], stability(one, other)
    numbers = [held[n] for n in ("explained", "explained_by_channel", "l0", "dead")]
    numbers += [again.mean, again.share(), again.chance]
    return (f"`{site}`", form, *(f"{x:.1f}" if x > 2 else f"{x:.2f}" for x in numbers))


if __name__ == "__main__":
    main()
