"""A run's page: one self-contained HTML file that works offline.

Every number and every sentence comes from the run's datasets. All text is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader

from ..analysis import plots
from ..analysis.edit_evaluation.evaluate import STATES, EditEvaluation
from ..analysis.edit_evaluation.prompts import KINDS
from ..analysis.mediation.result import Mediation
from ..editing.edit import Edit
from ..models.site import Site
from . import findings
from .findings import CausalMap, Finding

GROUPS = {"efficacy": "the edited prompt", "generality": "other wordings", "specificity": "other things"}
STATE_NAMES = {"before": "before", "after": "after", "oracle": "unedited, asked outright"}


def render(found: Mapping[str, xr.Dataset], whole: Mapping[str, Any], edit: Edit) -> str:
    """Return the page of a run.

    Args:
        found: the stages' results: look, text, denoiser, effect.
        whole: what ``run.json`` says.
        edit: the edit that was made.
    """
    maps = {name: CausalMap.of(Mediation(found[name])) for name in ("text", "denoiser")}
    checked = EditEvaluation(found["effect"], {})
    page = _words(found, whole, edit, maps, checked)
    figures = _figures(found, maps, checked)
    environment = Environment(loader=PackageLoader("denoscope.report"), autoescape=True)
    shown = {name: json.loads(str(figure.to_json())) for name, figure in figures.items()}
    template = environment.get_template("report.html.jinja")
    return template.render(page=page, figures=shown, plotly_js=plots.plotly_js())


# figures ------------------------------------------------------------------------------------------------


def _figures(
    found: Mapping[str, xr.Dataset], maps: Mapping[str, CausalMap], checked: EditEvaluation
) -> dict[str, Any]:
    look, data = found["look"], found["effect"]
    strip = xr.concat([look["noisy"], look["predicted"]], "row").transpose("step", "row", "sample", ...)
    words = look["words"].isel(sample=0).rename(map_y="y", map_x="x")
    figures = {
        "hero": _pairs(data, "efficacy", every_seed=True),
        "strip": plots.sampling_strip(strip, ["the noisy picture", "what the network predicts"]),
        "words": plots.word_heat(look["pictures"][0], words),
        **{f"text {kind}": figure for kind, figure in _text_maps(maps["text"]).items()},
        **{f"denoiser {w}": figure for w, figure in _denoiser_maps(maps["denoiser"]).items()},
        **{f"grid-{kind}": _pairs(data, kind) for kind in KINDS[1:] if kind in data["kind"].values},
    }
    if data.attrs["judged"]:
        figures["shown"] = plots.effect_bars(_bars(checked, "shown"))
        figures["fit"] = plots.effect_bars(_bars(checked, "fit"))
    else:
        figures["moved"] = plots.effect_bars(_bars(checked, "moved", ("after",)))
    return figures


def _text_maps(found: CausalMap) -> dict[str, Any]:
    """One figure for each kind of state: layer x token."""
    cells = found.cells
    kinds = dict.fromkeys(str(k) for k in cells["kind"].values)
    figures = {}
    for kind in kinds:
        some = cells.isel(site=(cells["kind"] == kind).values)
        some = some.assign_coords(
            site=[str(b).replace(".", " ") for b in some["block"].values],
            token=[str(t).split(":", 1)[-1] for t in some["token"].values],
        )
        figures[kind] = plots.effect_map(some.transpose("site", "token"), *_scale(found))
    return figures


def _denoiser_maps(found: CausalMap) -> dict[str, Any]:
    """One figure for each step window: block x kind of layer."""
    places = [_place(str(b)) for b in found.cells["block"].values]
    kinds = [findings.plain_kind(Site(str(s))) for s in found.cells["site"].values]
    cells = found.cells.drop_vars(["block", "kind"])
    name = xr.DataArray(cells["site"].values, dims="site", coords={"site": cells["site"]})
    index = pd.MultiIndex.from_arrays([places, kinds], names=["place", "part"])
    cells = cells.assign(name=name).drop_vars("site")
    cells = cells.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "site")).unstack("site")
    order = {"place": list(dict.fromkeys(places))[::-1], "part": list(dict.fromkeys(kinds))}
    known = list(findings.KINDS.values())
    order["part"].sort(key=lambda part: next((i for i, k in enumerate(known) if part.startswith(k)), 99))
    cells = cells.sel(order)
    return {
        findings.plain_window(str(w)): plots.effect_map(
            cells.sel(window=w).drop_vars("window").transpose(*order), *_scale(found)
        )
        for w in cells["window"].values
    }


def _place(block: str) -> str:
    """Name a residual block and the attention after it alike: both are "up.1 · 0"."""
    stage, _, rest = block.partition(".res.")
    if not rest:
        stage, _, rest = block.partition(".attn.")
        rest = rest.removesuffix(".0") if rest.count(".") else rest
    return f"{stage} · {rest}" if rest else block


def _scale(found: CausalMap) -> tuple[str, float]:
    if found.share:
        return "share of the effect", 1.0
    return f"change of the {found.metric}", float(abs(found.cells["mean"]).max()) or 1.0


def _pairs(data: xr.Dataset, kind: str, every_seed: bool = False) -> Any:
    picked = _pictures(data, kind, every_seed)
    names = [f"{prompt}, seed {seed}" for _, prompt, seed in picked]
    index = [i for i, _, _ in picked]
    return plots.before_after(data["before"][index], data["after"][index], names)


def _pictures(data: xr.Dataset, kind: str, every_seed: bool) -> list[tuple[int, str, int]]:
    """Which pictures of a kind to show: (index, prompt, seed)."""
    seeds = data["seed"].values
    questions = [
        (q, str(p))
        for q, (k, p) in enumerate(zip(data["kind"].values, data["prompt"].values, strict=True))
        if k == kind
    ]
    wanted = range(len(seeds)) if every_seed else range(1)
    return [(q * len(seeds) + s, prompt, int(seeds[s])) for q, prompt in questions for s in wanted][:8]


def _bars(checked: EditEvaluation, measure: str, states: tuple[str, ...] = STATES) -> xr.Dataset:
    frame = checked.summary()
    frame = frame[frame["measure"] == measure]
    kinds = [k for k in KINDS if k in set(frame["kind"])]
    index = pd.MultiIndex.from_product([kinds, states], names=["measure", "when"])
    table = (
        frame.set_index(["kind", "state"])[["mean", "low", "high"]]
        .rename_axis(["measure", "when"])
        .reindex(index)
    )
    bars: xr.Dataset = table.to_xarray()
    bars = bars.sel(measure=kinds, when=list(states))
    names = {"measure": [GROUPS[k] for k in kinds], "when": [STATE_NAMES[s] for s in states]}
    return bars.assign_coords(names)


# words --------------------------------------------------------------------------------------------------


def _words(
    found: Mapping[str, xr.Dataset],
    whole: Mapping[str, Any],
    edit: Edit,
    maps: Mapping[str, CausalMap],
    checked: EditEvaluation,
) -> dict[str, Any]:
    asked, about, data = whole["settings"], whole["about"], found["effect"]
    shown = _shown(checked) if data.attrs["judged"] else {}
    told = [
        findings.tell_total(maps["text"], asked["about"]),
        *findings.tell_encoders(json.loads(found["text"].attrs["carried"]), maps["text"]),
        *findings.tell_text(maps["text"], asked["about"]),
    ]
    told += [*findings.tell_denoiser(maps["denoiser"]), *_tell_check(checked, shown, asked)]
    return {
        **asked,
        "title": asked["prompt"],
        "facts": _facts(asked, about),
        "found": told,
        "tiles": _tiles(maps, edit, shown, asked, whole),
        "reader": maps["text"].part,
        "text_maps": [
            {"name": f"text {kind}", "title": findings.KINDS.get(kind, kind)}
            for kind in dict.fromkeys(str(k) for k in maps["text"].cells["kind"].values)
        ],
        "denoiser": maps["denoiser"].part,
        "denoiser_maps": [
            {"name": f"denoiser {window}", "title": window}
            for window in map(findings.plain_window, maps["denoiser"].cells["window"].values)
        ],
        "text_cost": _cost(found["text"]),
        "denoiser_cost": _cost(found["denoiser"]),
        "metric": maps["text"].metric,
        "draws": asked["draws"],
        "share": maps["text"].share and maps["denoiser"].share,
        "edit": {
            "site": findings.plain_site(edit.note["site"]),
            "address": edit.note["site"],
            "size": f"{edit.size():,}",
        },
        "grids": [_grid(data, kind) for kind in KINDS[1:] if kind in data["kind"].values],
        "kept": len(edit.note.get("keep", [])),
        "judged": bool(data.attrs["judged"]),
        "candidates": ", ".join(str(c) for c in data["candidate"].values),
        "command": about.get("command") or _command(asked),
        "provenance": _provenance(whole),
    }


def _facts(asked: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    return [
        f"model {asked['model']}",
        f"{asked['seeds']} seed{'s' if asked['seeds'] > 1 else ''}",
        f"{asked['steps']} steps",
        f"guidance {about['guidance']:g}",
        str(about["scheduler"]),
    ]


def _shown(checked: EditEvaluation) -> dict[str, dict[str, tuple[int, int]]]:
    """Count for each kind and state the pictures that fit their target best."""
    frame = checked.to_frame()
    table = frame.groupby(["kind", "state"])["shown"].agg(["sum", "count"])
    return {
        kind: {
            state: (int(table.loc[(kind, state), "sum"]), int(table.loc[(kind, state), "count"]))
            for state in STATES
        }
        for kind in dict.fromkeys(frame["kind"])
    }


def _tell_check(checked: EditEvaluation, shown: dict[str, Any], asked: Mapping[str, Any]) -> list[Finding]:
    moved = checked.to_frame().query("state == 'after'").groupby("kind")["moved"].mean()
    return [*findings.tell_effect(shown, asked["change_to"]), findings.tell_moved(moved)]


def _tiles(
    maps: Mapping[str, CausalMap],
    edit: Edit,
    shown: dict[str, Any],
    asked: Mapping[str, Any],
    whole: Mapping[str, Any],
) -> list[dict[str, str]]:
    tiles = []
    best = maps["text"].ranked().iloc[0]
    if maps["text"].share:
        where = f"{findings.plain_site(best['site'])} at {findings.plain_token(best['token'])}"
        text = f"of the effect of “{asked['about']}” comes back when only {where} is restored"
        tiles.append({"value": f"{best['mean']:.0%}", "text": text})
    share = edit.size() / whole["about"]["parameters"]
    tiles.append(
        {
            "value": f"{share:.2%}",
            "text": "of the model's weights were edited, in closed form, without training",
        }
    )
    if shown:
        after, n = shown["efficacy"]["after"]
        tiles.append(
            {
                "value": f"{after}/{n}",
                "text": f"pictures of the edited prompt now show “{asked['change_to']}”",
            }
        )
    if "specificity" in shown:
        after, n = shown["specificity"]["after"]
        tiles.append(
            {"value": f"{after}/{n}", "text": "pictures of other things still show what they should"}
        )
    return tiles


def _grid(data: xr.Dataset, kind: str) -> dict[str, str]:
    names = "; ".join(prompt for _, prompt, _ in _pictures(data, kind, every_seed=False))
    title = {
        "generality": "Other wordings of the same thing",
        "specificity": "Other things, which should not move",
    }
    return {"name": f"grid-{kind}", "title": title[kind], "caption": f"From left to right: {names}."}


def _cost(data: xr.Dataset) -> str:
    rows, reference = int(data.attrs["rows"]), int(data.attrs["reference_rows"])
    return f"{rows:,} network rows; the published scheme needs {reference:,} for the same scores."


def _command(asked: Mapping[str, Any]) -> str:
    return (
        f'denoscope investigate "{asked["prompt"]}" --about {asked["about"]} --change-to {asked["change_to"]}'
    )


def _provenance(whole: Mapping[str, Any]) -> list[tuple[str, str]]:
    about = whole["about"]
    rows = {
        "made by": about.get("command") or "denoscope.investigation.investigate",
        "seeds": ", ".join(map(str, about["seeds"])),
        "weights (sha256)": whole["settings"]["weights"],
        "edit": about["edit"],
        "settings": whole["key"],
        **{k: str(v) for k, v in about["versions"].items()},
        **{k: str(v) for k, v in about["machine"].items()},
        **{f"seconds: {stage}": f"{seconds:g}" for stage, seconds in whole["seconds"].items()},
    }
    return [(key, str(value)) for key, value in rows.items()]
