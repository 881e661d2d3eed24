"""Guidance as a value: ``denoscope.trace(..., guidance=CFG(4.0))``, and what one of your own is made of."""

from .models.guidance import CFG, Asymmetric, Combined, Guidance, GuidanceBranch, GuidanceContext

__all__ = ["CFG", "Asymmetric", "Combined", "Guidance", "GuidanceBranch", "GuidanceContext"]
