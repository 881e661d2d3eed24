"""What it costs to learn a direction and to try its strengths, against one run for each.

The published loop (attribute-control, Baumann et al. 2025) samples a new run up to each noised picture that
it learns from and asks for the three predictions of a pair there; ``Learned`` keeps whole runs with their
predictions. Both draw as many pictures and strengths at each step of the optimizer. A strip of strengths is
one batch whose steps before the direction acts are shared, against a run for each strength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from measure import Row, clock, race
from torch import Tensor

import denoscope
from denoscope import When
from denoscope.analysis import Learned, token_direction
from denoscope.probes.directions.moments import Examples, moments, predicted

NEUTRAL, POSITIVE, NEGATIVE = (f"a noto emoji of a {who} cook" for who in ("person", "woman", "man"))
SUBJECT = "cook"
FIT = Learned(steps=40, draws=4, seeds=[0, 1], sampling_steps=20)
STRENGTHS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
STRIP = {"seeds": [0], "steps": 20}
LATE = 8
"""The step from which the direction of the strip acts."""


@dataclass
class Counted:
    """Rows of the denoiser: those computed, and those of them through which a gradient went back."""

    rows: int = 0
    back: int = 0

    @property
    def passes(self) -> int:
        """Forward passes of one row; a backward pass counts as two."""
        return self.rows + 2 * self.back


@contextmanager
def counting(model: denoscope.Model) -> Iterator[Counted]:
    """Count for as long."""
    found = Counted()

    def count(_module: object, _args: object, out: Any) -> None:
        prediction = out[0] if isinstance(out, tuple) else out.sample
        found.rows += len(prediction)
        found.back += len(prediction) if prediction.requires_grad else 0

    hook = model.components[model.input_site.component].register_forward_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def published(model: denoscope.Model, how: Learned) -> Tensor:
    """Learn the noun's delta by the published loop, written plainly; return it."""
    with torch.no_grad():
        plain, up, down = model.encode([NEUTRAL, POSITIVE, NEGATIVE])
    at = plain.find(SUBJECT)
    delta = torch.zeros(plain.embeds.shape[1], requires_grad=True)
    adam = torch.optim.AdamW([delta], lr=how.rate, betas=(0.5, 0.8), weight_decay=0.333)
    source = torch.Generator().manual_seed(how.seed)
    for _ in range(how.steps):
        adam.zero_grad()
        for _ in range(how.draws):
            k = int(torch.randint(how.sampling_steps, (), generator=source))
            x, step = noised(model, plain, int(torch.randint(10**6, (), generator=source)), k, how)
            with torch.no_grad():
                three = predicted(model, how.space, x.expand(3, *x.shape[1:]), [step] * 3, [plain, up, down])
            low, high = how.scale
            s = low + (high - low) * torch.rand(how.scales, generator=source)
            s = torch.where(torch.rand(how.scales, generator=source) < 0.5, -s, s)
            prompts = [moved(plain, at, a * delta) for a in s]
            wide = x.expand(how.scales, *x.shape[1:])
            said = predicted(model, how.space, wide, [step] * how.scales, prompts)
            wanted = three[:1] + s.view(-1, *[1] * (x.ndim - 1)) * (three[1:2] - three[2:])
            ((said - wanted).square().mean() / how.draws).backward()
        adam.step()
    return delta.detach()


@torch.no_grad()
def noised(
    model: denoscope.Model, prompt: denoscope.Prompt, seed: int, k: int, how: Learned
) -> tuple[Tensor, denoscope.Step]:
    """Sample a new run up to step k; the scheduler is DDIM, which reads latents as they are."""
    x = model.noise([seed])
    run = model.sample([prompt], seeds=[seed], steps=how.sampling_steps, guidance=how.guidance)
    for _, state in zip(range(k), run, strict=False):
        x = state.latents
    return x, model.steps(how.sampling_steps)[k]


def moved(prompt: denoscope.Prompt, at: Sequence[int], by: Tensor) -> denoscope.Prompt:
    """A prompt whose noun's rows are moved."""
    embeds = prompt.embeds.clone()
    embeds[list(at)] = embeds[list(at)] + by
    return replace(prompt, embeds=embeds)


def ours(model: denoscope.Model, how: Learned) -> Tensor:
    """Learn the same delta as the library does; return it."""
    found = token_direction(model, [POSITIVE], [NEGATIVE], SUBJECT, neutral=[NEUTRAL], method=how)
    return found.vector[0]


@torch.no_grad()
def missed(model: denoscope.Model, delta: Tensor, how: Learned) -> float:
    """The loss on runs that nothing was learned from, over that of no delta; strengths 1 and -1."""
    read = dict(zip((NEUTRAL, POSITIVE, NEGATIVE), model.encode([NEUTRAL, POSITIVE, NEGATIVE]), strict=True))
    held = moments(
        model,
        Examples([NEUTRAL], [POSITIVE], [NEGATIVE]),
        read,
        seeds=[10**7, 10**7 + 1],
        space=how.space,
        steps=how.sampling_steps,
        guidance=how.guidance,
    )
    n, plain, lost = len(held.x), read[NEUTRAL], 0.0
    for s in (1.0, -1.0):
        prompts = [moved(plain, plain.find(SUBJECT), s * delta)] * n
        said = predicted(model, how.space, held.x, held.steps, prompts)
        lost += float((said - held.wanted(torch.arange(n), torch.full((n,), s))).square().mean())
    return lost / (2 * float(held.apart.square().mean()))


def learning(model: denoscope.Model) -> list[Row]:
    """Rows and time of a fit against the published loop, and what both learned."""
    found, spent = dict[str, Tensor](), dict[str, tuple[Counted, float]]()
    for name, learn in (("ours", ours), ("theirs", published)):
        with counting(model) as counted:
            seconds = clock(lambda f=learn, n=name: found.update({n: f(model, FIT)}))  # type: ignore[misc]
        spent[name] = counted, seconds
    (a, fast), (b, slow) = spent["ours"], spent["theirs"]
    left = {name: missed(model, delta, FIT) for name, delta in found.items()}
    what = f"a learned direction, {FIT.steps} steps of the optimizer"
    loss = f"loss on new runs, over that of no delta: {left['ours']:.3f} against {left['theirs']:.3f}"
    passes = f"{a.passes} passes of a row against {b.passes}, a backward pass counted as two; {loss}"
    return [
        Row(f"{what}: passes", "a new run for each picture", a.passes / b.passes, note=passes),
        Row(
            f"{what}: time",
            "a new run for each picture",
            fast / slow,
            note=f"{fast:.1f} s against {slow:.1f} s",
        ),
    ]


def strip(model: denoscope.Model, rounds: int) -> list[Row]:
    """A strip of strengths against a run for each."""
    direction = token_direction(model, [POSITIVE], [NEGATIVE], SUBJECT)
    late = When(steps=range(LATE, int(STRIP["steps"])))

    def together() -> None:
        denoscope.steered(
            model, direction, [NEUTRAL], strengths=STRENGTHS, subject=SUBJECT, when=late, **STRIP
        ).data.load()

    def alone() -> None:
        for s in STRENGTHS:
            acts = [direction.of(SUBJECT).steer(s, late)] if s else []
            _ = denoscope.trace(model, [NEUTRAL], interventions=acts, **STRIP).images

    with counting(model) as a:
        together()
    with counting(model) as b:
        alone()
    pair = race(together, alone, rounds)
    fast, slow = pair.seconds
    what = f"{len(STRENGTHS)} strengths of a direction that acts from step {LATE} of {STRIP['steps']}"
    return [
        Row(f"{what}: rows", "a run for each", a.rows / b.rows, note=f"{a.rows} against {b.rows}"),
        Row(f"{what}: time", "a run for each", pair.ratio, note=f"{fast:.2f} s against {slow:.2f} s"),
    ]


def measure(rounds: int) -> list[Row]:
    """Learning, then strengths."""
    model = denoscope.load("emoji")
    return [*learning(model), *strip(model, rounds)]
