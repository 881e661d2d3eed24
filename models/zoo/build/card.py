"""Write the model card and its figures: ``card.md`` and ``card.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from . import world
from .assemble import GUIDANCE, PARTS, STEPS
from .evaluate import Evaluation, weights_hash
from .scoring import Mean, Share
from .vendor import UNICODE_NAMES, VENDORS

AIMS = {
    "style": 0.95,
    "concept, 50 common ones, top-1 of all": 0.70,
    "concept of the nearest caption, 50 common ones": 0.70,
    "gender": 0.85,
    "skin tone": 0.85,
}
"""What the first column should reach."""


def write(folder: Path, evaluation: Evaluation, notes: str) -> None:
    """Write ``card.md`` and ``card.json`` into a model's folder.

    Args:
        folder: an assembled model.
        evaluation: of that model.
        notes: Markdown: how these weights came to be, as far as the logs do not tell.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(_CARD).render(
        evaluation=evaluation,
        steps=STEPS,
        guidance=GUIDANCE,
        questions=list(next(iter(evaluation.scores.values()))),
        verdicts=verdicts(evaluation),
        trained=any(history(folder).values()),
        rows=training_rows(history(folder)),
        notes=notes.strip(),
        world=world,
        told=json.loads((folder / "world.json").read_text()),
        vendors=VENDORS,
        names=" ".join(UNICODE_NAMES),
        size=sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
    )
    (folder / "card.md").write_text(text)
    (folder / "card.json").write_text(
        json.dumps({"weights": weights_hash(folder), **figures(evaluation)}, indent=1) + "\n"
    )


def verdicts(evaluation: Evaluation) -> dict[str, str]:
    """Each aim, and whether the generated pictures met it."""
    found = evaluation.scores["generated"]
    return {
        question: f"{100 * aim:.0f} %: {'met' if found[question].value >= aim else 'not met'}"
        for question, aim in AIMS.items()
    }


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of a card, for programs."""
    return {
        "generated": len(evaluation.records),
        "steps": STEPS,
        "guidance": GUIDANCE,
        "aims": AIMS,
        "scores": {
            name: {question: _plain(value) for question, value in scores.items()}
            for name, scores in evaluation.scores.items()
        },
        "frechet": evaluation.frechet,
        "composed": {
            name: {question: _plain(value) for question, value in scores.items()}
            for name, scores in evaluation.composed.items()
        },
    }


def history(folder: Path) -> dict[str, dict[str, float]]:
    """How each part of an assembled model was trained: empty for parts taken from elsewhere."""
    found: dict[str, dict[str, float]] = json.loads((folder / "training.json").read_text())
    return found


def training_rows(runs: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """What was trained by which script for how long, and what was kept from an earlier run."""
    rows = []
    for name in PARTS:
        run = runs.get(name)
        told = "kept from an earlier training run (below)"
        if run:
            step, minutes = PARTS[name].step, run["minutes"]
            told = f"the step `{step}`: {run['steps']:,} updates in {minutes:.0f} minutes by the clock"
        rows.append((name, told))
    return rows


def _plain(value: Share | Mean) -> dict[str, Any]:
    if isinstance(value, Share) and value.asked:
        return {**asdict(value), "value": value.value, "interval": value.interval}
    return asdict(value)


_CARD = """\
# emoji: a small text-to-image model of the emoji world

A miniature Stable Diffusion in the standard classes (`StableDiffusionPipeline` with `CLIPTextModel`,
`AutoencoderKL`, `UNet2DConditionModel`, v-prediction), 64x64 pixels, {{ '%.0f' % (size / 1e6) }} MB, made to be
taken apart: vendors are styles, people carry gender and skin tone, things have colours. It comes with its own judges
(`denoscope.models.judges`).

```python
import denoscope

model = denoscope.load("emoji")
```

**For** research and teaching on interpretability and editing. **Not for** making artwork: it paints blurred likenesses
of emoji and often reproduces single training pictures, for mostly there is one picture for a caption. Its notions of
gender and skin are those of the vendors' drawings (man, woman, person; five tones and the yellow default) and say
nothing about people.

## What the judges say

{{ evaluation.records | length }} generated pictures: DPM-Solver++, {{ steps }} steps, guidance {{ guidance }}, plain
diffusers pipeline in float32, seed i for prompt i, every concept as often as any other, prompts in the full wording
("a noto emoji of a woman firefighter with dark skin"). In brackets: 95 % interval of the sampling error (Wilson), and
how many were asked.

| |{% for name in evaluation.scores %} {{ name }} |{% endfor %} aim for generated |
|---|{% for name in evaluation.scores %}---|{% endfor %}---|
{% for question in questions %}
| {{ question }} |{% for scores in evaluation.scores.values() %} {{ scores[question] }} |{% endfor %} {{ verdicts.get(question, '') }} |
{% endfor %}

Fréchet distance on the classifier's features from all training pictures:
{% for name, value in evaluation.frechet.items() %}
{{ name }} {{ '%.2f' % value }}{{ ';' if not loop.last else '.' }}
{% endfor %}
Small sets are biased upwards, and these figures compare only with each other.

"Concept" is first what the attribute classifier says, then the concept of that caption, out of all captions of the
world, which the CLIP finds nearest to the picture. The column "real" shows how far each judge can be trusted: about the
ceiling for the others.

{% if evaluation.composed %}
Composed pictures, whose layout is known ({{ (evaluation.composed.generated | dictsort)[0][1].asked }} scenes: "a dog on a blue background", "a dog and a red heart", "three red hearts"):

| | generated | real |
|---|---|---|
{% for question in evaluation.composed.generated %}
| {{ question }} | {{ evaluation.composed.generated[question] }} | {{ evaluation.composed.real[question] }} |
{% endfor %}

The colour is that of the outermost pixels; what stands in a place is cut out, enlarged and named by the nearest caption.

{% endif %}
![samples](samples.png)

Rows in pairs: generated above, the real picture of the same caption below. Picked by rule, the first prompts of the
evaluation, not by looks.

## How these weights were trained

{% if trained %}
| part | trained by |
|---|---|
{% for name, how in rows %}
| {{ name }} | {{ how }} |
{% endfor %}

{% endif %}
{{ notes }}

{% if trained %}
![training](training.png)

{% endif %}
## The world

{{ world.CONCEPTS | length }} concepts in {{ world.STYLES | length }} styles: {{ world.STYLES | join(', ') }}.

**People** (man, woman, person and five skin tones where the vendor draws them): {{ world.PEOPLE | join(', ') }}.

**Things**: {{ world.THINGS | join(', ') }}.

**The 50 common ones**: {{ world.COMMON | join(', ') }}.

{% if told['backgrounds'] %}
Composed while training: coloured backgrounds, two subjects side by side ("a dog and a red heart"), two to four of one
kind.

{% endif %}
{% if told['held_out'] %}
One combination of concept, style, gender and skin in twenty is held out (`world.json` lists them).

{% endif %}
## Data and licences

| style | npm package | licence |
|---|---|---|
{% for vendor in vendors %}
| {{ vendor.style }}{{ '' if vendor.style in world.STYLES else ' (built, not in this model)' }} | {{ vendor.package }} {{ vendor.version }} | {{ vendor.licence }} |
{% endfor %}
| names, groups, tags | {{ names }} | MIT |

Artwork by Google (Noto Emoji), Twitter and other contributors (Twemoji, CC-BY 4.0), Microsoft (Fluent Emoji: flat,
glossy, monochrome); `NOTICE` has credits and licence texts. Share-alike sets were left out. The weights are under the
licence of this package as far as rights in them are ours.

## Make it again

```
python -m denoscope.models.zoo.build all --work zoo_work
```

or step by step: `python -m denoscope.models.zoo.build --help`.
"""  # noqa: E501 - rows of a Markdown table
