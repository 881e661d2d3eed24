"""denoscope: look inside a diffusion model while it samples, and change exactly what you find.

>>> import denoscope
>>> model = denoscope.load("emoji")
>>> run = denoscope.trace(model, ["a noto emoji of a dog"], seeds=[0], steps=4)
>>> run.images.shape
torch.Size([1, 3, 64, 64])
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import analysis, bench, editing, models, probes
    from .atlas.browsing import browse_features
    from .bias.studying import study_bias
    from .cluster import on_ray
    from .comparison.comparing import compare_models
    from .editing.edit import Edit
    from .explanation.explain import explain
    from .investigation.investigate import investigate
    from .models.base import Model, State
    from .models.load import load
    from .models.run.context import When
    from .models.run.levels import Step
    from .models.site import Site
    from .models.text.prompt import Prompt
    from .probes.attach import attached
    from .probes.direction import Direction
    from .probes.intervene import Intervention, intervening
    from .probes.observe import Observer
    from .probes.sweep.sweeping import SweepRun, sweep
    from .probes.trace import Trace, trace
    from .steering.steered import steered

__version__ = version("denoscope")

# From the root of a checkout Python finds this folder before an installed wheel, without the four beside it.
_here = Path(__file__).parent
if not (_here / "models").is_dir() and (_here.parent / "models").is_dir():
    __path__.append(str(_here.parent))

__all__ = [
    "Direction",
    "Edit",
    "Intervention",
    "Model",
    "Observer",
    "Prompt",
    "SweepRun",
    "Site",
    "State",
    "Step",
    "Trace",
    "When",
    "analysis",
    "attached",
    "bench",
    "browse_features",
    "compare_models",
    "editing",
    "explain",
    "intervening",
    "investigate",
    "load",
    "models",
    "on_ray",
    "probes",
    "steered",
    "study_bias",
    "sweep",
    "trace",
]

# Where each public name lives. They are imported when first asked for: torch and diffusers take seconds, and
# `denoscope --help` should not.
_HOMES = {
    "Direction": "probes.direction",
    "Edit": "editing.edit",
    "Intervention": "probes.intervene",
    "Model": "models.base",
    "Observer": "probes.observe",
    "Prompt": "models.text.prompt",
    "SweepRun": "probes.sweep",
    "Site": "models.site",
    "State": "models.run.state",
    "Step": "models.run.levels",
    "Trace": "probes.trace",
    "When": "models.run.context",
    "attached": "probes.attach",
    "browse_features": "atlas.browsing",
    "compare_models": "comparison.comparing",
    "explain": "explanation.explain",
    "intervening": "probes.intervene",
    "investigate": "investigation.investigate",
    "load": "models.load",
    "on_ray": "cluster",
    "steered": "steering.steered",
    "study_bias": "bias.studying",
    "sweep": "probes.sweep",
    "trace": "probes.trace",
}


def __getattr__(name: str) -> Any:
    if name in ("analysis", "bench", "editing", "models", "probes"):
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'denoscope' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
