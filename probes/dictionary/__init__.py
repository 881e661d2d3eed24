"""Sparse dictionaries over the channels of any site: training, encoding, editing, and files of others."""

from .acting import DictionaryEdit
from .activations import ActivationStore
from .channels import Channels
from .codes import Codes
from .collecting import collect_activations
from .foreign import read_sae_lens, read_sdxl_unbox, write_sae_lens
from .learning import Learning
from .matching import Stability, stability
from .shipped import shipped_dictionary
from .training import train_dictionary
from .value import Dictionary

__all__ = [
    "ActivationStore",
    "Channels",
    "Codes",
    "Dictionary",
    "DictionaryEdit",
    "Learning",
    "Stability",
    "collect_activations",
    "read_sae_lens",
    "read_sdxl_unbox",
    "shipped_dictionary",
    "stability",
    "train_dictionary",
    "write_sae_lens",
]
