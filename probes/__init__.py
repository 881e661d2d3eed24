"""How we look: traces, interventions, directions, sweeps, sparse dictionaries."""

from ..models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "ActivationStore": "dictionary",
        "Channels": "dictionary",
        "Codes": "dictionary",
        "Dictionary": "dictionary",
        "DictionaryEdit": "dictionary",
        "Learning": "dictionary",
        "Stability": "dictionary",
        "collect_activations": "dictionary",
        "read_sae_lens": "dictionary",
        "read_sdxl_unbox": "dictionary",
        "stability": "dictionary",
        "train_dictionary": "dictionary",
        "write_sae_lens": "dictionary",
    },
)
