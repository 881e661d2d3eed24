"""Tables that need edits and analyses together: which method changes what, at what price."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Concept": "concept",
        "Cost": "costing",
        "EditBenchmark": "result",
        "METHODS": "methods",
        "Plan": "planning",
        "Probe": "concept",
        "cost": "costing",
        "edits": "running",
        "embedded_concepts": "reading",
        "read_concepts": "reading",
        "write_page": "page",
    },
)
