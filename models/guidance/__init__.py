"""How the outputs of several branches become one."""

from .asymmetric import Asymmetric
from .cfg import CFG
from .value import Combined, Guidance, GuidanceBranch, GuidanceContext

__all__ = ["CFG", "Asymmetric", "Combined", "Guidance", "GuidanceBranch", "GuidanceContext"]
