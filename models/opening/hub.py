"""Fetch a pipeline from the hub, or from what was fetched before where there is no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from ..errors import DenoscopeError, UsageError
from .folder import INDEX
from .quiet import no_bars

CONFIG = "config.json"
_NETWORK = ("*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model")
"""What a network of transformers is read from; pickles and code stay where they are."""


def fetched(name: str, revision: str | None, variant: str | None, supported: Callable[[str], object]) -> Path:
    """Return the folder of a hub id; its weights are fetched only if its class is supported.

    Args:
        name: ``"owner/name"``.
        revision: branch, tag or commit.
        variant: which of its weights.
        supported: is given the name of the pipeline's class, and raises for one that is not.

    Raises:
        ValueError: if it cannot be fetched; without a network, the error's note says what to do.
    """
    which = {k: v for k, v in {"revision": revision, "variant": variant}.items() if v is not None}
    away = _unreachable(name, revision)
    if away is not None and not isinstance(try_to_load_from_cache(name, INDEX, revision=revision), str):
        raise _absent(
            name, away, "--model FOLDER; or take an embedded model, which needs none: --model emoji"
        )
    offline = {"local_files_only": True} if away else {}
    try:
        at = {"revision": revision} if revision else {}
        index = diffusers.DiffusionPipeline.load_config(name, **at, **offline)
        supported(str(index.get("_class_name")))
        unwanted = {"safety_checker": None} if "safety_checker" in index else {}
        with no_bars():
            return Path(
                diffusers.DiffusionPipeline.download(
                    name, use_safetensors=True, trust_remote_code=False, **which, **offline, **unwanted
                )
            )
    except DenoscopeError:
        raise
    except Exception as error:  # many kinds: no network, no such name, no safetensors
        raise UsageError(f"could not fetch {name!r}: {_first_line(error)}") from error


def fetched_network(name: str) -> Path:
    """Return the folder of a hub id that is one network of transformers with its tokenizer or processor.

    Raises:
        ValueError: if it cannot be fetched; without a network, the error's note says what to do.
    """
    away = _unreachable(name, None)
    if away is not None and not isinstance(try_to_load_from_cache(name, CONFIG), str):
        raise _absent(name, away, "--judge FOLDER")
    try:
        with no_bars():
            found = snapshot_download(name, allow_patterns=list(_NETWORK), local_files_only=away is not None)
    except Exception as error:  # many kinds: no such name, gated, half a folder
        raise UsageError(f"could not fetch {name!r}: {_first_line(error)}") from error
    return Path(found)


def _unreachable(name: str, revision: str | None) -> Exception | None:
    """Why the hub cannot be reached; asked once, where diffusers would try six times in a minute."""
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except HfHubHTTPError:
        return None  # it answers; what it says is told by the fetch itself
    except Exception as error:  # no network, no name server, a proxy, switched off: each has its own
        return error
    return None


def _absent(name: str, away: Exception, give: str) -> UsageError:
    reason = f"the hub cannot be reached ({_first_line(away)})"
    told = UsageError(f"{name!r} is not on this machine, and {reason}")
    told.add_note(f"Fetch it where there is a network (hf download {name}) and give its folder: {give}")
    return told


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
