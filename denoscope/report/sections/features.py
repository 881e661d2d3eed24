"""Which features of a sparse dictionary tell what is wanted."""

from __future__ import annotations

from ...analysis.features.bias_result import BiasFeatures
from ..plain import plain_site
from ..results import Results, Section

SHOWN = 8
"""Features of each class."""


def section(results: Results) -> Section:
    """The best features of each class, and how well a classifier of them does on new samples."""
    stage = results.stages.get("features")
    if stage is None or "score" not in stage:
        return Section({"features": None})
    found = BiasFeatures(stage)
    frame, accuracy = found.to_frame(), found.accuracy()
    best = accuracy.loc[accuracy["mean"].idxmax()]
    rows = [
        [str(r["class"]), str(r["feature"]), f"{r['score']:.3g}", f"{r['auc']:.2f}"]
        for name in found.classes
        for r in frame[frame["class"] == name].head(SHOWN).to_dict("records")
    ]
    told = f"{best['mean']:.0%} ({best['low']:.0%} to {best['high']:.0%})"
    values = {
        "site": plain_site(str(stage.attrs["site"])),
        "rows": rows,
        "told": told,
        "step": int(best["step"]),
        "shuffled": f"{best['shuffled']:.0%}",
    }
    return Section({"features": values})
