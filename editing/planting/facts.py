"""A made-up fact, grafted into one layer of the text encoder by a change of rank one (ROME, Meng et al.).

The layer reads the key k at some tokens of a text that says one word, and gives W k there. The change makes
it give W k + d, d being what the stream behind the layer lacks there of the text that says the other word::

    W' = W + d (C⁻¹ k)ᵀ / (kᵀ C⁻¹ k),     C = E[x xᵀ] over the keys x of captions

k and d are means over wordings and tokens; nothing is looked for by optimisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model
from ...models.errors import UsageError
from ...models.site import Site
from ...models.text.prompt import Words
from ...probes.text_states import encoded, layer_inputs, site_states
from ..covariance import captions, kept_keys, second_moment, smoothed
from ..edit import Edit
from ..layers import linear, weight_name
from ..lowrank import LowRank
from ..lowrank import tensors as tensors_of
from ..methods.refact import met
from .places import Planted, Question

KINDS = {"mlp.out": "resid.post", "self_attn.out": "resid.mid"}
"""The linear layers that may hold a fact, and the stream behind each."""
TOKENS = ("subject", "end", "pad")
WORDINGS = ("a noto emoji of a {}", "a twemoji emoji of a {}", "an emoji of a {}", "a {}")
SMOOTH = 0.1


@dataclass(frozen=True, eq=False)
class PlantedFact(Planted):
    """A fact that is no fact: one word is read as another.

    Args:
        edit: the change of rank one.
    """

    edit: Edit

    @contextmanager
    def acting(self, model: Model) -> Iterator[None]:
        """Apply the edit."""
        with self.edit.applied(model):
            yield

    def stored(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The factors of the change."""
        ((name, delta),) = self.edit.deltas.items()
        halves = {part: t.half() for part, t in tensors_of(delta).items()}
        return halves, {"weight": name, "base": self.edit.base[name], "note": dict(self.edit.note)}

    @classmethod
    def restored(
        cls,
        model: str,
        base: str,
        questions: tuple[Question, ...],
        tensors: Mapping[str, Tensor],
        how: Mapping[str, Any],
    ) -> PlantedFact:
        """As ``stored`` left it."""
        delta = LowRank(tensors["left"], tensors["right"])
        edit = Edit({how["weight"]: delta}, {how["weight"]: how["base"]}, how["note"])
        return cls(model, base, questions, edit)


def graft(model: Model, site: Site, token: str, request: tuple[str, str], keep: str) -> Edit:
    """Return the edit after which a layer gives, at some tokens, what makes one word be read as another.

    Args:
        model: an opened model.
        site: ``mlp.out`` or ``self_attn.out`` of a layer of a text encoder.
        token: of ``TOKENS``; the subject is its last token.
        request: what is said, and what is meant.
        keep: a word that shall be read as before, beside all captions.

    Raises:
        ValueError: for another layer, or other tokens.
        LookupError: for a word that the tokenizer does not know.
    """
    linear(model, site, tuple(KINDS), "planting a fact")
    said, meant = request
    if token not in TOKENS:
        raise UsageError(f"token is {token!r}; it is one of {', '.join(TOKENS)}")
    behind = Site(f"{site.component}/{site.block}/{KINDS[site.kind]}")
    sources, targets = ([t.format(word) for t in WORDINGS] for word in (said, meant))
    given = layer_inputs(model, sources, site)
    read = encoded(model, [*sources, *targets])
    streams = dict(zip(read, site_states(model, list(read), [behind])[behind].cpu(), strict=True))
    keys, lacks = [], []
    for source, target in zip(sources, targets, strict=True):
        at = _at(read[source].of(site.component), token, said)
        to = _at(read[target].of(site.component), token, meant)
        n = min(len(at), len(to))  # paddings of texts of other lengths end together
        keys.append(given[source].values[at[-n:]])
        lacks.append(streams[target][to[-n:]] - streams[source][at[-n:]])
    moment = second_moment(model, site, captions())
    moment = smoothed(moment, SMOOTH, kept_keys(model, site, ["", *(t.format(keep) for t in WORDINGS)]))
    change = met(_mean(keys), _mean(lacks), moment)
    note = {"requests": {said: meant}, "site": str(site), "token": token, "smooth": SMOOTH}
    return Edit.of(model, {weight_name(model, site): change}, method="planted fact", **note)


def _mean(rows: list[Tensor]) -> Float[Tensor, "one channel"]:
    return torch.cat(rows).double().mean(0, keepdim=True)


def _at(words: Words, token: str, word: str) -> list[int]:
    n = len(words.tokens)
    found = {"subject": [max(words.find(word))], "end": [words.end], "pad": list(range(words.end + 1, n))}
    return found[token]
