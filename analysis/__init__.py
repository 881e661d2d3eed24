"""What we conclude: one method a file, each returns Scores or Directions."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Noise": "mediation.corruption",
        "Swap": "mediation.corruption",
        "attribution": "",
        "edit_evaluation": "",
        "effect": "edit_evaluation.evaluate",
        "intervals": "",
        "mediation": "",
        "metrics": "",
        "plots": "",
        "questions": "edit_evaluation.prompts",
        "scores": "",
        "trace_denoiser": "mediation.tracing",
        "trace_text": "mediation.tracing",
        "word_maps": "attribution.attention_maps",
    },
)
