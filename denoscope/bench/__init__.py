"""Tables that need edits and analyses together: which method changes what, at what price."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Best": "ranking",
        "Concept": "concept",
        "Cost": "costing",
        "EditBenchmark": "result",
        "METHODS": "methods",
        "Plan": "planning",
        "Probe": "concept",
        "best": "ranking",
        "cost": "costing",
        "edits": "running",
        "embedded_concepts": "reading",
        "ranked": "ranking",
        "read_concepts": "reading",
        "write_page": "page",
    },
)
