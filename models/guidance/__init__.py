"""How the outputs of several branches become one."""

from .cfg import CFG
from .value import Combined, Guidance, GuidanceBranch, GuidanceContext

__all__ = ["CFG", "Combined", "Guidance", "GuidanceBranch", "GuidanceContext"]
