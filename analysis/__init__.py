"""What we conclude: one method a file, each returns Scores or Directions."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "attribution": "",
        "edit_evaluation": "",
        "evaluate_edit": "edit_evaluation.evaluate",
        "intervals": "",
        "mediation": "",
        "metrics": "",
        "plots": "",
        "scores": "",
        "trace_denoiser": "mediation.tracing",
        "trace_text": "mediation.tracing",
        "word_maps": "attribution.attention_maps",
    },
)
