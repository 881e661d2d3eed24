"""The end of the page: the command to try next, and where every number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..results import Results, Section


def section(results: Results) -> Section:
    """The command line, seeds, versions, hashes and timings."""
    command = results.about.get("command") or _command(results.asked)
    code = _code(results) if results.edit is not None else ""
    values = {"command": command, "code": code, "provenance": _provenance(results.whole)}
    return Section(values)


def _code(results: Results) -> str:
    """What paints the first pictures of the page again, with all their settings."""
    asked, about = results.asked, results.about
    settings = f"seeds={list(about['seeds'])}, steps={asked['steps']}, guidance={about['guidance']!r}"
    return f"""import denoscope

model = denoscope.load({asked["model"]!r})
edit = denoscope.Edit.load("edit.safetensors")
prompts = [{asked["prompt"]!r}] * {len(about["seeds"])}
before = denoscope.trace(model, prompts, {settings})
with edit.applied(model):
    after = denoscope.trace(model, prompts, {settings})
denoscope.analysis.plots.before_after(before, after).show()"""


def _command(asked: Mapping[str, Any]) -> str:
    goals = {
        "change_to": f"--change-to {asked.get('change_to')}",
        "remove": "--remove",
        "balance": f"--balance {asked.get('balance')}",
        "steer": f"--steer {asked.get('steer')}",
    }
    goal = next(text for name, text in goals.items() if asked.get(name))
    return f'denoscope investigate "{asked["prompt"]}" --about {asked["about"]} {goal}'


def _provenance(whole: Mapping[str, Any]) -> list[tuple[str, str]]:
    about = whole["about"]
    rows = {
        "made by": about.get("command") or "denoscope.investigation.investigate",
        "seeds": ", ".join(map(str, about["seeds"])),
        "weights (sha256)": whole["settings"]["weights"],
        **({"judge": ", ".join(about["judge"].values())} if "judge" in about else {}),
        **({"edit": about["edit"]} if "edit" in about else {}),
        "settings": whole["key"],
        **{k: str(v) for k, v in about["versions"].items()},
        **{k: str(v) for k, v in about["machine"].items()},
        **{f"seconds: {stage}": f"{seconds:g}" for stage, seconds in whole["seconds"].items()},
    }
    return [(key, str(value)) for key, value in rows.items()]
