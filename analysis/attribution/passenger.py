"""Concepts that ride through joint attention: they read the picture, and nothing reads them.

ConceptAttention (Helbling et al., ICML 2025, arXiv:2502.04320). Rows c of a concept go through the text's
side of each double block beside the run (Stable Diffusion 3, FLUX.1), with k_x, v_x and o_x the picture's:

    o_c = softmax( q_c [k_x ; k_c]^T / sqrt(d) ) [v_x ; v_c],    score[j, i] = o_x[i] . o_c[j]

o is what attention gives, before its output projection; a score is the sum over heads, which is that of the
heads joined. FLUX.1's single blocks have one set of weights for both streams, and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.errors import StateError
from ...models.places.attention import attention_probs
from ...models.places.text_side import embedded_text, entering, leaving, text_qkv, without_pooled
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.observe import Observer

Pooled: TypeAlias = Literal["prompt", "zero"]
Take: TypeAlias = Callable[[Site, Tensor, CallContext], None]
"""Is given a site, its scores [row, head, concept, place of the picture], and the call."""


def double_blocks(model: Model) -> list[Site]:
    """Return the joint attentions with weights of the text's own, as their probabilities; perhaps none."""
    kinds = ("joint_attn.probs",)
    return [s for s in model.places() if s.kind in kinds and s.block.startswith("block.")]


@dataclass(frozen=True)
class Passengers:
    """Concept tokens in one model.

    Args:
        model: with joint attention.
        embeds: encoded tokens of all concepts.
        concepts: for each concept which of the tokens are its own.
        pooled: the pooled text by which the concepts' norms are scaled: the prompt's, or zeros.
    """

    model: Model
    embeds: Float[Tensor, "token channel"]
    concepts: Sequence[Sequence[int]]
    pooled: Pooled = "prompt"
    riding: dict[Any, Tensor] = field(default_factory=dict)

    def probes(self, sites: Sequence[Site], take: Take, when: When) -> list[Observer]:
        """Return what carries the concepts through the blocks, as far as the last of some sites."""
        every = double_blocks(self.model)
        last = max(every.index(s) for s in sites)
        return [
            self._observer(site, i == 0, take if site in sites else None, when)
            for i, site in enumerate(every[: last + 1])
        ]

    def _observer(self, site: Site, first: bool, take: Take | None, when: When) -> Observer:
        stem = str(site).removesuffix("joint_attn.probs")
        seen = {"temb": f"{stem}adaln.temb", **{p: f"{stem}joint_attn.{p}" for p in ("k", "v", "z")}}
        block = self.model.module(f"{stem}resid.pre@img")
        return Observer(seen, partial(self._pass, site, block, first, take), when)

    def _pass(  # noqa: PLR0917  # one block
        self,
        site: Site,
        block: Any,
        first: bool,
        take: Take | None,
        parts: Mapping[str, Tensor],
        context: CallContext,
    ) -> None:
        call = (context.branch, context.step)
        if first:
            embedded = embedded_text(self.model.components[context.part], self.embeds.to(parts["temb"]))
            self.riding[call] = embedded.expand(len(parts["temb"]), -1, -1)
        text, temb = self.riding.pop(call), self._told(parts["temb"], context)
        normed, gates = entering(block, text, temb)
        q, k, v = text_qkv(block.attn, normed)
        picture = self.model.layout(site).picture
        there = {p: parts[p][:, :, picture] for p in ("k", "v", "z")}
        probs = attention_probs(q, torch.cat([there["k"], k.to(there["k"])], 2))
        z = probs @ torch.cat([there["v"], v.to(there["v"])], 2)
        if take is not None:
            scores = z.float() @ there["z"].float().transpose(-1, -2)
            take(site, torch.stack([scores[:, :, some].mean(2) for some in self.concepts], 2), context)
        if gates is not None:
            self.riding[call] = leaving(block, text, z, gates)

    def _told(self, temb: Tensor, context: CallContext) -> Tensor:
        if self.pooled == "prompt":
            return temb
        read = [p.pooled for p in context.prompts if isinstance(p, Prompt)]
        pooled = [p for p in read if p is not None]
        if len(pooled) != len(temb):
            raise StateError(f"the prompts of {self.model.name} have no pooled text; take pooled='prompt'")
        return without_pooled(self.model.components[context.part], temb, torch.stack(pooled))
