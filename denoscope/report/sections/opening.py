"""The top of the page: what was asked, the same seeds before and after, the numbers to remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...analysis import plots
from ..asked import tell_asked
from ..changes import NOTHING
from ..pairs import MOST, pairs
from ..plain import plain_site, plain_token
from ..results import Results, Section


def section(results: Results) -> Section:
    """Say what was asked and show the edited prompt with every seed."""
    asked = results.asked
    values = {
        **asked,
        "title": asked["prompt"],
        "facts": _facts(asked, results.about),
        "tiles": _tiles(results),
    }
    hero, told_of = _hero(results)
    values |= {"goal": results.goal, "hero": told_of}
    asked_outright = results.stages.get("oracle")
    told = [] if asked_outright is None else tell_asked(asked_outright)
    return Section(values, {"hero": hero}, told)


def _hero(results: Results) -> tuple[Any, dict[str, Any]]:
    """The edited prompt before and after, and what the change is."""
    plain = {"edited": "", "instead": "", "change": ""}
    if results.checked is not None and results.edit is not None:
        n = len(results.edit.deltas)
        edited = "one weight matrix was" if n == 1 else f"{n} weight matrices were"
        return pairs(results.stages["effect"], "efficacy"), {
            **plain,
            "edited": edited,
            "instead": results.instead,
        }
    found = results.changes
    if found is None or not found.names:
        pictures = results.stages["look"]["pictures"]
        names = [f"seed {s}" for s in results.about["seeds"]]
        return plots.picture_grid(pictures, names), plain
    change = found.best or found.names[0]
    before, after = (found.data["pictures"].sel(change=c, drop=True)[:MOST] for c in (NOTHING, change))
    names = [f"seed {s}" for s in found.data["seed"].values[: len(before)]]
    return plots.before_after(before, after, names), {**plain, "change": change}


def _facts(asked: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    return [
        f"model {asked['model']}",
        f"{len(about['seeds'])} seed{'s' if len(about['seeds']) > 1 else ''}",
        f"{asked['steps']} steps",
        f"guidance {about['guidance']:g}",
        str(about["scheduler"]),
    ]


def _tiles(results: Results) -> list[dict[str, str]]:
    asked, shown = results.asked, results.shown
    tiles = []
    if results.text is not None and results.text.proportion:
        best = results.text.ranked().iloc[0]
        where = f"{plain_site(best['site'])} at {plain_token(best['token'])}"
        text = f"of the effect of “{asked['about']}” comes back when only {where} is restored"
        tiles.append({"value": f"{best['mean']:.0%}", "text": text})
    if results.edit is not None and results.checked is not None:
        share = results.edit.size() / results.about["parameters"]
        text = "of the model's weights were edited, in closed form, without training"
        tiles.append({"value": f"{share:.2%}", "text": text})
    if results.changes is not None:
        n = len(results.changes.names)
        tiles.append(
            {"value": str(n), "text": f"change{'s' if n != 1 else ''} tried on the same prompts and seeds"}
        )
    if "efficacy" in shown:
        after, n = shown["efficacy"]["after"]
        text = f"pictures of the edited prompt now show “{results.instead}”"
        tiles.append({"value": f"{after}/{n}", "text": text})
    if results.looks is not None:
        same, n, *_ = results.looks
        tiles.append({"value": f"{same}/{n}", "text": "pictures of other things look as before at a glance"})
    return tiles
