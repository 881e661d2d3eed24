"""Where a word is carried in the emoji model: ``python benchmarks/mediation.py``, some minutes of one core.

Writes the tables of docs/mediation.md. What was measured is kept in --output under a hash of the weights, so
a run that was stopped goes on, and other weights are measured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from faster import bfloat16
from pages import bounds, output, table, write

import denoscope
from denoscope.analysis import Mediation, Noise, Scores, trace_denoiser, trace_text
from denoscope.analysis.metrics import Metric, Outcome, by_prompt, judge_probability
from denoscope.models import zoo
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes.intervene import Intervention

PAGE = "docs/mediation.md"
WORD, PROMPT = "firefighter", "a noto emoji of a woman {}"
FOUR = (WORD, "astronaut", "cook", "judge")
KINDS = {
    "self_attn.out": "self-attention",
    "cross_attn.out": "cross-attention",
    "mlp.out": "MLP",
    "resnet.out": "ResNet",
}
STEPS = 12
CUTS = (0, 4, 8, 12)
"""Where the windows of steps begin and end."""
SIZES = {
    "text": (6, 5),
    "four": (2, 3),
    "padding": (2, 2),
    "attributes": (2, 2),
    "unet": (4, 4),
    "spread": (3, 1),
}
"""Seeds and draws of noise of each study."""
TOGETHER = (1, 20)
"""How many neighbouring cross-attentions are restored together; twenty are all ten, wherever one stands."""
JUDGE = load_judge("emoji")
Settings = dict[str, Any]


def own_concept() -> Metric:
    """The probability that a judge gives to the last word of each sample's own prompt."""

    def metric(outcome: Outcome) -> torch.Tensor:
        images = outcome.images
        words = [p.text.split()[-1] for p in outcome.prompts]
        return torch.cat([JUDGE.probability(images[i : i + 1], "concept", w) for i, w in enumerate(words)])

    return metric


ATTRIBUTES: dict[str, dict[str, tuple[str, str, str]]] = {
    "object": {f"a noto emoji of a {w}": (w, "concept", w) for w in ("pizza", "dog", "rocket", "guitar")},
    "profession": {
        f"a noto emoji of a woman {w}": (w, "concept", w)
        for w in ("firefighter", "astronaut", "cook", "judge")
    },
    "style": {f"a {w} emoji of a dog": (w, "style", w) for w in ("twemoji", "flat", "glossy", "monochrome")},
    "colour": {
        f"an emoji of a {w} heart": (w, "concept", f"{w} heart") for w in ("red", "blue", "green", "black")
    },
    "gender": {
        f"a noto emoji of a woman {w}": ("woman", "gender", "woman")
        for w in ("pilot", "farmer", "singer", "mechanic")
    },
}
"""For each prompt its subject, and the attribute and label that tell whether it is seen."""


def sized(name: str, first: int = 0) -> Settings:
    """How much of everything a study takes."""
    seeds, draws = SIZES[name]
    return {"seeds": range(first, first + seeds), "corruption": Noise(draws=draws), "steps": STEPS}


def asked(*kinds: str) -> tuple[list[str], list[str], Metric]:
    """Prompts of some attributes, their subjects, and how each of them is scored."""
    each = {p: what for kind in kinds for p, what in ATTRIBUTES[kind].items()}
    metric = by_prompt({p: judge_probability(JUDGE, a, label) for p, (_, a, label) in each.items()})
    return list(each), [subject for subject, *_ in each.values()], metric


def attributes(model: denoscope.Model) -> Mediation:
    """One study of five attributes, prompts of different length aligned by role."""
    prompts, subjects, metric = asked(*ATTRIBUTES)
    return trace_text(
        model,
        prompts,
        subjects,
        metric=metric,
        tokens="roles",
        **sized("attributes"),
    )


def attribute_table(found: Mediation, most: int = 2) -> str:
    """The best places of each attribute, and that of all others there."""
    groups = {name: list(prompts) for name, prompts in ATTRIBUTES.items()}
    frame = found.normalised.grouped(groups)
    picked = frame.groupby("group", sort=False).head(most)[["site", "token"]].drop_duplicates()
    by_place = frame.set_index(["site", "token", "group"])
    rows = [
        (place(at), str(at["token"]), *(bounds(by_place.loc[at["site"], at["token"], g]) for g in groups))
        for _, at in picked.iterrows()
    ]
    return table(("text-encoder state", "at", *groups), rows)


def kept(path: Path, measure: Callable[[], Mediation]) -> Mediation:
    """A result that lies on disk, or is measured and put there."""
    if not path.exists():
        measure().save(path)
    return Mediation.load(path)


def studies(model: denoscope.Model) -> dict[str, Callable[[], Mediation]]:
    """Every study of the page."""
    one = judge_probability(JUDGE, "concept", WORD)
    prompt = [PROMPT.format(WORD)]
    four = [PROMPT.format(word) for word in FOUR]
    end = model.encode(prompt)[0].end
    last = len(model.encode(prompt)[0].tokens)
    padding = range(end + 1, last)
    each = [*([t] for t in padding), list(padding)]
    layer = {"layers": [0], "kinds": ("self_attn.out",)}

    def text(**more: Any) -> Mediation:
        return trace_text(model, prompt, WORD, metric=one, **more)

    def unet(source: Any) -> Mediation:
        return trace_denoiser(model, prompt, WORD, metric=one, source=source, **sized("unet"))

    return {
        "text": lambda: text(**sized("text")),
        "four": lambda: trace_text(model, four, FOUR, metric=own_concept(), **sized("four")),
        "padding": lambda: text(tokens=each, **layer, **sized("padding", first=10)),
        "attributes": lambda: attributes(model),
        "trajectory": lambda: unet("trajectory"),
        "in_place": lambda: unet("in_place"),
        **{f"spread-{n}": partial(spread, model, n) for n in TOGETHER},
    }


def spread(model: denoscope.Model, neighbours: int) -> Mediation:
    """Cross-attentions restored some together, at all steps and in each third of them; eight prompts."""
    prompts, subjects, metric = asked("object", "profession")
    thirds = [range(*ends) for ends in zip(CUTS[:-1], CUTS[1:], strict=True) if ends[0] < ends[1]]
    return trace_denoiser(
        model,
        prompts,
        subjects,
        metric=metric,
        sites="unet/**/cross_attn.out",
        windows=[range(STEPS), *thirds],
        neighbours=neighbours,
        source="in_place",
        **sized("spread"),
    )


def spread_table(found: Mapping[int, Mediation]) -> str:
    """What single cross-attentions bring back beside what they bring together, by window of steps."""
    alone, together = (found[n].normalised for n in TOGETHER)
    rows = []
    for window in alone.values["window"].values:
        one, every = (at(scores, window) for scores in (alone, together))
        added = Scores(one.values.sum("site").expand_dims(site=["all"]), one.denominator)
        best = one.to_frame().iloc[0]
        rows.append(
            (
                str(window),
                bounds(every.to_frame().iloc[0]),
                f"{bounds(best)}, `{best['site']}`",
                bounds(added.to_frame().iloc[0]),
            )
        )
    return table(("steps", "all ten together", "best alone", "sum of the ten alone"), rows)


def at(scores: Scores, window: str) -> Scores:
    """The scores of one window of steps."""
    return Scores(scores.values.sel(window=window, drop=True), scores.denominator)


def place(row: pd.Series) -> str:
    """A text-encoder site in words."""
    _, layer, port = row["site"].split("/")
    return f"{layer.replace('.', ' ')}, {KINDS[port]}"


def total(found: Mediation) -> str:
    """Clean, corrupted, the total effect and what it took, in a sentence."""
    return (
        f"Clean {float(found.clean.mean()):.2f}, corrupted {float(found.corrupted.mean()):.2f}: "
        f"a total effect of {bounds(found.total())}. "
        f"{found.rows:,} network rows, where one run for each place takes {found.reference_rows:,}."
    )


def text_table(found: Mediation, most: int = 7) -> str:
    """The best places of the text encoder; the others in one line."""
    frame = found.normalised.to_frame()
    rows = [(place(row), str(row["token"]), bounds(row)) for _, row in frame.head(most).iterrows()]
    others = frame["mean"][most:]
    rows.append((f"each of the other {len(others)}", "", f"{others.min():.3f} to {others.max():.3f}"))
    return f"{total(found)}\n\n" + table(("text-encoder state", "at (position:token)", "share"), rows)


def padding_line(found: Mediation) -> str:
    """Padding tokens together, and the best of them alone."""
    frame = found.normalised.to_frame()
    together = frame["token"].str.contains("-")
    alone = frame[~together]
    return (
        f"All {len(alone)} padding positions restored together: {bounds(frame[together].iloc[0])}. "
        "One at a time, the best: "
        f"{bounds(alone.iloc[0])}; the sum of all {len(alone)}: {alone['mean'].sum():.2f}."
    )


def unet_table(found: Mediation, in_place: Mediation, most: int = 8) -> str:
    """The best sites by trajectory with what they bring in place, the best of each kind among them."""
    frame = found.normalised.to_frame()
    other = in_place.normalised.to_frame().set_index("site")
    best = frame.groupby(frame["site"].str.rsplit("/", n=1).str[-1], sort=False).head(1)
    leading = other.index[:3]
    shown = frame[
        frame.index.isin(frame.index[:most]) | frame.index.isin(best.index) | frame["site"].isin(leading)
    ]
    rows = [(f"`{row['site']}`", bounds(row), bounds(other.loc[row["site"]])) for _, row in shown.iterrows()]
    first = min(site for site in frame["site"] if site.endswith("resnet.out"))
    rows.append(
        (
            f"`{first}`, which no text reaches",
            bounds(frame.set_index("site").loc[first]),
            bounds(other.loc[first]),
        )
    )
    rest = frame[~frame.index.isin(shown.index)]
    rows.append(
        (
            f"each of the other {len(rest)}",
            f"at most {rest['mean'].max():.2f}",
            f"at most {other.loc[rest['site'], 'mean'].max():.2f}",
        )
    )
    return f"{total(found)}\n\n" + table(("site", "share, clean trajectory", "share, in place"), rows)


def blocks(model: denoscope.Model, scenes: int = 16, steps: int = 10) -> str:
    """How far the finished latents move when a block of the UNet says nothing, in per cent of their size."""
    captions = [scene.caption for scene in zoo.data().scenes[:scenes]]
    run: dict[str, Any] = {"seeds": range(scenes), "steps": steps}
    clean = denoscope.trace(model, captions, **run).latents
    moved = {}
    for site in model.sites("unet/**/resid.post"):
        silent = Intervention(site, lambda x, _: torch.zeros_like(x))
        other = denoscope.trace(model, captions, interventions=[silent], **run).latents
        moved[str(site)] = float((other - clean).square().mean().sqrt() / clean.square().mean().sqrt())
    inner = {site: moved.pop(site) for site in sorted(moved, key=lambda site: moved[site])[:6]}
    rows = [(f"`{site}`", f"{share:.0%}") for site, share in inner.items()]
    rows.append((f"each of the other {len(moved)}", f"at least {min(moved.values()):.0%}"))
    said = f"{scenes} composed scenes, {steps} steps, guidance {model.default_guidance:g}"
    return f"{said}.\n\n" + table(("what is set to 0", "root mean square of the change"), rows)


@bfloat16()
def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    folder = where / fingerprint(model)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: kept(folder / f"mediation-{name}.zarr", study) for name, study in studies(model).items()}
    write(PAGE, "text", text_table(found["text"]))
    write(PAGE, "four", text_table(found["four"]))
    write(PAGE, "padding", padding_line(found["padding"]))
    write(PAGE, "attributes", attribute_table(found["attributes"]))
    write(PAGE, "spread", spread_table({n: found[f"spread-{n}"] for n in TOGETHER}))
    write(PAGE, "blocks", blocks(model))
    write(PAGE, "unet", unet_table(found["trajectory"], found["in_place"]))


if __name__ == "__main__":
    main()
