"""What we conclude: one method a file, each returns Scores or Directions."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Decision": "localisation.decision",
        "EditEvaluation": "edit_evaluation.evaluate",
        "EvaluationPrompt": "edit_evaluation.prompts",
        "Lens": "localisation.layer_lens",
        "Mediation": "mediation.result",
        "Noise": "mediation.corruption",
        "Scores": "scores",
        "Swap": "mediation.corruption",
        "WordMaps": "attribution.attention_maps",
        "agreement": "localisation.patching_gradients",
        "attribution": "",
        "attribution_patching": "localisation.patching_gradients",
        "decided": "localisation.deciding",
        "edit_evaluation": "",
        "evaluate_edit": "edit_evaluation.evaluate",
        "evaluation_prompts": "edit_evaluation.prompts",
        "intervals": "",
        "lens": "localisation.layer_lens",
        "localisation": "",
        "locate": "localisation.locating",
        "locogen": "localisation.layer_prompts",
        "maps_from_trace": "attribution.attention_maps",
        "mediation": "",
        "metrics": "",
        "plots": "",
        "race": "localisation.racing",
        "scores": "",
        "trace_denoiser": "mediation.denoiser_tracing",
        "trace_text": "mediation.text_tracing",
        "word_maps": "attribution.attention_maps",
    },
)
