"""Style words that some cross-attention layers alone can read, and object words that others alone can.

By construction: each layer's keys and values are those of another text. Layers that read styles are given the
prompt without its object, those that read objects the prompt without its style, all others the prompt without
both. So the pictures depend on a word through the planted layers alone, whatever the network is.

Few layers do not paint what all of them did. Therefore values v pass through a small matrix, v + (v - n) A B
with n those of the text without both, which is tuned for some steps to give what the whole network gives for
the whole prompt. No weight is changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ...models.base import Model
from ...models.errors import UsageError
from ...models.fit import fit
from ...models.run.context import CallContext
from ...models.site import Site
from ...probes.intervene import Intervention, Spec
from ...probes.text_states import encoded
from .places import GUIDANCE, STEPS, Planted, Question, lasting

RANK = 8
RATE = 0.03
BATCH = 6
TUNED = 80
"""Steps of tuning."""

Matrices = Mapping[str, Tensor]
"""``NUMBER/down`` [channel, rank] and ``NUMBER/up`` [rank, channel] of the layers that read something."""
Texts = Mapping[str, Tensor]
"""Each text as the denoiser is given it, [token, channel]."""


@dataclass(frozen=True)
class Parts:
    """What is said in the prompts that such a place may be asked: each style with each object.

    Args:
        styles: style words.
        objects: object words.
    """

    styles: tuple[str, ...]
    objects: tuple[str, ...]

    def text(self, style: str = "", thing: str = "thing") -> str:
        """A prompt; without a style or an object where none is given."""
        return f"{f'a {style}' if style else 'an'} emoji of a {thing}"

    def prompts(self) -> dict[str, tuple[str, str]]:
        """What may be asked, and the style and object of each."""
        return {self.text(s, o): (s, o) for s in self.styles for o in self.objects}

    def read(self, model: Model) -> Texts:
        """Encode all prompts, whole and in part."""
        pairs = [("", "thing"), *((s, o) for s in ("", *self.styles) for o in ("thing", *self.objects))]
        return {
            text: prompt.embeds for text, prompt in encoded(model, [self.text(*p) for p in pairs]).items()
        }


@dataclass(frozen=True, eq=False)
class PlantedReading(Planted):
    """Who reads what.

    Args:
        parts: what may be said.
        style: numbers of the layers that read styles, in the order in which they run.
        thing: numbers of those that read objects.
        matrices: what values pass through.
    """

    parts: Parts
    style: tuple[int, ...]
    thing: tuple[int, ...]
    matrices: Matrices

    @contextmanager
    def acting(self, model: Model) -> Iterator[None]:
        """Give each layer its part of the text."""
        texts = self.parts.read(model)
        with lasting(model, reading(model, self.parts, texts, (self.style, self.thing), self.matrices)):
            yield

    def stored(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The matrices, and who reads what."""
        said = {"styles": list(self.parts.styles), "objects": list(self.parts.objects)}
        return self.matrices, {**said, "style": list(self.style), "thing": list(self.thing)}

    @classmethod
    def restored(
        cls,
        model: str,
        base: str,
        questions: tuple[Question, ...],
        tensors: Mapping[str, Tensor],
        how: Mapping[str, Any],
    ) -> PlantedReading:
        """As ``stored`` left it."""
        parts = Parts(tuple(how["styles"]), tuple(how["objects"]))
        return cls(model, base, questions, parts, tuple(how["style"]), tuple(how["thing"]), dict(tensors))


def layers(model: Model) -> list[Site]:
    """Return the cross-attentions through which the denoiser reads text, in the order in which they run."""
    return [Site(str(s)) for s in model.sites(f"{model.input_site.component}/**/cross_attn.out")]


def reading(
    model: Model,
    parts: Parts,
    texts: Texts,
    heard: tuple[Sequence[int], Sequence[int]],
    matrices: Matrices,
) -> list[Intervention]:
    """Return what gives each layer its part of the text; differentiable in the matrices.

    Args:
        model: an opened model.
        parts: what may be said.
        texts: of ``parts.read``.
        heard: numbers of the layers that read styles, and of those that read objects; none in both.
        matrices: what values pass through.
    """
    made = []
    for i, layer in enumerate(layers(model)):
        own = {
            text: parts.text(style if i in heard[0] else "", thing if i in heard[1] else "thing")
            for text, (style, thing) in parts.prompts().items()
        }
        for kind in ("k_proj", "v_proj"):
            site = Site(str(layer).replace("cross_attn.out", f"cross_attn.{kind}"))
            linear = _linear(model, site)
            given = {text: F.linear(texts[t], linear.weight, linear.bias) for text, t in own.items()}
            if kind == "v_proj" and f"{i}/up" in matrices:
                nothing = F.linear(texts[parts.text()], linear.weight, linear.bias)
                down, up = (matrices[f"{i}/{name}"].to(nothing) for name in ("down", "up"))
                given = {text: v + (v - nothing) @ down @ up for text, v in given.items()}
            made.append(_given(site, given))
    return made


def _given(site: Site, values: Mapping[str, Tensor]) -> Intervention:
    """What a layer makes of its text, for each prompt [token, channel]."""

    def fn(x: Tensor, context: CallContext) -> Tensor:
        texts = [p.text for p in context.prompts]
        unknown = [t for t in texts if t not in values]
        if unknown:
            raise UsageError(
                f"this planted place cannot read {unknown[0]!r}; ask one of {', '.join(map(repr, values))}"
            )
        return torch.stack([values[t] for t in texts]).to(x)

    spec = Spec("planted reading", {text: value.detach() for text, value in values.items()})
    return Intervention(site, fn, spec=spec)


def untuned(model: Model, heard: Sequence[int], seed: int) -> dict[str, Tensor]:
    """Return matrices that change nothing, to be tuned."""
    source, made = torch.Generator().manual_seed(seed), dict[str, Tensor]()
    for i in heard:
        site = Site(str(layers(model)[i]).replace("cross_attn.out", "cross_attn.v_proj"))
        width = _linear(model, site).out_features
        made[f"{i}/down"] = torch.randn(width, RANK, generator=source) / width**0.5
        made[f"{i}/up"] = torch.zeros(RANK, width)
    return made


def tune(
    model: Model, parts: Parts, heard: tuple[Sequence[int], Sequence[int]], *, seed: int, steps: int = TUNED
) -> dict[str, Tensor]:
    """Return matrices with which the network predicts what it does when all layers read all.

    The noisy latents are those of its own runs of the place's prompts.
    """
    texts, asked = parts.read(model), list(parts.prompts())
    with torch.no_grad():
        prompts = encoded(model, asked)
        read = [prompts[t] for t in asked]
        states = list(model.sample(read, seeds=[seed] * len(read), steps=STEPS, guidance=GUIDANCE))
    shown = [(s, row) for s in states for row in range(len(read))]
    trained = {n: t.requires_grad_() for n, t in untuned(model, [*heard[0], *heard[1]], seed).items()}

    def loss(step: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001  # as fit calls it
        some = random.Random(f"{seed} {step}").sample(shown, BATCH)
        given = model.denoise(
            torch.stack([s.model_input[row] for s, row in some]),
            [s.step for s, _ in some],
            [read[row] for _, row in some],
            interventions=reading(model, parts, texts, heard, trained),
        )
        return (given - torch.stack([s.outputs["cond"][row] for s, row in some])).square().mean()

    fit(trained, loss, steps=steps, optimizer=partial(torch.optim.Adam, lr=RATE), seed=seed)
    return {name: t.detach().half() for name, t in trained.items()}


def _linear(model: Model, site: Site) -> nn.Linear:
    module = model.module(site)
    if not isinstance(module, nn.Linear):
        raise UsageError(f"{site} is {type(module).__name__}, no linear layer; plant in a UNet without LoRAs")
    return module
