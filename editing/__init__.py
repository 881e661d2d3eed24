"""What we change: edits of weights as values, and the methods that solve for them."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Edit": "edit",
        "Search": "values",
        "edit": "",
        "memit": "methods.memit",
        "methods": "",
        "quickfix": "methods.quickfix",
        "refact": "methods.refact",
        "ridge": "",
    },
)
