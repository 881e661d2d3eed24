"""What we change: edits of weights as values, and the methods that solve for them."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Edit": "edit",
        "EditSettings": "text_edit",
        "Search": "values",
        "balance": "methods.balancing",
        "crosstalk": "crosstalking",
        "edit": "",
        "explain": "explaining",
        "export": "",
        "freeze": "freezing",
        "invariant": "tuning.invariant",
        "InvariantFit": "tuning.invariant",
        "locoedit": "methods.locoedit",
        "memit": "methods.memit",
        "methods": "",
        "nullspace": "methods.nullspace",
        "planted": "planting.files",
        "planted_bias": "planting.bias",
        "planting": "",
        "quickfix": "methods.quickfix",
        "read_foreign": "foreign",
        "refact": "methods.refact",
        "ridge": "",
        "slider": "tuning.slider",
        "SliderFit": "tuning.slider",
        "time": "methods.time",
        "uce": "methods.uce",
    },
)
