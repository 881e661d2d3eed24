"""How far a network's predictions are from the noise, and from each other, under several conditions."""

from .evaluating import error_bank
from .result import ErrorBank
from .strata import Strata

__all__ = ["ErrorBank", "Strata", "error_bank"]
