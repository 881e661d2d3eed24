"""The model under study: what every family's adapter can do, once it is filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from .adapter import Adapter
from .arguments import checked
from .errors import NotFoundError, StateError
from .guidance.cfg import CFG
from .guidance.value import Guidance
from .html import model_html
from .images import checked_images
from .places.intervention import Probe
from .run import levels, prediction, sampling
from .run.levels import Step
from .run.noising import generators_of, noised_start
from .run.prediction import Steps
from .run.sampling import Sampling, SamplingOptions, as_guidance, begin_run, check_run, sample
from .run.state import SamplerState, State
from .site import Site, match_sites
from .sites import Sites
from .text.prompt import Prompt


class Model(Adapter):
    """A generator, opened: watch, change and continue its runs. Families fill in the ``Adapter``."""

    def _repr_html_(self) -> str:
        return model_html(self)

    # places -------------------------------------------------------------------------------------------

    @checked
    def sites(self, pattern: str = "**") -> Sites:
        """Return the sites whose address matches a glob, as a sequence that shows itself as a table.

        Raises:
            LookupError: if nothing matches; the message names near misses.
        """
        return Sites(match_sites(pattern, list(self.places())), self)

    def reading_sites(self) -> list[Site]:
        """Return the attention probabilities through which the denoiser reads the prompt.

        Raises:
            LookupError: if it reads none: it has neither cross-attention nor joint attention.
        """
        part = self.input_site.component
        kinds = ("first_cross_attn.probs", "cross_attn.probs", "joint_attn.probs")
        found = [s for s in self.places() if s.component == part and s.kind in kinds]
        if not found:
            raise NotFoundError(
                f"{self.name} reads no words while it paints: "
                f"its {part} has neither cross-attention nor joint attention"
            )
        return found

    @checked
    def picture_and_text(self, site: Site, tokens: int) -> tuple[slice, int]:
        """Return which queries of attention are the picture's, and at which key the text begins."""
        if "cross_attn" in site.kind:
            return slice(None), 0
        if self.joint_order[0] == "img":
            return slice(None, -tokens), -tokens
        return slice(tokens, None), 0

    # steps --------------------------------------------------------------------------------------------

    @checked
    def steps(self, run: int | Sampling) -> list[Step]:
        """Return the steps of a run, of so many or of a Sampling's: one for each call of the network."""
        how = run if isinstance(run, Sampling) else Sampling(steps=run)
        return levels.steps_of(self._begin(how.schedule))

    @property
    def levels(self) -> list[Step]:
        """The noise levels that the network was trained on, noisiest first; they are no steps of a run."""
        return levels.trained_levels(self.scheduler)

    @checked
    def step_at(
        self, *, log_snr: float | None = None, sigma: float | None = None, t: float | None = None
    ) -> Step:
        """Return the Step at a noise level or at a time, outside any run.

        Args:
            log_snr: log signal-to-noise ratio, ``log(a_t² / s_t²)``.
            sigma: noise level ``s_t / a_t``.
            t: the scheduler's time.

        Raises:
            ValueError: unless exactly one is given, and for levels that the network was not trained on.
        """
        return levels.step_at(self.scheduler, log_snr=log_snr, sigma=sigma, t=t)

    # running ------------------------------------------------------------------------------------------

    @checked
    def uses_cfg(self, guidance: float | Guidance | None = None) -> bool:
        """Return whether a run has an unconditional branch."""
        return "uncond" in self.branch_names(guidance)

    @checked
    def branch_names(self, guidance: float | Guidance | None = None) -> tuple[str, ...]:
        """Return the names of the guidance branches of a run; each costs one row a sample."""
        return tuple(b.name for b in Sampling(guidance=guidance).guided(self).branches(self))

    @checked
    def start(self, seeds: Sequence[int], run: int | Sampling) -> SamplerState:
        """Return the moment before the first step of a run: of so many steps, or of a Sampling's."""
        return begin_run(self, seeds, run)

    @checked
    def sample(
        self,
        prompts: Sequence[str | Prompt],
        *,
        seeds: Sequence[int],
        start: SamplerState | None = None,
        interventions: Sequence[Probe] = (),
        recompute: bool = False,
        **settings: Unpack[SamplingOptions],
    ) -> Iterator[State]:
        """Yield the state after each step, so that watching needs no callback.

        Equals the diffusers pipeline to the bit. Nothing is decoded, and gradients flow if they are on.

        Args:
            prompts: one text (or encoded Prompt) for each sample.
            seeds: one seed for each sample; row i depends on seed i alone.
            start: go on from here instead of from noise, with its own seeds (``reseeded`` gives others).
            interventions: what to change on the way.
            recompute: keep no activations for gradients, but compute each step again when they are wanted
                (gradient checkpointing): memory of one step instead of all.
            **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size, ...

        Raises:
            ValueError: for settings that cannot be, seeds that do not fit the prompts, and negative prompts
                that cannot act.
            RuntimeError: an ``AccountError`` if an intervention acts elsewhere or more often than it should,
                or never.
        """
        how = Sampling(**settings)
        check_run(len(prompts), seeds)
        return sample(
            self.sized(how.size),
            prompts,
            seeds=seeds,
            sampling=how,
            start=start,
            interventions=interventions,
            recompute=recompute,
        )

    @checked
    def denoise(
        self,
        x: Tensor,
        steps: Steps,
        prompts: Sequence[str | Prompt],
        *,
        guidance: float | Guidance | None = None,
        negative: str | Sequence[str | Prompt] = "",
        interventions: Sequence[Probe] = (),
    ) -> Tensor:
        """Return what the network predicts, [row, ...]: one call, whole by itself; differentiable.

        Args:
            x: noisy latents ``a_t x_0 + s_t eps`` [row, ...].
            steps: one Step for all rows, or one a row.
            prompts: one text or encoded Prompt a row.
            guidance: a scale or a Guidance; None is the conditional branch alone.
            negative: what the unconditional branch reads.
            interventions: what to change on the way, here and wherever gradients have it computed again.

        Raises:
            ValueError: if numbers of rows do not fit, or a Step's noise level contradicts its time.
        """
        plain = CFG(self.default_guidance if self.tells_guidance else 1.0, true_scale=1.0)
        return sampling.denoised(
            self,
            x,
            steps,
            prompts,
            guidance=plain if guidance is None else as_guidance(guidance),
            negative=negative,
            interventions=interventions,
        )

    @checked
    def prompts(self, prompts: Sequence[str | Prompt]) -> list[Prompt]:
        """Encode those that are still texts, in one batch."""
        texts = [p for p in prompts if isinstance(p, str)]
        encoded = iter(self.encode(texts)) if texts else iter(())
        return [next(encoded) if isinstance(p, str) else p for p in prompts]

    # real pictures ------------------------------------------------------------------------------------

    @property
    def image_channels(self) -> int:
        """Channels of the pictures that ``encode_image`` takes."""
        return 3

    @checked
    def encode_image(self, images: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample ..."]:
        """Return the latents [sample, ...] of pictures: the inverse of ``decode``; differentiable.

        The autoencoder's posterior is taken by its mode, so nothing is drawn.

        Args:
            images: [sample, channel, height, width] in 0..1, of the model's ``size``.

        Raises:
            TypeError: for anything but a tensor of floating-point numbers.
            ValueError: for another shape or size, and values beyond 0..1; the message says how to fix them.
        """
        return self._encode_image(checked_images(images, self.image_channels, self.size, self.name))

    @checked
    def start_at(
        self, images: Float[Tensor, "sample ..."], step: int | Step, seeds: Sequence[int], *, steps: int
    ) -> SamplerState:
        """Return the moment before a step of a run, with half-noised pictures for latents.

        ``sample(start=...)`` goes on from there, and equals diffusers' img2img pipeline of the same family to
        the bit: each sample's generator draws from the posterior of its picture, then its noise
        (SDEdit, Meng et al. 2022).

        Args:
            images: [sample, channel, height, width] in 0..1.
            step: the first step to be made: an index, or one of ``steps(n)``; 0 is the noisiest.
                ``steps - int(steps * strength)`` is diffusers' strength.
            seeds: one for each picture.
            steps: of the whole run.

        Raises:
            ValueError: for pictures that do not fit, and steps that are not of this run.
        """
        taken = checked_images(images, self.image_channels, self.size, self.name)
        generators = generators_of(seeds, taken)
        clean = self._encode_image(taken, generators)  # first the posterior, then the noise, as img2img draws
        return noised_start(self, clean, step, generators, steps)

    def _encode_image(
        self,
        images: Tensor,  # noqa: ARG002 - families that can fill this in
        generators: Sequence[torch.Generator] | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Latents of pictures in -1..1; without generators the posterior's mode."""
        raise StateError(f"{self.name} cannot encode pictures; its adapter fills in no _encode_image")

    # what a network may predict -----------------------------------------------------------------------

    @checked
    def to_x0(self, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
        """The clean latents implied by a network output; one step, or one a row."""
        return prediction.to_x0(self.scheduler, model_input, output, step)

    @checked
    def to_eps(self, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
        """The noise implied by a network output."""
        return prediction.to_eps(self.scheduler, model_input, output, step)

    @checked
    def to_v(self, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
        """The velocity ``a eps - s x_0`` implied by a network output (Salimans & Ho 2022)."""
        return prediction.to_v(self.scheduler, model_input, output, step)


__all__ = ["Model", "Prompt", "SamplerState", "State", "check_run"]
