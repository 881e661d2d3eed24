"""What the quick demo has to have found: ``python check_demo.py FOLDER``, from the installed wheel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from denoscope.analysis.edit_evaluation.evaluate import EditEvaluation
from denoscope.analysis.scores import load_store

STAGES = {"oracle", "look", "text", "denoiser", "changes", "effect", "robustness"}


def main(folder: Path) -> None:
    """Fail unless every stage ran and the edit shows what it is asked for more often than before."""
    shown = EditEvaluation(load_store(folder / "results.zarr" / "effect"), {}).measures()["shown"]
    asked = shown.isel(evaluation_prompt=(shown["kind"] == "efficacy").values)
    asked = asked.mean(("evaluation_prompt", "seed"))
    before, after = float(asked.sel(state="before")), float(asked.sel(state="after"))
    if not after > before:
        sys.exit(f"the demo's edit shows what it is asked for in {after:.0%}, and in {before:.0%} without it")
    stages = set(json.loads((folder / "run.json").read_text())["seconds"])
    if stages != STAGES:
        sys.exit(f"the demo ran {sorted(stages)}, not {sorted(STAGES)}")
    if not (folder / "report.html").is_file():
        sys.exit(f"there is no page in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
