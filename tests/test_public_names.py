"""The public names. A change here is a change for users: it belongs into CHANGELOG.md as well."""

import subprocess
import sys

import pytest

import denoscope

NAMES = [
    "Direction",
    "Edit",
    "Intervention",
    "Model",
    "Observer",
    "Prompt",
    "Run",
    "Site",
    "State",
    "Step",
    "Trace",
    "When",
    "analysis",
    "attached",
    "editing",
    "intervening",
    "load",
    "models",
    "probes",
    "sweep",
    "trace",
]


def test_the_public_names_are_these() -> None:
    assert sorted(denoscope.__all__) == NAMES
    assert set(dir(denoscope)) >= {*NAMES, "__version__"}


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(denoscope, name).__doc__


def test_a_wrong_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'tracer'.*trace"):
        _ = denoscope.tracer  # type: ignore[attr-defined]


def test_the_four_folders_are_not_top_level_packages() -> None:
    """Installed, nothing but denoscope appears; a user's own models/ cannot clash with ours."""
    code = "import sys, denoscope.models; print('models' in sys.modules, denoscope.models.__name__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "denoscope.models"]


def test_importing_denoscope_is_cheap_and_silent() -> None:
    """Heavy libraries are imported when first needed; the command line's help must not wait for them."""
    heavy = ["torch", "diffusers", "transformers", "nnsight", "captum", "plotly", "matplotlib", "ray"]
    code = f"import sys, denoscope; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
