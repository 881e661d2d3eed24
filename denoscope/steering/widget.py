"""The slider as a widget for notebooks; anywidget is imported here and in report/framed.py alone."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from .page import STYLE, script


class Slider(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]  # untyped where it is missing
    """A slider over strengths; ``shown`` is what the script reads, and ``strength`` the one that it is at."""

    _esm = script()
    _css = STYLE
    shown: Any = traitlets.Dict().tag(sync=True)
    strength: Any = traitlets.Float(0.0).tag(sync=True)
