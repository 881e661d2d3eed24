"""Causal mediation: against a serial oracle of plain hooks, by its laws, and on planted truths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from denoscope.analysis import Mediation, trace_denoiser, trace_text
from denoscope.analysis.mediation.choice import KINDS, text_windows
from denoscope.analysis.mediation.corruption import Noise, Swap, corrupt, encode_rows
from denoscope.analysis.mediation.text_tracing import _same_as
from denoscope.analysis.metrics import Outcome, latent_distance
from denoscope.models.families.stable_diffusion import StableDiffusion
from denoscope.models.load import load
from denoscope.models.places.blocks import Place
from denoscope.models.places.resolve import resolve
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd
from denoscope.models.text.prompt import Prompt
from denoscope.probes.intervene import patch
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.text_states import site_states
from denoscope.probes.trace import trace

PROMPT, GUIDANCE, STEPS = "a red cat", 7.5, 3
TWO = Noise(draws=2)
ROUNDING = 2e-5  # kernels round differently in batches of other sizes; scores are of order 1
CROSS = "unet/up.0.attn.0.0/cross_attn.out"


def height(outcome: Outcome) -> Tensor:
    """A linear metric that sees every latent: a fixed random projection."""
    weights = torch.randn(outcome.latents[0].numel(), generator=torch.Generator().manual_seed(9))
    return outcome.latents.flatten(1) @ weights / len(weights) ** 0.5


def text(model: Any, prompts: Sequence[str] = (PROMPT,), subject: Any = "cat", **settings: Any) -> Mediation:
    settings = {"seeds": [0], "metric": height, "corruption": TWO, "steps": STEPS, **settings}
    return trace_text(model, prompts, subject, **settings)


def denoiser(
    model: Any, prompts: Sequence[str] = (PROMPT,), subject: Any = "cat", **settings: Any
) -> Mediation:
    settings = {"seeds": [0], "metric": height, "corruption": TWO, "steps": STEPS, **settings}
    return trace_denoiser(model, prompts, subject, **settings)


# an oracle: the equations of docs/mediation.md one by one, plain torch hooks, one row in each call -----


@contextmanager
def hook(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, __, out: change(out))
    try:
        yield
    finally:
        handle.remove()


class Oracle:
    """Clean, corrupted and restored runs of one prompt, noise draw and seed."""

    def __init__(self, model: Any, draw: int = 0, seed: int = 0) -> None:
        self.model, self.encoder, self.unet = model, model.pipe.text_encoder, model.pipe.unet
        with torch.no_grad():
            self.noise = corrupt(model, model.encode([PROMPT]), ["cat"], TWO)[0][draw]
        self.start = model.noise([seed])
        self.clean, self.negative = self.encode(PROMPT), self.encode("")
        self.corrupted = self.encode(PROMPT, noisy=True)

    def encode(self, words: str, noisy: bool = False, *edits: Any) -> Tensor:
        ids = self.model.pipe.tokenizer([words], padding="max_length", return_tensors="pt").input_ids

        def add(x: Tensor) -> Tensor:
            y = x.clone()
            y[0, 3] += self.noise.added["text_encoder"][1][0]
            return y

        with ExitStack() as stack, torch.no_grad():
            for module, change in edits:
                stack.enter_context(hook(module, change))
            if noisy:
                stack.enter_context(hook(self.encoder.get_input_embeddings(), add))
            out: Tensor = self.encoder(ids)[0]
            return out

    def restored_text(self, site: str, token: int) -> Tensor:
        module, kept = self.model.module(site), []
        self.encode(PROMPT, False, (module, lambda x: kept.append(x.clone())))

        def put(x: Tensor) -> Tensor:
            y = x.clone()
            y[0, token] = kept[0][0, token]
            return y

        return self.encode(PROMPT, True, (module, put))

    def run(
        self, embeds: Tensor, site: str = "", source: str = "", window: Collection[int] = range(99)
    ) -> float:
        scheduler = copy.deepcopy(self.model.scheduler)
        scheduler.set_timesteps(STEPS)
        x = z = self.start * scheduler.init_noise_sigma

        def eps(x: Tensor, t: Tensor, embeds: Tensor, change: Any = None) -> Tensor:
            with ExitStack() as stack, torch.no_grad():
                if change:
                    stack.enter_context(hook(self.model.module(site), change))
                out: Tensor = self.unet(x, t, embeds).sample
                return out

        def step(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            uncond = eps(x, t, self.negative)
            out: Tensor = scheduler.step(uncond + GUIDANCE * (cond - uncond), t, x).prev_sample
            return out

        for i, t in enumerate(scheduler.timesteps):
            kept: list[Tensor] = []
            clean = eps(z, t, self.clean, lambda a, kept=kept: kept.append(a.clone())) if site else z
            if source == "in_place":
                kept = []
                eps(x, t, self.clean, lambda a, kept=kept: kept.append(a.clone()))
            put = (lambda _, kept=kept: kept[0]) if site and i in window else None
            x = step(x, t, eps(x, t, embeds, put))
            z = step(z, t, clean) if site else z
        return float(height(Outcome(x, (), lambda a: a)))


@pytest.mark.parametrize(("draw", "seed"), [(0, 0), (1, 5)])
def test_text_tracing_equals_the_oracle(tiny: Any, draw: int, seed: int) -> None:
    oracle = Oracle(tiny, draw, seed)
    got = text(tiny, seeds=[0, 5], tokens=[3, 4, 20])
    assert float(got.clean.sel(seed=seed).squeeze()) == pytest.approx(oracle.run(oracle.clean), abs=ROUNDING)
    corrupted = float(got.corrupted.sel(seed=seed, draw=draw).squeeze())
    assert corrupted == pytest.approx(oracle.run(oracle.corrupted), abs=ROUNDING)
    effects = []
    for site in tiny.sites("text_encoder/layer.*/self_attn.out"):
        for token, label in ((3, "3:cat"), (4, "4:end"), (20, "20:pad")):
            ours = got.restored.values.sel(site=str(site), token=label, seed=seed, draw=draw).squeeze()
            theirs = oracle.run(oracle.restored_text(str(site), token))
            assert float(ours) == pytest.approx(theirs, abs=ROUNDING)
            effects.append(abs(theirs - corrupted))
    assert max(effects) > 100 * ROUNDING  # there was something to see


@pytest.mark.parametrize("source", ["trajectory", "in_place"])
@pytest.mark.parametrize("window", [None, [1], [0, 2]])
def test_denoiser_tracing_equals_the_oracle(tiny: Any, source: Any, window: list[int] | None) -> None:
    sites = [CROSS, "unet/up.1.res.0/resnet.out", "unet/down.1.attn.0.0/mlp.out"]
    windows = None if window is None else [window]
    got = denoiser(tiny, seeds=[5], sites=sites, source=source, windows=windows)
    oracle = Oracle(tiny, 1, 5)
    effects = []
    for site in sites:
        ours = float(got.restored.values.sel(site=site, draw=1).squeeze())
        theirs = oracle.run(oracle.corrupted, site, source, range(STEPS) if window is None else window)
        assert ours == pytest.approx(theirs, abs=ROUNDING)
        effects.append(abs(theirs - float(got.corrupted.sel(draw=1).squeeze())))
    assert max(effects) > 100 * ROUNDING


@pytest.mark.parametrize("source", ["trajectory", "in_place"])
def test_several_windows_are_traced_as_each_alone(tiny: Any, source: Any) -> None:
    how = {"sites": [CROSS], "source": source, "corruption": Noise(draws=1)}
    both = denoiser(tiny, windows=[[0], [1, 2]], **how).restored.values
    assert list(both["window"].values) == ["0-0", "1-2"]
    for window, name in (([0], "0-0"), ([1, 2], "1-2")):
        alone = denoiser(tiny, windows=[window], **how).restored.values
        assert float(both.sel(window=name).squeeze()) == pytest.approx(float(alone.squeeze()), abs=ROUNDING)


# laws (specification, section 8) --------------------------------------------------------------------------


@pytest.mark.parametrize("how", [TWO, Swap("dog")])
def test_restoring_the_whole_last_layer_is_clean(tiny: Any, how: Any) -> None:
    got = text(tiny, corruption=how, kinds=["resid.post"], layers=[1], tokens=[range(32)], seeds=[0, 1])
    assert float(abs(got.clean - got.corrupted).min()) > 50 * ROUNDING
    assert np.allclose(got.restored.values, got.clean.values[..., None], atol=ROUNDING)
    assert np.allclose(got.normalised.mean(), 1, atol=1e-3)


@pytest.mark.parametrize("source", ["trajectory", "in_place"])
def test_restoring_the_denoisers_output_is_clean(tiny: Any, source: Any) -> None:
    got = denoiser(tiny, sites="unet/out/eps", source=source, metric=latent_distance(), seeds=[0, 1])
    assert float(got.corrupted.min()) > 0.01
    assert float(got.restored.values.max()) < ROUNDING


def test_restoring_all_sites_at_once_is_clean(tiny: Any) -> None:
    sites = [s for s in tiny.sites("unet/**") if s.kind in KINDS]
    clean = trace(tiny, [PROMPT], seeds=[0], steps=STEPS, sites=sites)
    corrupted = encode_rows(tiny, [("a red dog", ())])[0]
    put = tuple(patch(s, clean) for s in sites)
    back, gone = sweep(tiny, [SweepRun(corrupted, 0, put), SweepRun(corrupted, 0)], steps=STEPS).latents
    assert torch.allclose(back, clean.latents[0], atol=ROUNDING)
    assert not torch.allclose(gone, clean.latents[0], atol=100 * ROUNDING)


def test_no_noise_is_clean_and_has_no_share(tiny: Any) -> None:
    got = text(tiny, corruption=Noise(sd=0, draws=2), metric=latent_distance(), layers=[0])
    assert float(abs(got.corrupted).max()) == 0 and float(abs(got.restored.values).max()) == 0
    with pytest.raises(ValueError, match=r"Noise\(sd=0, draws=2, seed=0\) left the mean of latent_distance"):
        got.normalised.mean()


def test_restoring_before_the_subject_changes_no_bit(tiny: Any) -> None:
    got = text(tiny, tokens=[0, 1, 2, (0, 1, 2)])
    assert (got.restored.values == got.corrupted).all()
    # not by decree: the encoder itself leaves these conditionings as they were
    sites = tiny.sites("text_encoder/layer.*/mlp.out")
    kept = site_states(tiny, [PROMPT], sites)
    with torch.no_grad():
        corrupted = corrupt(tiny, tiny.encode([PROMPT]), ["cat"], TWO)[0][0]
    base, back = encode_rows(
        tiny,
        [
            (PROMPT, corrupted.interventions()),
            (PROMPT, (*corrupted.interventions(), *(patch(s, kept[s], tokens=[0, 1, 2]) for s in sites))),
        ],
    )
    assert torch.allclose(base.embeds, back.embeds, atol=1e-6)


def test_a_conditioning_is_the_corrupted_one_up_to_rounding_in_tokens_and_pooled_alike() -> None:
    def read(embeds: float, pooled: float | None) -> Prompt:
        pool = None if pooled is None else torch.tensor([1.0, pooled])
        return Prompt("a", ("a",), embeds=torch.tensor([[1.0, embeds]]), pooled=pool)

    corrupted, eps = read(2.0, 3.0), torch.finfo(torch.float32).eps
    for embeds, pooled, same in (
        (2.0, 3.0, True),
        (2.0 * (1 + 2 * eps), 3.0 * (1 + 2 * eps), True),
        (2.001, 3.0, False),
        (2.0, 3.001, False),
    ):
        restored = read(embeds, pooled)
        assert _same_as(restored, corrupted) is (corrupted if same else restored)
    alone = read(2.0, None)
    assert _same_as(read(2.0, None), alone) is alone


def test_equal_conditionings_run_once(tiny: Any) -> None:
    """Of 4 sites x 6 token groups, those of the 3 tokens before the subject equal the corrupted run."""
    got = text(tiny)
    distinct = 1 + 2 + 4 * 3 * 2  # clean, corrupted, restored at the subject, the end and the padding
    assert got.rows == distinct * 2 * STEPS
    assert got.reference_rows == 4 * 6 * 2 * 2 * STEPS


def test_rows_of_denoiser_tracing(tiny: Any) -> None:
    sites = [CROSS, "unet/mid.attn.0.0/mlp.out"]
    got = denoiser(tiny, sites=sites, seeds=[0, 1])
    shared = 2 * 2  # each restored run takes its first unconditional row from the corrupted run
    # seeds x ((clean + corrupted + restored) x guided steps - shared)
    assert got.rows == 2 * ((1 + 2 + 2 * 2) * 2 * STEPS - shared)
    assert got.reference_rows == 2 * (2 * 2) * 3 * 2 * STEPS
    late = denoiser(tiny, sites=sites, seeds=[0, 1], windows=[[2]])
    # restored runs make the last step alone, and of it the conditional row alone
    assert late.rows == 2 * ((1 + 2) * 2 * STEPS + 2 * 2)
    beside = denoiser(tiny, sites=sites, seeds=[0, 1], windows=[[2]], source="in_place")
    assert beside.rows == 2 * ((1 + 2) * 2 * STEPS + 2 * 2 * 2)  # the clean prompt's rows too


@pytest.mark.parametrize("tracer", [text, denoiser])
def test_batches_and_order_do_not_matter(tiny: Any, tracer: Any) -> None:
    few = {"layers": [1, 0]} if tracer is text else {"sites": [CROSS, "unet/in/conv.out"]}
    turned = {k: v[::-1] for k, v in few.items()}
    one = tracer(tiny, seeds=[0, 1], batch=1, **few)
    many = tracer(tiny, seeds=[1, 0], batch=16, **turned).data
    many = many.sel(site=one.data["site"], seed=one.data["seed"])
    for name in ("clean", "corrupted", "restored"):
        np.testing.assert_allclose(one.data[name], many[name], atol=ROUNDING)
        assert one.data[name].dims == many[name].dims


@pytest.mark.parametrize(
    ("tracer", "places"), [(text, {"layers": [0], "tokens": [3, 4]}), (denoiser, {"sites": CROSS})]
)
def test_prompts_in_one_call_equal_prompts_alone(tiny: Any, tracer: Any, places: Any) -> None:
    prompts, settings = [PROMPT, "a red dog"], {"corruption": Swap("cook"), **places}
    both = tracer(tiny, prompts, ["cat", "dog"], **settings).data
    for prompt, subject in zip(prompts, ("cat", "dog"), strict=True):
        alone = tracer(tiny, [prompt], subject, **settings).data
        for name in ("clean", "corrupted", "restored"):
            np.testing.assert_allclose(both[name].sel(prompt=[prompt]), alone[name], atol=ROUNDING)
    # the two prompts differ, in their effects too
    effect = (both["restored"] - both["corrupted"]).max("site")
    assert float(abs(effect.diff("prompt")).max()) > 100 * ROUNDING


def test_the_unconditional_branch_is_never_touched(tiny: Any) -> None:
    """In a run of one step they are the same for one seed; restored runs take over the corrupted run's."""
    outputs: dict[str, list[Tensor]] = {"cond": [], "uncond": []}

    def look(_: Any, __: Any, out: tuple[Tensor, ...]) -> None:
        for branch, rows in tiny.call.rows.items():
            outputs[branch].append(out[0][rows].clone())

    watch = tiny.denoiser.register_forward_hook(look)
    try:
        denoiser(tiny, steps=1, sites="unet/up.*/*", metric=latent_distance())
    finally:
        watch.remove()
    uncond, cond = torch.cat(outputs["uncond"]), torch.cat(outputs["cond"])
    assert len(cond) > 40 and len(uncond) == 1 + 2  # clean, and one for each draw
    assert float((uncond - uncond[0]).abs().max()) < 1e-5
    assert float((cond - cond[0]).abs().max()) > 0.01


def test_unguided_runs_are_traced_too(tiny: Any) -> None:
    got = denoiser(tiny, sites="unet/out/eps", metric=latent_distance(), guidance=1)
    assert float(got.corrupted.min()) > 1e-4 and float(got.restored.values.max()) < ROUNDING
    assert got.rows == (1 + 2 + 2) * STEPS


def test_in_place_separates_what_the_text_does_from_what_the_latents_do(tiny: Any) -> None:
    """A site no text reaches carries nothing in place, but carries clean latents along the trajectory."""
    first = "unet/down.0.res.0/resnet.out"
    along, here = (denoiser(tiny, sites=first, source=s) for s in ("trajectory", "in_place"))
    assert float(abs(here.indirect_effect.values).max()) < ROUNDING
    assert float(abs(along.indirect_effect.values).max()) > 100 * ROUNDING


def test_switching_the_prompt_at_a_step_is_restoring_the_output_from_there(tiny: Any) -> None:
    """In place, from step k on: the same as going on with the clean prompt. One step late would show."""
    with torch.no_grad():
        clean = tiny.encode([PROMPT])
        corrupted = corrupt(tiny, clean, ["cat"], TWO)[0][0]
        prompts = encode_rows(tiny, [(corrupted.text, corrupted.interventions())])
        got = denoiser(tiny, sites="unet/out/eps", source="in_place", windows=[range(1, 3), range(2, 3)])
        for k, name in ((1, "1-2"), (2, "2-2")):
            run = tiny.sample(prompts, seeds=[0], steps=STEPS)
            at = [next(run) for _ in range(k)][-1].sampler_state()
            *_, state = tiny.sample(clean, seeds=[0], steps=STEPS, start=at)
            theirs = float(height(Outcome(state.latents, (), lambda x: x)))
            ours = got.restored.values.sel(window=name, draw=0).squeeze()
            assert float(ours) == pytest.approx(theirs, abs=ROUNDING)


def test_windows_of_layers_are_those_of_rome(tiny: Any) -> None:
    model = load(tiny_sd(text_layers=7))
    for width in (1, 2, 3, 4, 10):
        windows = text_windows(model, "text_encoder", ["mlp.out"], None, width)
        for layer, (site, together) in enumerate(windows.items()):
            theirs = range(max(0, layer - width // 2), min(7, layer - (-width // 2)))  # causal_trace.py:427
            assert str(site) == f"text_encoder/layer.{layer}/mlp.out"
            assert [str(s) for s in together] == [f"text_encoder/layer.{i}/mlp.out" for i in theirs]


# planted truths -------------------------------------------------------------------------------------------


class ReadsTheEnd(StableDiffusion):
    """A denoiser that reads the end token alone, so that text must travel there to have an effect."""

    def predict(self, x: Tensor, step: Any, prompts: Sequence[Any]) -> Tensor:
        embeds = torch.stack([p.embeds[p.end : p.end + 1] for p in prompts])
        out: Tensor = self.denoiser(x, self.time(step), encoder_hidden_states=embeds, return_dict=False)[0]
        return out


@pytest.mark.parametrize("planted", [0, 1, 2])
def test_finds_the_planted_layer_of_the_text_encoder(planted: int) -> None:
    """One self-attention can move the subject to the end token; all else of the encoder adds nothing."""
    model = ReadsTheEnd(tiny_sd(text_layers=3))
    with torch.no_grad():
        for site in model.sites("text_encoder/layer.*/*.out"):
            if site != Site(f"text_encoder/layer.{planted}/self_attn.out"):
                for weight in model.weights(site).values():
                    weight.zero_()
    got = text(model, seeds=[0, 1]).normalised
    share = got.mean()
    here = share.sel(site=f"text_encoder/layer.{planted}/self_attn.out", token="4:end")
    assert float(here) == pytest.approx(1, abs=1e-3)
    assert float(abs(share).sum()) == pytest.approx(1, abs=1e-3)
    assert got.top(1) == [Site(f"text_encoder/layer.{planted}/self_attn.out")]
    assert got.best()["token"] == "4:end"


@pytest.mark.parametrize("planted", [0, 1, 2, 3])
def test_finds_the_only_cross_attention_that_works(planted: int) -> None:
    model = load(tiny_sd())
    crosses = list(model.sites("unet/**/cross_attn.out"))
    with torch.no_grad():
        for i, site in enumerate(crosses):
            for weight in model.weights(site).values():
                weight.zero_() if i != planted else weight.mul_(5)
    for source in ("trajectory", "in_place"):
        got = denoiser(model, sites=crosses, source=source, seeds=[0, 1])  # type: ignore[arg-type]
        found = got.causal()
        assert found["site"].tolist() == [str(crosses[planted])]
        assert found["mean"].item() == pytest.approx(1, abs=1e-3)
        assert float(abs(got.normalised.mean()).sum()) == pytest.approx(1, abs=2e-3)


class Additive(nn.Module):
    """A linear denoiser: ``conv(x) + sum of paths of the text``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(4, 4, 1)
        self.paths = nn.ModuleList([nn.Linear(16, 4) for _ in range(3)])

    def forward(
        self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        h = self.conv_in(x)
        for path in self.paths:
            h = h + path(encoder_hidden_states.mean(1))[:, :, None, None]
        return (h,)


class Toy(StableDiffusion):
    """Stable Diffusion's text encoder before a linear denoiser."""

    def __init__(self) -> None:
        super().__init__(tiny_sd())
        self.toy = Additive()

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), **({"unet": self.toy} if hasattr(self, "toy") else {})}

    def _resolve(self) -> dict[Site, Place]:
        if not hasattr(self, "toy"):
            return super()._resolve()
        found = resolve({"text_encoder": self.components["text_encoder"]})
        found[self.input_site] = Place(self.toy.conv_in, "out", None, "conv_in")
        for i, path in enumerate(self.toy.paths):
            found[Site(f"unet/path.{i}/out")] = Place(path, "out", None, f"paths.{i}")
        return found

    @property
    def denoiser(self) -> nn.Module:
        return self.toy


@pytest.mark.parametrize("source", ["trajectory", "in_place"])
def test_effects_add_up_in_a_linear_denoiser(source: Any) -> None:
    got = denoiser(Toy(), sites="unet/path.*/out", source=source, seeds=[0, 1], direct=True)
    total = got.clean - got.corrupted
    xr.testing.assert_allclose(got.indirect_effect.values.sum("site"), total, atol=ROUNDING)
    lost = got.clean - got.data["blocked"]  # draw by draw
    xr.testing.assert_allclose(lost.sum("site").transpose(*total.dims), total, atol=ROUNDING)
    assert float(abs(total).min()) > 100 * ROUNDING
    assert float(got.normalised.mean().sum()) == pytest.approx(1, abs=1e-3)


# the value ------------------------------------------------------------------------------------------------


def test_effect_share_and_total_are_what_they_say(tiny: Any) -> None:
    got = denoiser(tiny, sites=[CROSS], windows=[[0], [1, 2]], seeds=[0, 1])
    clean, corrupted, back = (got.data[k].values for k in ("clean", "corrupted", "restored"))
    assert back.shape == (1, 2, 1, 2, 2)
    assert got.data["window"].values.tolist() == ["0-0", "1-2"]
    np.testing.assert_allclose(got.indirect_effect.mean(), (back - corrupted).mean((-3, -2, -1)))
    total = clean[..., None] - corrupted
    np.testing.assert_allclose(got.normalised.mean(), (back - corrupted).mean((-3, -2, -1)) / total.mean())
    interval = got.total()
    assert float(interval["mean"]) == pytest.approx(total.mean())
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert got.normalised.interval()["low"].notnull().all()


def test_the_metric_is_given_few_pictures_and_the_clean_prompt(tiny: Any) -> None:
    sizes = []

    def length(outcome: Outcome) -> Tensor:
        sizes.append(len(outcome.latents))
        return torch.tensor([float(len(p.text)) for p in outcome.prompts])

    got = denoiser(tiny, ["a red cat", "a cat"], "cat", sites=[CROSS], metric=length, batch=2)
    assert got.clean.values.tolist() == [[9], [5]]
    assert (got.corrupted == got.clean).all() and (got.restored.values == got.clean).all()
    assert max(sizes) == 2 and sum(sizes) == 2 * (1 + 2 + 2)


def test_places_are_told_by_block_and_kind(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "default_guidance", 3.0)
    data = denoiser(tiny, sites=[CROSS, "unet/mid.res.0/resnet.out"], steps=1).data
    assert data["block"].values.tolist() == ["up.0.attn.0.0", "mid.res.0"]
    assert data["kind"].values.tolist() == ["cross_attn.out", "resnet.out"]
    assert data.attrs["guidance"] == 3.0


def test_provenance_says_what_was_done(tiny: Any) -> None:
    about = denoiser(tiny, sites=CROSS, source="in_place").indirect_effect.values.attrs
    assert about["corruption"] == "Noise(sd=3.0, draws=2, seed=0)"
    assert (about["metric"], about["source"], about["steps"]) == ("height", "in_place", STEPS)
    assert (about["subject"], about["guidance"]) == (["cat"], 7.5) and "torch" in about["versions"]


def test_saved_and_loaded_is_the_same(tiny: Any, tmp_path: Path) -> None:
    got = text(tiny, layers=[0], seeds=[0, 1])
    got.save(tmp_path / "map.zarr")
    back = Mediation.load(tmp_path / "map.zarr")
    xr.testing.assert_equal(back.data, got.data)
    assert back.data.attrs == got.data.attrs
    # the same up to the order in which numpy adds, which depends on how arrays lie in memory
    tables = [m.normalised.to_frame().set_index(["site", "token"]).sort_index() for m in (back, got)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9, atol=1e-9)
    got.indirect_effect.save(tmp_path / "scores.zarr")
    with pytest.raises(ValueError, match=r"scores.zarr lacks \['clean', 'corrupted', 'restored'\]"):
        Mediation.load(tmp_path / "scores.zarr")


@pytest.mark.parametrize("tracer", [text, denoiser])
def test_progress_grows_to_the_end(tiny: Any, tracer: Any) -> None:
    reported: list[tuple[int, int]] = []
    tracer(tiny, seeds=[0, 1], batch=4, progress=lambda done, of, _: reported.append((done, of)))
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert len(reported) > 4 and len({of for _, of in reported}) == 1
    assert reported[-1][0] == reported[-1][1]


# bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracer", "settings", "error", "words"),
    [
        (
            text,
            {"subject": "cats"},
            LookupError,
            "'cats' is not in the prompt 'a red cat'; did you mean 'cat'",
        ),
        (text, {"subject": ["cat", "dog"]}, ValueError, "1 prompts but 2 subjects"),
        (text, {"prompts": PROMPT}, TypeError, r"give a list: \['a red cat'\]"),
        (text, {"prompts": []}, ValueError, "prompts is empty"),
        (text, {"prompts": [PROMPT, PROMPT]}, ValueError, "prompts hold 'a red cat' more than once"),
        (text, {"prompts": [PROMPT, "a cat"]}, ValueError, "do not line up with 'a red cat'"),
        (text, {"seeds": 3}, TypeError, r"give a list: \[3\]"),
        (text, {"seeds": [1, 1]}, ValueError, "seeds hold 1 more than once"),
        (text, {"seeds": []}, ValueError, "seeds is empty"),
        (text, {"steps": 0}, ValueError, "steps is 0"),
        (text, {"guidance": -1}, ValueError, "guidance is -1"),
        (text, {"batch": 0}, ValueError, "batch is 0"),
        (text, {"kinds": ["mlp.outs"]}, LookupError, "no site matches .*mlp.outs.* did you mean"),
        (text, {"kinds": []}, ValueError, "kinds is"),
        (text, {"window": 0}, ValueError, "window is 0"),
        (text, {"layers": [2]}, LookupError, "reads no layer 2 of its text_encoder; it reads layers 0 to 1"),
        (text, {"tokens": [32]}, ValueError, "positions.* 0 to 31"),
        (text, {"corruption": Swap("big dog")}, ValueError, "'a red big dog' has another number of tokens"),
        (denoiser, {"sites": "unet/**/cross.out"}, LookupError, "no site matches .*did you mean"),
        (denoiser, {"sites": "**/self_attn.out"}, ValueError, "not in the denoiser; name sites of unet/"),
        (denoiser, {"sites": []}, ValueError, "not in the denoiser"),
        (
            denoiser,
            {"windows": []},
            ValueError,
            r"windows is empty; give sets of steps like \[range\(0, 3\)\]",
        ),
        (denoiser, {"windows": [range(2, 5)]}, ValueError, "reach past the run, which has steps 0 to 2"),
        (denoiser, {"windows": [[]]}, ValueError, "holds indices 0, 1"),
        (denoiser, {"source": "clean"}, ValueError, "source is 'clean'; it is 'trajectory'"),
    ],
)
def test_bad_input_names_the_fix(tiny: Any, tracer: Any, settings: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        tracer(tiny, **settings)


def test_swapped_words_of_other_length_are_fine_in_the_denoiser(tiny: Any) -> None:
    got = denoiser(tiny, sites="unet/out/eps", corruption=Swap("big dog"), metric=latent_distance())
    assert float(got.corrupted.min()) > 0.01 and float(got.restored.values.max()) < ROUNDING


def test_a_model_without_text_is_refused() -> None:
    model = load(tiny_ddim())
    for tracer in (text, denoiser):
        with pytest.raises(
            ValueError, match="DDIMPipeline has no text encoder, so there is no subject to take out"
        ):
            tracer(model, [""], "cat")


def test_a_metric_that_does_not_look_is_told_and_plain_answers_are_not(tiny: Any) -> None:
    def blind(outcome: Outcome) -> Tensor:
        return torch.full((len(outcome.latents),), value)

    value = 0.3
    with pytest.raises(
        ValueError, match=r"the metric blind is 0.3 for all of \d+ runs, though their pictures"
    ):
        text(tiny, metric=blind)
    value = 1.0  # yes
    assert float(text(tiny, metric=blind).total()["mean"]) == 0


def test_a_metric_that_fails_leaves_the_model_alone(tiny: Any) -> None:
    def broken(_: Outcome) -> Tensor:
        raise RuntimeError("no judge today")

    with pytest.raises(RuntimeError, match="no judge today"):
        text(tiny, metric=broken)
