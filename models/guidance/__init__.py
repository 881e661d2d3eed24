"""How the outputs of several branches become one."""

from .acting import cosine, linear
from .adaptive import Adaptive
from .asymmetric import Asymmetric
from .cfg import CFG
from .compose import Compose
from .contrast import Contrast
from .embedding import EmbeddingMatch
from .gradient import Estimate, JudgeGradient
from .linear_ag import LinearAG
from .parts import Combined, GuidanceBranch, GuidanceContext
from .perturbed import PAG
from .region import RegionPreserve
from .value import Guidance, Sum, Term

__all__ = [
    "CFG",
    "PAG",
    "Adaptive",
    "Asymmetric",
    "Combined",
    "Compose",
    "Contrast",
    "EmbeddingMatch",
    "Estimate",
    "Guidance",
    "GuidanceBranch",
    "GuidanceContext",
    "JudgeGradient",
    "LinearAG",
    "RegionPreserve",
    "Sum",
    "Term",
    "cosine",
    "linear",
]
