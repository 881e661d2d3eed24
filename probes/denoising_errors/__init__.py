"""How far a network's predictions are from the noise, and from each other, under several conditions."""

from .evaluating import error_bank
from .result import ErrorBank, Estimator, Weight
from .strata import Strata, StrataOptions

__all__ = ["ErrorBank", "Estimator", "Strata", "StrataOptions", "Weight", "error_bank"]
