"""Widgets for notebooks, which need an extra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..models.arguments import checked
from ..models.errors import StateError, UsageError


def widget(make: Callable[[], Any], what: str, instead: str) -> Any:
    """Return a widget.

    Args:
        make: imports and makes it.
        what: what it is, for the error.
        instead: what works without.

    Raises:
        RuntimeError: without anywidget, which the extra "notebooks" brings.
    """
    try:
        return make()
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "traitlets"):
            raise
        raise StateError(
            f"{what} in a notebook needs anywidget: pip install 'denoscope[notebooks]'; {instead} works "
            "without"
        ) from error


class WithPage:
    """A result that is a page as well; in a cell of a notebook it is a widget."""

    def _as_page(self) -> tuple[str, str, str]:
        """The page; what it is, for those who do not see it; what works without anywidget."""
        raise NotImplementedError

    @checked
    def widget(self, height: int = 900) -> Any:
        """Return the page as a widget for notebooks: the same file; ``picked`` is what was clicked last.

        Args:
            height: of the frame, in pixels.

        Raises:
            ValueError: for a height below 100.
            RuntimeError: without anywidget, which the extra "notebooks" brings.
        """
        html, title, instead = self._as_page()
        return framed(html, title, height, instead)


def framed(html: str, title: str, height: int, instead: str) -> Any:
    """Return a page as a widget; ``picked`` is what was clicked in it last.

    Args:
        html: the page.
        title: what it is, for those who do not see it.
        height: of the frame, in pixels.
        instead: what works without anywidget.

    Raises:
        ValueError: for a height below 100.
        RuntimeError: without anywidget.
    """
    if height < 100:
        raise UsageError(f"height is {height} pixels; give 100 or more")

    def make() -> Any:
        from .framed import Framed  # noqa: PLC0415  # anywidget is an extra

        return Framed(html=html, title=title, height=height)

    return widget(make, "a page", instead)
