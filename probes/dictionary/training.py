"""Train a dictionary on what passes through a site while a model samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.fit import fit
from ...models.progress import Progress, showing
from ...models.run.context import When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.canonical import json_hash
from .activations import ActivationStore
from .channels import Channels, Kernel, Kind
from .collecting import collect_activations
from .data import LIKE, Data
from .files import CURVE
from .learning import Autoencoder, Learning, Rows, UnitNormAdam
from .value import Dictionary

log = logging.getLogger("denoscope")
DEAD_AFTER = 10_000_000
"""Rows after which an unused feature is dead (Gao et al. 2024); fewer where the store has fewer."""
MOST = 2**20
"""Features of one dictionary."""
LINES = 20
"""Lines of the record of a training."""
ACTIVATIONS, FITS = "activations", "fits"


@checked
def train_dictionary(  # noqa: PLR0913 - what one run is, and what is learned of it
    model: Model,
    site: Site | str,
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    features: int | None = None,
    k: int = 16,
    store: str | Path | None = None,
    kind: Kind = "state",
    source: Site | str | None = None,
    kernel: Kernel = "position",
    learning: Learning = Learning(),
    when: When = When(),
    batch: int = 32,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Dictionary:
    """Sample, keep what passes through a site, and train a sparse dictionary on it.

    With a store a call that was stopped goes on where it was, and ends with the same bits. Several sites are
    sampled once by ``collect_activations(model, sites, ..., store=store / "activations")``, called before.

    Args:
        model: an opened model.
        site: what is reconstructed.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample.
        features: how many; None is four for each channel.
        k: how many are on in a row.
        store: a folder for activations and checkpoints; None keeps them while this call lasts.
        kind: ``"state"``, ``"update"`` or ``"transcoder"``, as in ``Channels``.
        source: the other site of an update or a transcoder.
        kernel: a row is a ``"position"``, or a whole ``"map"``, whose features are templates.
        learning: selection, biases, auxiliary loss, updates, rate, seed.
        when: which steps and branch.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Returns:
        The dictionary; ``to_frame()`` is the record of its training, and ``record["held_out"]`` what it
        explains of samples that it was not trained on.

    Raises:
        LookupError: for unknown sites.
        ValueError: for sites without channels, more features in a row than there are, a store of something
            else, activations that never change.
        RuntimeError: if the loss is not finite.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.probes import Learning, train_dictionary
    >>> train_dictionary(load(tiny_sd()), "unet/mid.attn.0.0/cross_attn.out", ["a cat"] * 4, seeds=range(4),
    ...                  steps=2, k=2, learning=Learning(updates=3, rows=32))
    Dictionary(unet/mid.attn.0.0/cross_attn.out: 64 features of 16 channels, k 2)
    """
    sized = model.sized(Sampling(**settings).size)
    channels = Channels.of(sized, site, kind=kind, source=source)
    with _folder(store) as home, showing(progress) as show:
        rows = collect_activations(
            model,
            channels.sites,
            prompts,
            seeds=seeds,
            store=home / ACTIVATIONS,
            kernel=kernel,
            when=when,
            batch=batch,
            progress=show,
            **settings,
        )
        return learned(rows, channels, features=features, k=k, how=learning, fits=home / FITS, progress=show)


@contextmanager
def _folder(store: str | Path | None) -> Iterator[Path]:
    if store is not None:
        yield Path(store)
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def learned(
    store: ActivationStore,
    channels: Channels,
    *,
    features: int | None,
    k: int,
    how: Learning,
    fits: Path,
    progress: Progress | None = None,
) -> Dictionary:
    """Train a dictionary on a store; see ``train_dictionary``."""
    if store.kernel == "map":
        channels = replace(channels, grid=tuple(store.about["sites"][str(channels.site)]["grid"]))
    data, levels = Data.of(store, channels, how)
    features = 4 * len(data.made.shift) if features is None else features
    if not 1 <= k <= features <= MOST:
        raise UsageError(
            f"k is {k} of {features} features; it is from 1 to their number, that at most {MOST}"
        )
    n, every = store.n_rows(channels.site), max(1, how.updates // LINES)
    net = Autoencoder(
        data.rows(0, min(LIKE, n)),
        features=features,
        k=k,
        levels=max(1, len(levels)),
        how=how,
        transcoder=channels.kind == "transcoder",
        dead_after=min(DEAD_AFTER, n),
        records=-(-how.updates // every),
    )
    told = {"features": features, "k": k, **asdict(how), "store": json_hash(store.about)}
    about = {**told, "channels": str(channels)}
    held = data.held()
    fit(
        net,
        _loss(net, data, held, every),
        steps=how.updates,
        optimizer=partial(UnitNormAdam, decoder=net.decoder, rate=how.rate),
        schedule=how.factor,
        seed=how.seed,
        about=about,
        folder=fits / json_hash(about)[:16],
        every=max(1, how.updates // 10),
        progress=progress,
    )
    found = dict(zip(CURVE[1:], net.measured(held, data.made.plain), strict=True))
    record = {"held_out": found, "curve": net.record.tolist(), "learning": told}
    return folded(net, data, levels, {**record, "run": dict(store.about["identity"])})


def _loss(net: Autoencoder, data: Data, held: Rows, every: int) -> Callable[[int, torch.Generator], Tensor]:
    """Return the loss of an update, which writes a line of the record every so many updates."""

    def loss(update: int, _: torch.Generator) -> Tensor:
        if update % every == 0:
            line = (update, *net.measured(held, data.made.plain))
            net.record[update // every] = torch.tensor(line, dtype=torch.float64)
            log.info("update %d: loss %.4g, explained %.3f and %.3f, %.3g on, dead %.3f", *line)
        return net.loss(data.batch(update, net.how.rows, net.how.seed))

    return loss


def folded(net: Autoencoder, data: Data, levels: tuple[float, ...], record: Mapping[str, Any]) -> Dictionary:
    """Return what was learned, in terms of plain activations; rows of the decoder have mean length 1."""
    read, made = data.read, data.made
    decoder = net.decoder.detach() @ made.back
    length = decoder.norm(dim=-1).mean()
    threshold = net.threshold
    return Dictionary(
        data.channels,
        encoder=length * net.encoder.detach() @ read.there.mT,
        decoder=decoder / length,
        encoder_bias=length * net.encoder_bias.detach(),
        input_bias=read.plain(net.input_bias.detach()),
        output_bias=made.plain(net.output_bias.detach()),
        k=net.k,
        threshold=None if threshold is None else length * threshold,
        levels=levels,
        model=record["run"]["weights"],
        record=record,
    )
