"""Steps, texts and rows in calls that are not as usual: other schedulers, callbacks, own loops, adapters."""

import diffusers
import pytest
import torch
import xarray as xr
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from denoscope.analysis import maps_from_trace, word_maps
from denoscope.models.load import load
from denoscope.models.places.account import AccountError
from denoscope.models.run.context import When
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.attach import attached
from denoscope.probes.calls.pipelines import rows_of
from denoscope.probes.intervene import Intervention, scale, zero
from denoscope.probes.trace import trace

MID = "unet/mid.res.0/resnet.out"
CROSS = "unet/mid.attn.0.0/cross_attn."
TEXT = "text_encoder/layer.0/mlp.out"
PICTURE = Image.effect_noise((16, 16), 80).convert("RGB")


def call(pipe, prompt="a cat", steps=4, **options):
    options = {"generator": [torch.Generator().manual_seed(0)], "output_type": "latent", **options}
    return pipe(prompt, num_inference_steps=steps, **options).images


def looking(site=MID, branch=None):
    seen = []
    return seen, Intervention(site, lambda x, c: seen.append((c, x.clone())), When(branch=branch))


# schedulers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "HeunDiscrete",
        "PNDM",
        "KDPM2Discrete",
        "EulerDiscrete",
        "DPMSolverMultistep",
        "DDPM",
        "LCM",
        "UniPCMultistep",
    ],
)
@pytest.mark.parametrize("strength", [None, 0.5])
def test_every_call_is_a_step_of_the_scheduler_in_use(kind, strength):
    pipe = tiny.tiny_sd()
    if strength:
        pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components)
        pipe.set_progress_bar_config(disable=True)
    scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(pipe.scheduler.config)
    given = {"image": PICTURE, "strength": strength} if strength else {}
    times = []
    with attached(pipe, trace=MID) as run:
        pipe.scheduler = scheduler  # exchanged inside the block
        call(pipe, **given, callback_on_step_end=lambda _p, _i, t, _v: times.append(float(t)) or {})
    steps = run.trace.steps
    assert [s.index for s in steps] == list(range(len(times)))
    assert [s.t for s in steps] == pytest.approx(times)
    assert [s.sigma for s in steps] == sorted((s.sigma for s in steps), reverse=True)
    assert len(run.trace[MID]) == len(times)
    assert vars(scheduler).get("step") is None


def test_a_wrapped_scheduler_is_asked():
    class Wrapped:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def step(self, *args, **kwargs):
            return self.inner.step(*args, **kwargs)

    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID) as run:
        plain = call(pipe)
        vars(pipe)["scheduler"] = Wrapped(pipe.scheduler)
        assert torch.equal(call(pipe), plain)
    assert [s.t for s in run.traces[0].steps] == [s.t for s in run.traces[1].steps]
    with pytest.raises(LookupError, match="2 calls"):
        run.trace  # noqa: B018


def test_a_time_that_the_scheduler_does_not_have_is_refused():
    pipe = tiny.tiny_sd()
    pipe.scheduler.set_timesteps(4)
    with (
        pytest.raises(AccountError, match=r"time 17, which is none of DDIMScheduler's timesteps"),
        attached(pipe, zero(MID), rows={"cond": slice(0, 1)}),
    ):
        pipe.unet(torch.zeros(1, 4, 8, 8), 17, encoder_hidden_states=torch.zeros(1, 32, 16))


def off(pipe, i, _t, values):
    """Turn guidance off after step 1, as diffusers' own example does."""
    if i == 1:
        pipe._guidance_scale = 0.0
        values["prompt_embeds"] = values["prompt_embeds"].chunk(2)[-1]
    return values


OFF = {"callback_on_step_end": off, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}


def test_a_callback_that_turns_guidance_off():
    """From some step on there is one row a sample, and the pipeline says so."""
    pipe = tiny.tiny_sd()
    seen, look = looking()
    with attached(pipe, look, trace=MID) as run:
        call(pipe, **OFF)
    assert [(c.step.index, c.branch) for c, _ in seen] == [
        (0, "uncond"), (0, "cond"), (1, "uncond"), (1, "cond"), (2, "cond"), (3, "cond"),
    ]  # fmt: skip
    assert run.trace[MID].shape[:2] == (4, 1)


def test_steps_are_kept_as_long_as_there_is_the_branch():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID, when=When(branch="uncond")) as run:
        call(pipe, **OFF)
    made = run.trace
    assert [s.index for s in made.steps] == [0, 1, 2, 3] and [s.index for s in made.kept_steps] == [0, 1]
    assert made[MID].shape[:2] == (2, 1) and torch.equal(made.at(MID, 1), made[MID][1])


def test_a_callback_that_changes_the_latents_is_seen_in_the_trace():
    pipe = tiny.tiny_sd()
    with attached(pipe) as run:
        made = call(pipe, callback_on_step_end=lambda _p, _i, _t, v: {"latents": 0.5 * v["latents"]})
    assert torch.equal(run.trace.latents, made)


@pytest.mark.parametrize("names", [None, ["prompt_embeds"]])
def test_a_callback_gets_what_it_asks_for(names):
    pipe, given = tiny.tiny_sd(), []
    asked = {} if names is None else {"callback_on_step_end_tensor_inputs": names}
    with attached(pipe) as run:
        made = call(pipe, callback_on_step_end=lambda _p, _i, _t, v: given.append(list(v)) or {}, **asked)
    assert given == [names or ["latents"]] * 4 and torch.equal(run.trace.latents, made)


def test_a_callback_of_diffusers_says_itself_what_it_needs():
    pipe = tiny.tiny_sd()
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    plain, (seen, look) = call(pipe, callback_on_step_end=cut), looking()
    with attached(pipe, look):
        assert torch.equal(call(pipe, callback_on_step_end=cut), plain)
    assert [c.branch for c, _ in seen] == ["uncond", "cond"] * 2 + ["cond"] * 2


# rows -------------------------------------------------------------------------------------------------


def test_several_images_a_prompt():
    pipe = tiny.tiny_sd()
    seen, look = looking(branch="cond")
    with attached(pipe, look):
        given = [torch.Generator().manual_seed(i) for i in range(4)]
        call(pipe, ["a cat", "a red dog"], num_images_per_prompt=2, steps=1, generator=given)
    ((context, _),) = seen
    assert context.samples == (0, 1, 2, 3)
    assert [p.text for p in context.prompts] == ["a cat", "a cat", "a red dog", "a red dog"]


def test_skipped_layers_of_stable_diffusion_3_are_a_branch_of_their_own():
    pipe = tiny_families.tiny_sd3()
    site = "transformer/block.0/mlp.out@img"
    seen, look = looking(site)
    with torch.no_grad(), attached(pipe, look):
        call(
            pipe, skip_guidance_layers=[1], skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
            max_sequence_length=24, height=16, width=16, steps=2,
        )  # fmt: skip
    assert [(c.step.index, c.branch) for c, _ in seen] == [
        (0, "uncond"), (0, "cond"), (1, "uncond"), (1, "cond"), (1, "skip_layers"),
    ]  # fmt: skip


def test_flux_whose_embeddings_are_one_tensor_twice_is_refused():
    pipe = tiny_families.tiny_flux()
    short = {"max_sequence_length": 24, "height": 16, "width": 16, "output_type": "latent"}
    embeds, pooled, _ = pipe.encode_prompt("a cat", None, "cpu", max_sequence_length=24)
    given = {
        "prompt_embeds": embeds, "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled, "true_cfg_scale": 2.0,
    }  # fmt: skip
    watch = scale("transformer/block.0/mlp.out@img", 1.0)
    with torch.no_grad(), pytest.raises(AccountError, match="one tensor"), attached(pipe, watch):
        pipe(**given, **short, num_inference_steps=1)


# texts ------------------------------------------------------------------------------------------------


def test_texts_outside_a_call_count_as_the_prompt():
    pipe = tiny.tiny_sd()
    seen, look = looking(TEXT)
    with torch.no_grad(), attached(pipe, look) as run:
        pipe.encode_prompt("a cat", "cpu", 1, False)
        pipe.encode_prompt("a cat", "cpu", 1, True, negative_prompt="a dog")
        ids = pipe.tokenizer("a dog", padding="max_length", max_length=32, return_tensors="pt").input_ids
        pipe.text_encoder(ids)
        with run.assigning("uncond"):
            with run.assigning("cond"):
                pipe.text_encoder(ids)
            pipe.text_encoder(ids)
    assert [c.branch for c, _ in seen] == ["cond", "cond", "uncond", "cond", "cond", "uncond"]
    assert [[w.text for w in c.prompts] for c, _ in seen] == [["a cat"], ["a cat"], ["a dog"], [], [], []]


@pytest.mark.parametrize("make", [tiny.tiny_sd, tiny_families.tiny_ldm])
def test_equal_texts_are_read_in_the_order_of_the_table(make):
    pipe = make()
    seen, look = looking(TEXT)
    with torch.no_grad(), attached(pipe, look):
        pipe("", guidance_scale=4.0, num_inference_steps=1, output_type="np")
        pipe("", guidance_scale=1.0, num_inference_steps=1, output_type="np")
        pipe("", guidance_scale=0.5, num_inference_steps=1, output_type="np")
    sd, ldm = ["cond", "uncond", "cond", "cond"], ["uncond", "cond", "cond", "uncond", "cond"]
    assert [c.branch for c, _ in seen] == (sd if make is tiny.tiny_sd else ldm)


def test_a_negative_text_beside_embeddings():
    pipe = tiny.tiny_sd()
    embeds, _ = pipe.encode_prompt("a cat", "cpu", 1, False)
    seen, look = looking(TEXT)
    with attached(pipe, look):
        pipe(prompt_embeds=embeds, negative_prompt="a dog", num_inference_steps=1, output_type="latent")
    assert [c.branch for c, _ in seen] == ["uncond"]


def test_a_second_encoder_may_read_other_texts():
    pipe = tiny_families.tiny_sdxl()
    first, look = looking(TEXT)
    second, look_too = looking(TEXT.replace("encoder", "encoder_2"))
    rows, look_on = looking()
    with attached(pipe, look, look_too, look_on):
        call(pipe, "a cat", prompt_2="a dog", negative_prompt="a cook", negative_prompt_2="red", steps=1)
    told = [[(c.branch, c.prompts[0].text) for c, _ in seen] for seen in (first, second)]
    assert told == [[("cond", "a cat"), ("uncond", "a cook")], [("cond", "a dog"), ("uncond", "red")]]
    assert [c.prompts for c, _ in rows] == [(), ()]  # no one text is what they read


def test_one_negative_text_for_several_prompts():
    pipe = tiny_families.tiny_sdxl()
    seen, look = looking(TEXT)
    given = [torch.Generator().manual_seed(i) for i in range(2)]
    with attached(pipe, look):
        call(pipe, ["a cat", "a red dog"], negative_prompt="a cook", steps=1, generator=given)
    assert [(c.branch, [w.text for w in c.prompts]) for c, _ in seen] == [
        ("cond", ["a cat", "a red dog"]),
        ("uncond", ["a cook", "a cook"]),
    ]


def test_embeddings_in_place_of_the_negative_text_are_not_taken_for_the_empty_text():
    pipe = tiny.tiny_sd()
    embeds, _ = pipe.encode_prompt("a dog", "cpu", 1, False)
    seen, look = looking()
    with attached(pipe, look):
        call(pipe, negative_prompt_embeds=embeds, steps=1)
    assert [(c.branch, [p.text for p in c.prompts]) for c, _ in seen] == [("uncond", []), ("cond", ["a cat"])]


def test_flux_may_read_one_text_as_prompt_and_as_negative_prompt():
    pipe, text = tiny_families.tiny_flux(), "a cat"
    seen, look = looking("transformer/block.0/mlp.out@img")
    short = {"max_sequence_length": 24, "height": 16, "width": 16, "true_cfg_scale": 2.0}
    with torch.no_grad(), attached(pipe, look):
        call(pipe, text, negative_prompt=text, steps=1, **short)
    assert [c.branch for c, _ in seen] == ["cond", "uncond"]


def test_a_negative_prompt_of_flux_without_a_scale_is_not_read():
    pipe = tiny_families.tiny_flux()
    seen, look = looking("transformer/block.0/mlp.out@img")
    short = {"max_sequence_length": 24, "height": 16, "width": 16, "true_cfg_scale": 1.0}
    with torch.no_grad(), attached(pipe, look):
        call(pipe, negative_prompt="a dog", steps=1, **short)
    assert [c.branch for c, _ in seen] == ["cond"]


def test_texts_are_read_again_only_where_somebody_is_told_of_them():
    pipe, calls = tiny.tiny_sd(), []
    watch = pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    with attached(pipe):
        call(pipe, steps=1)
    plain = len(calls)
    with attached(pipe, zero(MID)):
        call(pipe, steps=1)
    watch.remove()
    assert plain == 2 and len(calls) - plain == 4


def test_tokens_of_neither_text_are_refused():
    pipe = tiny.tiny_sd()

    def other(*_):
        ids = pipe.tokenizer("a dog", padding="max_length", max_length=32, return_tensors="pt").input_ids
        pipe.text_encoder(ids)
        return {}

    with (
        pytest.raises(AccountError, match=r"reads \['a dog'\], neither the prompt"),
        attached(pipe, zero(TEXT)),
    ):
        call(pipe, callback_on_step_end=other)


# calls that are not the pipeline's --------------------------------------------------------------------


def own_loop(pipe, steps=3, together=True, run=None, first=0):
    """As many notebooks write it."""
    ids = [
        pipe.tokenizer(
            t, padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
        )
        for t in ("", "a cat")
    ]
    with torch.no_grad():
        embeds = [pipe.text_encoder(i.input_ids)[0] for i in ids]
        pipe.scheduler.set_timesteps(steps)
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for t in pipe.scheduler.timesteps[first:]:
            if together:
                uncond, cond = pipe.unet(
                    torch.cat([x, x]), t, encoder_hidden_states=torch.cat(embeds)
                ).sample.chunk(2)
            else:
                with run.assigning("uncond"):
                    uncond = pipe.unet(x, t, encoder_hidden_states=embeds[0]).sample
                with run.assigning("cond"):
                    cond = pipe.unet(x, t, encoder_hidden_states=embeds[1]).sample
            x = pipe.scheduler.step(uncond + 4.0 * (cond - uncond), t, x).prev_sample
    return x


ROWS = {"uncond": slice(None, 1), "cond": slice(-1, None)}


def test_a_loop_of_ones_own_says_whose_the_rows_are():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID, rows=ROWS) as run:
        own_loop(pipe)
        made = own_loop(pipe)
    ours = trace(load(pipe), ["a cat"], seeds=[0], steps=3, guidance=4.0, sites=MID)
    for one in run.traces:
        assert torch.equal(one[MID], ours[MID])
        assert [s.index for s in one.steps] == [0, 1, 2]
        assert torch.equal(one.latents, made) and torch.equal(made, ours.latents)
    assert len(run.traces) == 2


def test_a_loop_of_ones_own_ends_where_a_call_begins():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID, rows=ROWS) as run:
        own_loop(pipe)
        call(pipe, steps=2)
    assert [len(one[MID]) for one in run.traces] == [3, 2]


def test_a_call_without_a_call_of_the_network_is_refused():
    class StableDiffusionIdle(diffusers.StableDiffusionPipeline):
        def __call__(self):
            """Make nothing."""

    pipe = StableDiffusionIdle(**tiny.tiny_sd().components, requires_safety_checker=False)
    with (
        pytest.raises(
            AccountError, match="call of StableDiffusionIdle came to its end without a call of unet"
        ),
        attached(pipe, rows=ROWS),
    ):
        pipe()


def test_passes_of_a_loop_of_ones_own():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID) as run:
        own_loop(pipe, together=False, run=run)
    ours = trace(load(pipe), ["a cat"], seeds=[0], steps=3, guidance=4.0, sites=MID)
    torch.testing.assert_close(run.trace[MID], ours[MID], atol=1e-5, rtol=1e-4)
    assert [s.index for s in run.trace.steps] == [0, 1, 2]  # both passes are of one step


def test_a_loop_of_ones_own_may_begin_later():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace=MID, rows=ROWS) as run:
        own_loop(pipe, first=1)
    assert [(s.index, s.t) for s in run.trace.steps] == [
        (i, float(pipe.scheduler.timesteps[i])) for i in (1, 2)
    ]


def test_a_step_that_is_made_twice_is_refused():
    pipe = tiny.tiny_sd()
    pipe.scheduler.set_timesteps(4)
    with (
        torch.no_grad(),
        pytest.raises(AccountError, match=f"{MID} was traced twice at step 1 of one run"),
        attached(pipe, trace=MID, rows={"cond": slice(None)}),
    ):
        for _ in range(2):
            pipe.unet(
                torch.zeros(1, 4, 8, 8),
                pipe.scheduler.timesteps[1],
                encoder_hidden_states=torch.zeros(1, 32, 16),
            )


def test_rows_that_do_not_share_out_the_batch_are_refused():
    pipe = tiny.tiny_sd()
    for rows in (
        {"cond": slice(0, 1)},
        {"cond": slice(0, 2), "uncond": slice(1, 2)},
        {"cond": slice(0, 2), "uncond": slice(2, 2)},
    ):
        with (
            pytest.raises(AccountError, match="do not share out a batch of 2"),
            attached(pipe, zero(MID), rows=rows),
        ):
            own_loop(pipe)


def test_a_loop_of_ones_own_without_rows_is_refused():
    pipe = tiny.tiny_sd()
    with (
        pytest.raises(AccountError, match=r"outside a call of StableDiffusionPipeline.*rows="),
        attached(pipe),
    ):
        own_loop(pipe)


def test_another_pipeline_with_the_same_network_is_refused():
    first = tiny.tiny_sd()
    second = diffusers.StableDiffusionPipeline(**first.components)
    with pytest.raises(AccountError, match="attach the pipeline that you call"), attached(first, zero(MID)):
        call(second)


def test_a_pipeline_that_is_not_in_the_table_says_how_to_give_the_rows():
    sd = tiny.tiny_sd()
    pipe = diffusers.StableDiffusionPAGPipeline(**{**sd.components, "feature_extractor": None})
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match=r"StableDiffusionPAGPipeline is not known.*rows="), attached(pipe):
        pass
    rows = {"uncond": slice(0, 1), "cond": slice(1, 2), "perturbed": slice(2, 3)}
    seen, look = looking()
    with attached(pipe, look, rows=rows) as run:
        call(pipe, pag_scale=3.0)
    assert [c.branch for c, _ in seen] == [*rows] * 4
    assert [s.index for s in run.trace.steps] == [0, 1, 2, 3]
    texts, look = looking(TEXT)
    with attached(pipe, look, rows=rows):
        call(pipe, pag_scale=3.0, steps=1)
    assert [c.branch for c, _ in texts] == ["cond", "uncond"]


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionXLInstructPix2PixPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusion3PAGPipeline",
        "PixArtSigmaPAGPipeline",
        "SanaPAGPipeline",
        "StableDiffusionSAGPipeline",
        "StableDiffusionPanoramaPipeline",
        "StableDiffusionUpscalePipeline",
        "StableDiffusionAttendAndExcitePipeline",
        "FluxControlPipeline",
        "FluxKontextPipeline",
        "SanaSprintPipeline",
    ],
)
def test_pipelines_with_branches_or_passes_of_their_own_are_not_taken_for_their_family(name):
    kind = getattr(diffusers, name)
    with pytest.raises(ValueError, match=f"whose the rows are in a call of {name} is not known"):
        rows_of(kind.__new__(kind))


def test_a_subclass_is_known_by_the_call_that_it_inherits():
    class StableDiffusionPipelineOfMine(diffusers.StableDiffusionPipeline):
        def decode_latents(self, latents):
            return latents

    class StableDiffusionLoop(diffusers.StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    parts = {**tiny.tiny_sd().components, "requires_safety_checker": False}
    with attached(StableDiffusionPipelineOfMine(**parts), trace=MID) as run:
        call(run.model.pipe)
    assert len(run.trace.steps) == 4
    with (
        pytest.raises(ValueError, match="StableDiffusionLoop is not known"),
        attached(StableDiffusionLoop(**parts)),
    ):
        pass
    StableDiffusionLoop.__name__ = "StableDiffusionPipeline"  # the name alone says nothing
    with (
        pytest.raises(ValueError, match="StableDiffusionPipeline is not known"),
        attached(StableDiffusionLoop(**parts)),
    ):
        pass


# the account ------------------------------------------------------------------------------------------


def test_what_never_acted_is_refused():
    pipe = tiny.tiny_sd()
    with pytest.raises(AccountError, match="never acted"), attached(pipe, zero(MID, When(branch="uncond"))):
        call(pipe, guidance_scale=1.0)
    with pytest.raises(AccountError, match="never acted"), attached(pipe, zero(MID, When(steps={4}))):
        call(pipe)


def test_what_is_not_reached_is_refused():
    pipe = tiny.tiny_sd()
    pipe.fuse_qkv_projections()
    with pytest.raises(LookupError, match="has no site .*k_proj"), attached(pipe, zero(CROSS + "k_proj")):
        call(pipe)


def test_a_replaced_network_is_refused():
    pipe = tiny.tiny_sd()
    with pytest.raises(RuntimeError, match="unet was replaced while attached"), attached(pipe, zero(MID)):
        pipe.unet = tiny.tiny_sd().unet
        call(pipe)


def test_a_failing_call_leaves_nothing_and_the_next_is_whole(watch):
    model = load(tiny.tiny_sd())
    before, kind = watch(model), type(model.pipe)

    def fail(*_):
        raise RuntimeError("on purpose")

    with attached(model, trace=MID) as run:
        with pytest.raises(RuntimeError, match="on purpose"):
            call(model.pipe, callback_on_step_end=fail)
        call(model.pipe)
    assert len(run.trace[MID]) == 4 and before.changes() == []
    assert type(model.pipe) is kind


def test_a_trace_keeps_what_interventions_made():
    pipe = tiny.tiny_sd()
    change = scale(MID, 3.0, When({0}))
    with attached(pipe, change, trace=MID) as run:
        call(pipe)
    ours = trace(load(pipe), ["a cat"], seeds=[0], steps=4, guidance=7.5, sites=MID, interventions=[change])
    assert torch.equal(run.trace[MID], ours[MID])


def test_what_is_kept_is_a_copy():
    pipe, seen = tiny.tiny_sd(), []
    with attached(pipe, trace=MID) as run:
        call(pipe)

    def spoil(x, _):
        for old in seen:
            old.zero_()
        seen.append(x)

    with attached(pipe, Intervention(MID, spoil), trace=MID) as spoilt:
        call(pipe)
    assert torch.equal(spoilt.trace[MID], run.trace[MID])


def test_the_scale_of_guidance_is_known_meanwhile():
    pipe, told = tiny.tiny_sd(), []
    look = Intervention(MID, lambda *_: told.append(run.model.call.guidance_scale))
    with attached(pipe, look) as run:
        call(pipe, steps=1, guidance_scale=3.0)
    assert told == [3.0]


def test_a_place_that_a_call_leaves_out_is_named_at_once():
    pipe, steps = tiny.tiny_sd(), []
    whole = pipe.unet.mid_block.forward

    def later_nothing(hidden, *args, **kwargs):
        steps.append(1)
        return whole(hidden, *args, **kwargs) if len(steps) == 1 else hidden

    pipe.unet.mid_block.forward = later_nothing
    with pytest.raises(AccountError, match=f"{MID} was not reached at step 1"), attached(pipe, trace=MID):
        call(pipe)
    assert len(steps) == 2


def test_a_trace_of_all_branches_is_refused():
    with (
        pytest.raises(ValueError, match="one guidance branch"),
        attached(tiny.tiny_sd(), trace=MID, when=When(branch=None)),
    ):
        pass


def test_attached_twice_each_has_its_trace():
    model = load(tiny.tiny_sd())
    with attached(model, trace=MID) as outer, attached(model, trace=MID) as inner:
        call(model.pipe)
    assert torch.equal(outer.trace[MID], inner.trace[MID]) and len(outer.trace.steps) == 4


def with_ip_adapter():
    pipe = tiny.tiny_sd()
    generator, d = torch.Generator().manual_seed(1), pipe.unet.config.cross_attention_dim
    projection = {
        "proj.weight": torch.randn(4 * d, 12, generator=generator), "proj.bias": torch.zeros(4 * d),
        "norm.weight": torch.ones(d), "norm.bias": torch.zeros(d),
    }  # fmt: skip
    keys, names = {}, [n for n in pipe.unet.attn_processors if not n.endswith("attn1.processor")]
    for i, name in enumerate(names):
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for p in "kv":
            keys[f"{2 * i + 1}.to_{p}_ip.weight"] = torch.randn(width, d, generator=generator)
    state = {"image_proj": projection, "ip_adapter": keys}
    pipe.unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    pipe.set_ip_adapter_scale(1.0)
    one = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(2))
    return pipe, {"ip_adapter_image_embeds": [torch.cat([torch.zeros(1, 1, 12), one])]}


@pytest.mark.parametrize("kind", ["q", "k", "v", "probs", "z"])
def test_inside_attention_an_ip_adapter_is_refused(kind):
    pipe, image = with_ip_adapter()
    with (
        pytest.raises(AccountError, match=r"reached 2 times.*IP-Adapter"),
        attached(pipe, trace=CROSS + kind),
    ):
        call(pipe, **image)


def test_outside_attention_an_ip_adapter_is_watched():
    pipe, image = with_ip_adapter()
    plain = call(pipe, **image)
    sites = [CROSS + "out", MID, "unet/mid.attn.0.0/self_attn.probs"]
    with attached(pipe, trace=sites) as run:
        assert torch.equal(call(pipe, **image), plain)
    assert [tuple(run.trace[s].shape[:2]) for s in sites] == [(4, 1)] * 3
    with attached(pipe, zero(CROSS + "out")):
        assert not torch.equal(call(pipe, **image), plain)


# word maps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", ["mean", "each"])
@pytest.mark.parametrize(
    "make", [tiny.tiny_sd, tiny_families.tiny_sd3, tiny_families.tiny_flux, tiny_families.tiny_pixart_sigma]
)
def test_word_maps_of_a_call_are_those_of_our_own_loop(make, time):
    model = load(make(), size=(16, 16))
    model.t5_tokens = model.text_tokens = 24
    texts, run = ["a red cat", "a red dog"], {"guidance": 4.0, "steps": 2}
    ours = word_maps(model, texts, ["red"], seeds=[5, 6], time=time, **run)
    sites = model.reading_sites()
    with torch.no_grad(), attached(model, trace=sites) as watched:
        generators = [torch.Generator().manual_seed(s) for s in (5, 6)]
        model.run_pipeline(texts, generators, 2, 4.0)
    theirs = maps_from_trace(watched.trace, watched.model, ["red"], time=time)
    xr.testing.assert_equal(ours.maps, theirs.maps)
    assert torch.equal(ours.latents, theirs.latents)


def test_word_maps_of_a_picture_that_is_changed():
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**tiny.tiny_sd().components)
    pipe.set_progress_bar_config(disable=True)
    with attached(pipe, trace="unet/**/cross_attn.probs") as run:
        call(pipe, "a red cat", image=PICTURE, strength=0.5, negative_prompt="a dog")
    about = run.trace.about
    assert (about["strength"], about["guidance_scale"], about["negative"]) == (0.5, 7.5, "a dog")
    assert (about["pipeline"], about["steps"]) == ("StableDiffusionImg2ImgPipeline", 2)
    maps = maps_from_trace(run.trace, run.model, ["cat"], size=(16, 16)).maps
    assert maps.shape == (1, 1, 16, 16) and float(maps.max()) > 0


def test_a_size_is_rounded_as_the_pipeline_rounds_it():
    pipe = tiny_families.tiny_flux()
    with torch.no_grad(), attached(pipe) as run:
        call(pipe, height=18, width=33, max_sequence_length=24, steps=1)
    assert run.trace.about["size"] == list(run.trace.images.shape[-2:]) == [16, 32]


def test_word_maps_of_other_rows_are_refused():
    pipe = tiny.tiny_sd()
    with attached(pipe, trace="unet/**/cross_attn.probs", when=When(branch="uncond")) as run:
        call(pipe)
    with pytest.raises(ValueError, match="rows of all samples that read the prompt"):
        maps_from_trace(run.trace, run.model)
    with attached(pipe, trace=MID) as run:
        call(pipe)
    with pytest.raises(LookupError, match="holds no attention to the text"):
        maps_from_trace(run.trace, run.model)


def test_prompts_hold_what_the_denoiser_is_given():
    pipe = tiny.tiny_sd()
    plain = load(pipe).encode(["a cat"])[0]
    (seen, look), change = looking(branch="cond"), scale(TEXT, 3.0)
    with attached(pipe, look):
        call(pipe, steps=1)
    with attached(pipe, change, look):
        call(pipe, steps=1)
    first, second = (c.prompts[0].embeds for c, _ in seen)
    assert torch.equal(first, plain.embeds) and not torch.equal(second, plain.embeds)


def test_prompts_hold_the_pooled_text_that_the_denoiser_is_given():
    pipe = tiny_families.tiny_sdxl()
    plain = load(pipe).encode(["a cat"])[0]
    (seen, look), change = looking(branch="cond"), scale("text_encoder_2/layer.0/mlp.out", 3.0)
    with attached(pipe, change, look):
        call(pipe, steps=1)
    assert plain.pooled is not None and not torch.equal(seen[0][0].prompts[0].pooled, plain.pooled)
