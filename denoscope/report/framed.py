"""A page as a widget for notebooks; anywidget is imported here and in steering/widget.py alone."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets


class Framed(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]  # untyped where it is missing
    """A page in a frame of its own; ``picked`` is what was clicked in it last: words, a feature, a site."""

    _esm = (files("denoscope.report") / "embedding.js").read_text()
    html: Any = traitlets.Unicode("").tag(sync=True)
    title: Any = traitlets.Unicode("").tag(sync=True)
    height: Any = traitlets.Int(900).tag(sync=True)
    picked: Any = traitlets.Dict().tag(sync=True)
