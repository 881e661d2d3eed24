"""Run a model and keep what passed through chosen sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import checked
from ..models.base import Model, Prompt, State, check_run
from ..models.drawn import Figure, figure
from ..models.errors import NotFoundError, UsageError
from ..models.places.account import Account
from ..models.progress import Progress, showing
from ..models.run.context import CallContext, When
from ..models.run.levels import Step
from ..models.run.sampling import Sampling, SamplingOptions
from ..models.site import Site
from ..models.store.provenance import provenance
from ..models.suggest import near
from .export import load_trace, save_trace, trace_to_xarray
from .guiding.log import GuidanceLog, LogKeeper
from .html import trace_html
from .intervene import Intervention, Probe
from .keep import Keeper, keeper_of

if TYPE_CHECKING:
    import xarray as xr

Reduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Trace(Mapping[Site, Tensor]):
    """What a run left behind: ``trace[site]`` is [step, sample, ...] ([sample, ...] in text encoders).

    Args:
        acts: the kept activations; tensors, or arrays on disk that are read and checked when asked for.
        kept_steps: the steps kept at denoiser sites.
        steps: all steps of the run.
        prompts: the encoded prompts, one for each sample.
        seeds: one for each sample.
        latents: the final latents, [sample, ...].
        about: provenance: model, scheduler, guidance, versions.
        account: which interventions and traced sites met which steps and rows; None for loaded traces.
        axes: names of the axes of one sample, at the sites where they are known and were not reduced.
        samples: which samples of the run the rows of the activations are; None is all, in order.
        guidance: what each part of the guidance added at each step.
    """

    acts: Mapping[Site, Any]
    kept_steps: tuple[Step, ...]
    steps: tuple[Step, ...]
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    latents: Float[Tensor, "sample ..."]
    about: Mapping[str, Any]
    _decode: Callable[[Tensor], Tensor]
    account: Account | None = None
    axes: Mapping[Site, tuple[str, ...]] = field(default_factory=dict)
    samples: tuple[int, ...] | None = None
    guidance: GuidanceLog | None = None

    @checked
    def __getitem__(self, site: Site | str) -> Tensor:
        site = Site(str(site))
        if site not in self.acts:
            raise NotFoundError(f"{site} was not traced; {near(str(site), map(str, self.acts))}")
        value = self.acts[site]
        return value if isinstance(value, Tensor) else value.read()

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site | str) and Site(str(site)) in self.acts

    def __iter__(self) -> Iterator[Site]:
        return iter(self.acts)

    def __len__(self) -> int:
        return len(self.acts)

    def __repr__(self) -> str:
        sizes = f"{len(self.latents)} samples, {len(self.steps)} steps, {len(self.acts)} sites"
        return f"Trace({sizes}, {self.nbytes / 1e6:.1f} MB, {self.about['model']})"

    def _repr_html_(self) -> str:
        return trace_html(self)

    def _ipython_key_completions_(self) -> list[str]:
        return [str(site) for site in self.acts]

    @property
    def nbytes(self) -> int:
        """Bytes of the kept activations; a notebook that displays a trace keeps them alive in ``Out``."""
        return sum(value.nbytes for value in self.acts.values())

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the kept sites: kind, axes of one sample where they are known, shape, MB."""
        rows = [
            (str(site), site.kind, ", ".join(self.axes.get(site, ())), tuple(x.shape), x.nbytes / 1e6)
            for site, x in self.acts.items()
        ]
        return pd.DataFrame(rows, columns=["site", "kind", "axes", "shape", "MB"]).set_index("site")

    def plot(self) -> Figure:
        """Return a figure of the pictures, ``analysis.plots.picture_grid``."""
        return figure("picture_grid", self)

    @checked
    def at(self, site: Site | str, step: Step | int) -> Tensor:
        """Return the activation at one step, [sample, ...].

        Raises:
            LookupError: if that step was not kept.
        """
        index = step.index if isinstance(step, Step) else step
        kept = [s.index for s in self.kept_steps]
        if index not in kept:
            raise NotFoundError(f"step {index} was not kept; there are steps {kept}")
        return self[site][kept.index(index)]

    @cached_property
    def images(self) -> Float[Tensor, "sample ..."]:
        """What the model painted: pictures [sample, 3, height, width] in 0..1, or as its adapter decodes."""
        with torch.no_grad():
            return self._decode(self.latents)

    def to_xarray(self) -> xr.Dataset:
        """Return a labelled dataset: one variable for each site, plus latents, of the samples that were kept.

        The variable of ``unet/mid.attn.0.0/mlp.out`` is ``unet__mid.attn.0.0__mlp.out``, so that NetCDF and
        zarr carry it. Sites share dimensions: step, sample, head, token, channel, ...; those that come in
        several sizes carry their size (``token_64``).
        """
        return trace_to_xarray(self)

    @checked
    def save(self, path: str | Path) -> None:
        """Write the trace to a new folder (a zarr store, which ``xarray.open_zarr`` opens too).

        Raises:
            FileExistsError: if the folder is there already.
            StateError: if another process is writing it.
        """
        save_trace(self, Path(path))

    @staticmethod
    @checked
    def load(path: str | Path, model: Model | None = None) -> Trace:
        """Read a saved trace; pictures need the model that made it.

        What is read is compared with what was written, activations when they are asked for.

        Raises:
            ValueError: if the folder holds no trace, or a damaged one.
        """

        def no_model(_: Tensor) -> Tensor:
            raise UsageError(
                f"the trace {path} was loaded without its model; Trace.load(path, model) decodes pictures"
            )

        found = load_trace(Path(path))
        if model is not None:
            model = model.sized(tuple(found["about"].get("size", ())) or None)  # packed latents do not tell
        return Trace(**found, _decode=model.decode if model else no_model)


@checked
def trace(  # noqa: PLR0913 - what one run is, and what of it is kept
    model: Model,
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    sites: Sequence[Site | str] | Site | str = (),
    when: When = When(),
    interventions: Sequence[Probe] = (),
    reduce: Reduce | None = None,
    dtype: torch.dtype | None = None,
    store: str | Path | None = None,
    on_step: Callable[[State], None] | None = None,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Trace:
    """Generate pictures and keep the activations at some sites; the pictures equal those of a plain run.

    Args:
        model: an opened model.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample.
        sites: what to keep: sites, addresses or globs.
        when: which steps, branch and samples to keep. One branch only.
        interventions: what to change on the way; they act before anything is kept.
        reduce: applied to each activation [sample, ...] as it comes, to keep less of it.
        dtype: number format to keep, for example ``torch.float16``.
        store: a new folder; activations stream there instead of into memory, and ``Trace.load`` reads it.
        on_step: called with each State, for example to decode what is there so far.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Returns:
        A Trace; its activations lie in main memory, wherever the model computes.

    Raises:
        LookupError: for unknown sites.
        ValueError: for runs that cannot be made, and for a ``when`` or an intervention that would never act.
        RuntimeError: an ``AccountError`` for what acts elsewhere or more often than it should, or never.
        FileExistsError: if the store is there already.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> run = trace(load(tiny_sd()), ["a cat"], seeds=[0], steps=2, sites="unet/mid.attn.*/cross_attn.out")
    >>> {str(site): tuple(x.shape) for site, x in run.items()}
    {'unet/mid.attn.0.0/cross_attn.out': (2, 1, 16, 16)}
    """
    prompts = [""] * len(seeds) if prompts is None else prompts
    check_run(len(prompts), seeds)
    how = Sampling(**settings)
    model = model.sized(how.size)
    plan, wanted = model.steps(how), expand(model, sites)
    for each in (when, *(i.when for i in interventions)):
        each.check(len(plan), len(prompts), model.branch_names(how.guidance))
    kept_steps = tuple(s for s in plan if s in _one_branch(when))
    keeper, log = keeper_of(len(kept_steps), dtype, store), LogKeeper()
    positions = {s.index: i for i, s in enumerate(kept_steps)}
    watch = [_watch(site, when, keeper, reduce, positions) for site in wanted]
    with torch.no_grad(), keeper, showing(progress) as show:
        run = model.sample(prompts, seeds=seeds, interventions=[*interventions, *watch], **settings)
        for done, state in enumerate(run, 1):
            keeper.announce()
            log.note(state)
            if on_step:
                on_step(state)
            show(done, len(plan), "sampling")
        found = Trace(
            keeper.kept(),
            kept_steps,
            tuple(plan),
            state.prompts,
            tuple(seeds),
            state.latents,
            provenance(model, **how.described(model), **_acting(model, interventions)),
            model.decode,
            state.account,
            {} if reduce else known_axes(model, wanted),
            when.rows,
            log.result(),
        )
        keeper.complete(found)
    return replace(found, acts=keeper.result())


def _one_branch(when: When) -> When:
    if when.branch is None:
        raise UsageError("a trace keeps one guidance branch; set When(branch='cond') or 'uncond'")
    return when


def known_axes(model: Model, sites: Sequence[Site]) -> dict[Site, tuple[str, ...]]:
    """Return the axes of one sample at each site where they are known."""
    axes = {}
    for site in sites:
        with suppress(LookupError, ValueError):  # an adapter need not know
            axes[site] = model.layout(site).axes
    return axes


def expand(model: Model, sites: Sequence[Site | str] | Site | str) -> list[Site]:
    """Return the sites that sites, addresses or globs speak of; each once, in the order given."""
    given = [sites] if isinstance(sites, (str, Site)) else sites
    found = [s for g in given for s in ([g] if isinstance(g, Site) else model.sites(g))]
    model.places_of(found)
    return list(dict.fromkeys(found))


def _acting(model: Model, interventions: Sequence[Probe]) -> dict[str, Any]:
    found = [i.described for probe in interventions for i in probe.parts(model)]
    return {"interventions": found} if found else {}


def _watch(
    site: Site, when: When, keeper: Keeper, reduce: Reduce | None, positions: Mapping[int, int]
) -> Intervention:
    if site.component.startswith("text_encoder"):
        when = replace(when, steps=None)

    def keep(x: Tensor, context: CallContext) -> None:
        position = None if context.step is None else positions[context.step.index]
        keeper.add(site, position, reduce(x) if reduce else x)

    return Intervention(site, keep, when)
