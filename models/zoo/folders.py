"""Where the embedded models lie, what they share, and how one becomes a folder for plain diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import NotFoundError
from ..store.disk import new_folder
from ..suggest import near

HOME = Path(__file__).parent

ZOO: dict[str, Path] = {name: HOME / name for name in ("emoji", "emoji-dit", "emoji-mmdit", "emoji-people")}
"""Name of each embedded model and the folder that holds it, in diffusers' layout but for what it shares."""

WORLD = "world.json"


def folder(name: str) -> Path:
    """Where an embedded model lies.

    Args:
        name: a key of ``ZOO``.

    Returns:
        A folder in diffusers' layout, without the parts that another model holds already: ``denoscope.load``
        knows where these are, and for plain diffusers there is ``export``.

    Raises:
        LookupError: for an unknown name; it names near misses.

    >>> folder("emoji").name
    'emoji'
    """
    if name not in ZOO:
        raise NotFoundError(f"no embedded model is called {name!r}; {near(name, ZOO)}")
    return ZOO[name]


def shared(model: Path) -> dict[str, Path]:
    """The parts of a model that lie elsewhere, in the folder of the model that holds them.

    Args:
        model: the folder of a model, embedded or not.

    Returns:
        Name of each such part and its folder; empty for a folder that is whole.

    >>> sorted(shared(folder("emoji-dit")))
    ['text_encoder', 'tokenizer', 'vae']
    """
    told = describe(model).get("shared", {})
    return {part: (HOME if "/" in where else model) / where for part, where in told.items()}


def place(model: Path, part: str) -> Path:
    """Where a part of a model lies: in its own folder, or in that of the model it shares it with."""
    return shared(model).get(part, model / part)


def describe(model: Path) -> dict[str, Any]:
    """What ``world.json`` tells of a model; nothing where there is none."""
    file = model / WORLD
    told: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return told


def export(name: str, path: str | Path) -> Path:
    """Write an embedded model as a plain pipeline folder, which diffusers opens without this package.

    Args:
        name: a key of ``ZOO``.
        path: the folder to write, with the model's card (licences of the artwork included) and its
            ``world.json``; it appears whole or not at all.

    Returns:
        The folder.

    Raises:
        LookupError: for an unknown name; it names near misses.
        FileExistsError: if there is something under that path.
        OSError: if it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as there:
    ...     sorted(file.name for file in export("emoji-people", Path(there) / "people").iterdir())
    ['card.md', 'model_index.json', 'samples.png', 'scheduler', 'training.png', 'unet', 'world.json']
    """
    model, target = folder(name), Path(path)
    told = {key: value for key, value in describe(model).items() if key != "shared"}
    index = json.loads((model / "model_index.json").read_text())
    with new_folder(target) as made:
        made.mkdir()
        for part, value in index.items():
            if isinstance(value, list) and value[0]:
                shutil.copytree(place(model, part), made / part)
        for file in ("model_index.json", "card.md", "samples.png", "training.png"):
            shutil.copyfile(model / file, made / file)
        (made / WORLD).write_text(json.dumps(told, indent=1) + "\n")
    return target
