"""A sparse dictionary over the channels of a site, as a value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.adapter import Adapter
from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.errors import StateError, UsageError
from ...models.html import panel, table
from ...models.run.levels import Step
from ...models.site import Site
from ...models.store.canonical import json_hash
from ...models.store.fingerprint import fingerprint, network_hash
from ..direction import Direction
from . import files
from .acting import DictionaryEdit, acting
from .channels import Channels
from .codes import Codes, above, joined, top_k
from .parameters import fitting, mixtures

CHUNK = 8192
"""Rows whose pre-activations are in memory at once while encoding."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder, or a transcoder, over the channels of one site.

    ``z = top_k(W_e (x - b_in) + b_e)``, negative values 0, and ``x' = W_d z + b_out``. Which of the published
    forms it is, and whether it was trained on whitened activations, is in the numbers: see
    ``docs/dictionaries.md``. Encoding and decoding are in float32 and flow gradients.

    Args:
        channels: which activations.
        encoder: W_e, [feature, channel in].
        decoder: W_d transposed, [feature, channel]: what a feature of strength 1 adds.
        encoder_bias: b_e, [level, feature]; one level where steps do not count.
        input_bias: b_in, [level, channel in].
        output_bias: b_out, [level, channel].
        k: how many features are on in a row; at most, or with a threshold in the mean of training.
        threshold: of each feature, in place of the k largest (JumpReLU; what batch top-k becomes).
        levels: noise level sigma of each level, noisiest first; empty where steps do not count. Between
            levels biases are interpolated.
        model: fingerprint of the weights that it was trained on; None is not known.
        record: how it was trained and what came out; JSON.

    Raises:
        ValueError: for shapes that do not fit together and values that are not finite.

    >>> import torch
    >>> from denoscope.probes import Channels, Dictionary
    >>> square = Dictionary(Channels(Site("unet/mid.attn.0.0/cross_attn.out"), ("token", "channel")),
    ...     torch.eye(2), torch.eye(2), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2), k=1)
    >>> square.decode(square.encode(torch.tensor([[[3.0, 2.0], [-1.0, 1.0]]])))
    tensor([[[3., 0.],
             [0., 1.]]])
    """

    channels: Channels
    encoder: Float[Tensor, "feature channel_in"]
    decoder: Float[Tensor, "feature channel"]
    encoder_bias: Float[Tensor, "level feature"]
    input_bias: Float[Tensor, "level channel_in"]
    output_bias: Float[Tensor, "level channel"]
    k: int
    threshold: Float[Tensor, " feature"] | None = None
    levels: tuple[float, ...] = ()
    model: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, tensor in fitting(self.tensors(), len(self.levels)).items():
            object.__setattr__(self, name, tensor)
        n, d, d_in = *self.decoder.shape, self.encoder.shape[1]
        if not 1 <= self.k <= n:
            raise UsageError(f"k is {self.k}; it is from 1 to {n}, the number of features")
        if self.channels.kind != "transcoder" and d_in != d:
            raise UsageError(f"it encodes {d_in} channels and decodes {d}; only a transcoder may differ")
        falling = all(a >= b >= 0 for a, b in zip((inf, *self.levels), self.levels, strict=False))
        if self.levels and not (self.channels.has_steps and falling):
            raise UsageError(f"levels are {self.levels}; they fall from the noisiest, at sites with steps")

    # what it is ---------------------------------------------------------------------------------------

    @property
    def site(self) -> Site:
        """Where it acts."""
        return self.channels.site

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self.decoder)

    def __len__(self) -> int:
        return self.width

    def __repr__(self) -> str:
        kind = "" if self.channels.kind == "state" else f", {self.channels.kind} from {self.channels.source}"
        how = f"k {self.k}" if self.threshold is None else f"thresholds, k {self.k} in the mean"
        steps = f", {len(self.levels)} levels" if self.levels else ""
        size = f"{self.width} features of {self.decoder.shape[1]} channels"
        return f"Dictionary({self.site}{kind}: {size}, {how}{steps})"

    def _repr_html_(self) -> str:
        held = self.record.get("held_out", {})
        return panel(repr(self), table(("on held-out rows", "value"), list(held.items())))

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name."""
        names = ("encoder", "decoder", "encoder_bias", "input_bias", "output_bias", "threshold")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @cached_property
    def digest(self) -> str:
        """A hash of what it computes."""
        plain = [str(self.channels), self.k, list(map(str, self.levels))]
        return json_hash([network_hash(self.tensors()), *plain])

    def to_frame(self) -> pd.DataFrame:
        """Return the training as a table: update, loss, explained variances, l0, share of dead features."""
        return pd.DataFrame(self.record.get("curve", []), columns=files.CURVE)

    @checked
    def direction(self, feature: int) -> Direction:
        """Return what one feature of strength 1 adds, as a direction at the site.

        Raises:
            ValueError: for a feature that is not there, and where features are whole maps.
        """
        if not 0 <= feature < self.width or self.channels.kernel == "map":
            raise UsageError(
                f"feature is {feature}; a direction is one of 0 to {self.width - 1}, of positions"
            )
        return Direction(self.site, self.decoder[feature])

    # encoding and decoding ----------------------------------------------------------------------------

    @checked
    def encode(self, x: Tensor, steps: Step | Sequence[Step] | None = None) -> Codes:
        """Return the sparse codes of activations.

        Args:
            x: [..., *axes], as traced: [sample, ...] or [step, sample, ...]. What is encoded is ``kind``'s
                business: for an update the difference, for a transcoder the activation at the source.
            steps: the step of all, or one for each of the first axis; asked for where levels count.

        Raises:
            ValueError: for another width, and for steps that are missing or beyond the levels.
        """
        rows, widest = self.channels.rows(x), self.encoder.shape[1]
        if rows.shape[-1] != widest:
            raise UsageError(
                f"the dictionary reads {widest} channels, the activation {tuple(x.shape)} has "
                f"{rows.shape[-1]} on axes {('...', *self.channels.axes)}"
            )
        groups = rows if isinstance(steps, Sequence) else rows[None]
        mixed = mixtures(self.levels, steps, len(groups))
        with torch.autocast(
            rows.device.type, enabled=False
        ):  # which features are on hangs on small differences
            parts = [
                self._encoded(chunk, weights)
                for group, weights in zip(groups, mixed, strict=True)
                for chunk in group.reshape(-1, widest).split(CHUNK)
            ]
        return joined(parts, tuple(rows.shape[:-1]))

    @checked
    def decode(self, codes: Codes | Tensor, steps: Step | Sequence[Step] | None = None) -> Tensor:
        """Return what codes stand for, [..., *axes]: ``W_d z + b_out``.

        Args:
            codes: from ``encode``; or all features, [..., *positions, feature].
            steps: as in ``encode``.

        Raises:
            ValueError: for codes of another width.
        """
        if isinstance(codes, Tensor):
            width, shape = codes.shape[-1] if codes.ndim else 0, codes.shape[:-1]
        else:
            width, shape = codes.width, torch.Size(codes.shape)
        if width != self.width:
            raise UsageError(f"codes of {width} features were given; the dictionary has {self.width}")
        flat = (
            codes.float() @ self.decoder.to(codes.device)
            if isinstance(codes, Tensor)
            else codes.times(self.decoder.to(codes.values.device))
        )
        several = isinstance(steps, Sequence)
        mixed = mixtures(self.levels, steps, shape[0] if several else 1).to(flat)
        bias = mixed @ self.output_bias.to(flat)
        rest = len(shape) - 1 if several else len(shape)
        rows = flat.reshape(*shape, -1) + bias.reshape(-1, *(1,) * rest, bias.shape[1])[... if several else 0]
        return self.channels.restored(rows)

    def _encoded(self, rows: Tensor, weights: Tensor) -> Codes:
        to = rows.device
        bias_in, bias = weights @ self.input_bias, weights @ self.encoder_bias
        pre = (rows.float() - bias_in.to(to)) @ self.encoder.to(to).mT + bias.to(to)
        return top_k(pre, self.k) if self.threshold is None else above(pre, self.threshold.to(to))

    # in a model ---------------------------------------------------------------------------------------

    @checked
    def edit(
        self,
        features: int | Sequence[int],
        *,
        scale: float | Sequence[float] | None = None,
        add: float | Sequence[float] | None = None,
        set: float | Sequence[float] | None = None,  # noqa: A002 - the word for it
        steps: Collection[int] | None = None,
        branch: str | None = "cond",
    ) -> DictionaryEdit:
        """Return an intervention that changes some features at all positions, and nothing else.

        ``x + (z' - z) W_d``: what the dictionary does not explain stays as it is, and so does the bias.
        Where nothing changes (``scale=1``, ``add=0``) the activation is left alone, to the bit.

        Args:
            features: which.
            scale: z' is so many times z; one number, or one for each feature.
            add: z' is so much more than z, wherever it is on or off.
            set: z' is this, wherever it is on or off.
            steps: indices of the steps that it acts in; None is all.
            branch: guidance branch; None is all.

        Raises:
            ValueError: for features that are not there or named twice, strengths that are not finite, and
                unless exactly one of scale, add, set is given. In a run: for a model that the dictionary is
                not of, another width, and steps beyond the run or beyond the levels.
        """
        return acting(self, features, {"scale": scale, "add": add, "set": set}, steps, branch)

    def check(self, model: Adapter) -> None:
        """Raise StateError, LookupError or UsageError if it was not trained on a model as it is now."""
        self.channels.check(model)
        if self.model is not None and isinstance(model, Model) and fingerprint(model) != self.model:
            raise StateError(
                f"the dictionary at {self.site} was trained on other weights than {model.name} has now "
                f"({self.model[:8]}, not {fingerprint(model)[:8]}); open those, take edits and adapters off, "
                "or say that it is meant: dictionary.transferred(model)"
            )

    @checked
    def transferred(self, model: Model) -> Dictionary:
        """Return the same dictionary for another model's weights, whose features may mean something else.

        Raises:
            LookupError: if that model has no such site.
            ValueError: if it has other axes there.
        """
        self.channels.check(model)
        return replace(self, model=fingerprint(model))

    # on disk ------------------------------------------------------------------------------------------

    @checked
    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with the rest as JSON in its header; it is whole, or not there.

        Raises:
            OSError: if it cannot be written; an older file stays as it was.
        """
        about = {"k": self.k, "levels": [_text(s) for s in self.levels], "model": self.model}
        files.write(Path(path), self.tensors(), self.channels, {**about, "record": dict(self.record)})

    @staticmethod
    @checked
    def load(path: str | Path) -> Dictionary:
        """Read a dictionary.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, or something else than a dictionary.
        """
        tensors, channels, about = files.read(Path(path))
        levels = tuple(float(s) for s in about["levels"])
        return Dictionary(
            channels, **tensors, k=about["k"], levels=levels, model=about["model"], record=about["record"]
        )


def _text(sigma: float) -> float | str:
    return sigma if isfinite(sigma) else str(sigma)
