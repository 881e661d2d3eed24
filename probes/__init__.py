"""How we look: traces, interventions, directions, sweeps, sparse dictionaries."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "ActivationStore": "dictionary",
        "Channels": "dictionary",
        "Codes": "dictionary",
        "CompositionGap": "guiding.composing",
        "Dictionary": "dictionary",
        "DictionaryEdit": "dictionary",
        "GuidanceLog": "guiding.log",
        "Learning": "dictionary",
        "Stability": "dictionary",
        "collect_activations": "dictionary",
        "composition_gap": "guiding.composing",
        "fit_linear_ag": "guiding.fitting",
        "read_sae_lens": "dictionary",
        "read_sdxl_unbox": "dictionary",
        "shipped_dictionary": "dictionary",
        "stability": "dictionary",
        "train_dictionary": "dictionary",
        "where_said": "directions.where_said",
        "write_sae_lens": "dictionary",
    },
)
