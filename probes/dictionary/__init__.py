"""Sparse dictionaries over the channels of any site: training, encoding, editing, and files of others."""

from .activations import ActivationStore
from .channels import Channels
from .codes import Codes
from .collecting import collect_activations
from .learning import Learning
from .training import train_dictionary
from .value import Dictionary

__all__ = [
    "ActivationStore",
    "Channels",
    "Codes",
    "Dictionary",
    "Learning",
    "collect_activations",
    "train_dictionary",
]
