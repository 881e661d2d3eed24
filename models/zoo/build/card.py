"""Write the model card from figures, and draw the loss curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import world
from .assemble import GUIDANCE, STEPS
from .vendor import UNICODE_NAMES, VENDORS

AIMS = {
    "style": "95 %",
    "concept, 50 common ones (top-1 of all)": "70 %",
    "gender, three-way": "85 %",
    "skin": "85 %",
}


def table(results: Mapping[str, Any]) -> str:
    """Figures as a Markdown table: a row for each question, a column for each set of pictures."""
    columns = [name for name, values in results.items() if isinstance(values, dict)]
    rows = [f"| | {' | '.join(columns)} | aim |", f"|---|{'---|' * (len(columns) + 1)}"]
    for question in results[columns[0]]:
        cells = [str(results[column][question]) for column in columns]
        rows.append(f"| {question} | {' | '.join(cells)} | {AIMS.get(question, '')} |")
    return "\n".join(rows)


def write(path: Path, results: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Write ``card.md``.

    Args:
        path: the file to write.
        results: from ``evaluate``.
        notes: paragraphs on how these weights were trained, and what is short of the aims.
    """
    made = len(results["records"])
    sources = "\n".join(f"| {v.style} | {v.package} {v.version} | {v.licence} |" for v in VENDORS)
    text = _CARD.format(
        made=made,
        steps=STEPS,
        guidance=GUIDANCE,
        table=table(results),
        fid=results["fid"],
        fid_real=results["fid of held-out real pictures"],
        sources=sources,
        names=" ".join(UNICODE_NAMES),
        styles=", ".join(world.STYLES),
        count=len(world.CONCEPTS),
        people=", ".join(sorted(world.PEOPLE)),
        things=", ".join(sorted(world.THINGS)),
        notes="\n\n".join(notes),
    )
    path.write_text(text)


def curves(logs: Mapping[str, tuple[Path, str]], path: Path) -> None:
    """Draw one column of each CSV log against training time.

    Args:
        logs: title to file and column.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - drawn only here

    figure = Figure(figsize=(3.2 * len(logs), 2.6), layout="constrained")
    for axes, (title, (file, column)) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
        with file.open() as rows:
            points = [(float(row["seconds"]) / 60, float(row[column])) for row in csv.DictReader(rows)]
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set(title=title, xlabel="minutes", ylabel=column)
    figure.savefig(path, dpi=110)


_CARD = """# emoji: a small text-to-image model of the emoji world

A miniature Stable Diffusion in the standard classes (`StableDiffusionPipeline`: `CLIPTextModel`, `AutoencoderKL`,
`UNet2DConditionModel`, v-prediction), 64x64 pixels, made to be taken apart: vendors are styles, people carry gender
and skin tone, things have colours. It comes with its own judges (`denoscope.models.judges`).

```python
import denoscope
model = denoscope.load("emoji")
```

Intended for research and teaching on interpretability and editing. Not for making artwork: it paints blurred
likenesses of emoji, and often reproduces single training pictures. Its notions of gender and skin are those of the
vendors' drawings (three genders, five tones and the yellow default) and say nothing about people.

## What the judges say

{made} generated pictures, {steps} steps of DPM-Solver++ in the plain diffusers pipeline, guidance {guidance}, seeds
0 to {made}, concepts drawn evenly, prompts in the full wording ("a noto emoji of a woman firefighter with dark
skin"). In brackets: 95 % Wilson interval of sampling error, and how many were asked.

{table}

Fréchet distance on the classifier's features, generated to training pictures: {fid:.2f} (held-out real pictures to
training pictures: {fid_real:.2f}; small sets are biased upwards, and the figure is comparable only within this card).

The judges never saw the held-out combinations: the third column is their honest accuracy, and a ceiling for the
first two. A thing has one picture for each style, so a held-out thing is one drawn by a vendor whose drawing
of it the judge has never seen.

![samples](samples.png)

Each pair of rows: generated above, the real picture of the same caption below. Picked by rule (the first prompts of
the evaluation, not the best).

## How these weights were trained

{notes}

![training](training.png)

## The world

Styles: {styles}. {count} concepts.

People (with gender man, woman, person and five skin tones where vendors draw them): {people}.

Things: {things}.

Also on coloured backgrounds, two side by side ("a dog and a red heart"), and two to four of one kind, composed while
training. One combination of concept, style, gender and skin in twenty is held out (`world.json` lists them).

## Data and licences

| style | npm package | licence |
|---|---|---|
{sources}
| (names) | {names} | MIT |

The artwork is by Google (Noto Emoji, Blob), Twitter and other contributors (Twemoji), Microsoft (Fluent Emoji),
Ranks.com and JoyPixels (EmojiOne 2) and Mozilla (FxEmojis). The shipped model is trained on the five styles named
above only. Share-alike sets were left out. The weights are under the licence of this package.

## Rebuild

`python -m denoscope.models.zoo.build --help` lists the steps; `models/zoo/build/README.md` has them in order.
"""
