"""Where: the name of one place in a network, independent of any loaded weights.

Grammar: ``component/block/kind[@stream]``, for example ``unet/up.1.attn.2.0/cross_attn.out`` or
``text_encoder/layer.0/self_attn.out``. Step, guidance branch, sample, head and token are coordinates of
the tensor found there, never part of its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import NotFoundError, UsageError
from .suggest import near

_ADDRESS = re.compile(r"(?P<component>[^/@]+)/(?P<block>[^/@]+)/(?P<kind>[^/@]+)(@(?P<stream>[^/@]+))?")


@dataclass(frozen=True, order=True)
class Site:
    """A named place in a network: frozen, ordered, hashable, printable.

    Args:
        address: ``component/block/kind[@stream]``.

    Raises:
        ValueError: if the address does not follow the grammar.

    >>> Site("unet/mid.attn.0.0/cross_attn.out").kind
    'cross_attn.out'
    """

    address: str

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not _ADDRESS.fullmatch(self.address):
            raise UsageError(
                f"{self.address!r} is not a site: write component/block/kind[@stream], "
                f"like 'unet/mid.attn.0.0/cross_attn.out'"
            )

    def __str__(self) -> str:
        return self.address

    def _part(self, name: str) -> str:
        match = _ADDRESS.fullmatch(self.address)
        return (match and match[name]) or ""

    @property
    def component(self) -> str:
        """The part of the pipeline: ``unet``, ``text_encoder``, ..."""
        return self._part("component")

    @property
    def block(self) -> str:
        """The block inside the component: ``down.0.attn.1.0``, ``layer.3``, ..."""
        return self._part("block")

    @property
    def kind(self) -> str:
        """What is found there: ``resid.pre``, ``cross_attn.probs``, ``mlp.out``, ..."""
        return self._part("kind")

    @property
    def stream(self) -> str:
        """The token stream (``img`` or ``txt``) where a block carries two, else the empty string."""
        return self._part("stream")


def match_sites(pattern: str, sites: Sequence[Site]) -> list[Site]:
    """Return the sites whose address matches a glob, in network order.

    ``*`` stands for anything inside one of the three parts, ``**`` for anything at all.

    Raises:
        LookupError: if nothing matches; the message names near misses.
    """
    regex = _glob(pattern)
    found = [site for site in sites if regex.fullmatch(site.address)]
    if not found:
        raise NotFoundError(f"no site matches {pattern!r}; {near(pattern, (s.address for s in sites))}")
    return found


def _glob(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern)
    return re.compile(escaped.replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
