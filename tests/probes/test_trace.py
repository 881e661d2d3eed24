"""Traces: the picture is bit-identical, shapes are as promised, stores are whole or absent."""

import json
import logging

import numpy as np
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from denoscope.probes import keep
from denoscope.probes.intervene import Intervention, scale
from denoscope.probes.keep import Keeper
from denoscope.probes.trace import Trace, trace

PROMPTS, RUN = ["a cat", "a red dog"], {"seeds": [4, 9], "steps": 3}
OUT = "unet/mid.attn.0.0/cross_attn.out"
PROBS = "unet/mid.attn.0.0/cross_attn.probs"


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_tracing_every_site_leaves_the_picture_as_it_is(tiny, guidance):
    generators = [torch.Generator().manual_seed(s) for s in RUN["seeds"]]
    theirs = tiny.run_pipeline(PROMPTS, generators, 3, guidance)
    run = trace(tiny, PROMPTS, sites="**", guidance=guidance, **RUN)
    assert torch.equal(run.images, theirs) and len(run) == len(tiny.sites())


def test_a_negative_prompt_is_that_of_the_plain_run(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT], negative="a red emoji", **RUN)
    with torch.no_grad():
        *_, state = tiny.sample(PROMPTS, negative="a red emoji", **RUN)
    assert torch.equal(run.latents, state.latents)
    assert not torch.equal(run.latents, trace(tiny, PROMPTS, **RUN).latents)


def test_shapes(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT, "text_encoder/layer.0/mlp.out"], **RUN)
    assert run[OUT].shape == (3, 2, 16, 16)
    assert run["text_encoder/layer.0/mlp.out"].shape == (2, 32, 16)
    assert run.latents.shape == (2, 4, 8, 8) and run.images.shape == (2, 3, 16, 16)
    assert run.images.min() >= 0 and run.images.max() <= 1
    assert [p.text for p in run.prompts] == PROMPTS and run.seeds == (4, 9)


def test_a_batch_equals_its_parts(tiny):
    both = trace(tiny, PROMPTS, sites=[OUT, PROBS], **RUN)
    for i in range(2):
        one = trace(tiny, [PROMPTS[i]], sites=[OUT, PROBS], seeds=[RUN["seeds"][i]], steps=3)
        for site in one:
            torch.testing.assert_close(both[site][:, i : i + 1], one[site], atol=1e-5, rtol=1e-4)


def test_when_cuts_steps_and_picks_a_branch(tiny):
    some = trace(tiny, PROMPTS, sites=[OUT], when=When({1, 2}), **RUN)
    every = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    other = trace(tiny, PROMPTS, sites=[OUT], when=When(branch="uncond"), **RUN)
    assert torch.equal(some[OUT], every[OUT][1:]) and torch.equal(
        some.at(OUT, 2), every.at(OUT, every.steps[2])
    )
    assert torch.equal(other[OUT][:, 0][0], other[OUT][0, 0]) and not torch.equal(other[OUT], every[OUT])
    with pytest.raises(LookupError, match=r"step 0 was not kept; there are steps \[1, 2\]"):
        some.at(OUT, 0)


def test_the_unconditional_rows_read_the_negative_prompt(tiny):
    """One negative prompt, two samples of one seed: equal rows, whatever the prompts say."""
    run = trace(
        tiny,
        PROMPTS,
        sites=["unet/mid.attn.0.0/cross_attn.k"],
        when=When({0}, "uncond"),
        seeds=[0, 0],
        steps=2,
    )
    told = trace(
        tiny, PROMPTS, sites=["unet/mid.attn.0.0/cross_attn.k"], when=When({0}), seeds=[0, 0], steps=2
    )
    k, c = next(iter(run.values())), next(iter(told.values()))
    assert torch.equal(k[0, 0], k[0, 1]) and not torch.equal(c[0, 0], c[0, 1])


def test_reduce_and_dtype_keep_less(tiny):
    every = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    less = trace(tiny, PROMPTS, sites=[OUT], reduce=lambda x: x.mean(1), dtype=torch.float16, **RUN)
    assert less[OUT].dtype == torch.float16 and torch.equal(less[OUT], every[OUT].mean(2).half())


def test_what_is_kept_is_a_copy(tiny):
    """A later intervention that writes in place cannot reach what was kept before it."""
    seen = []
    early = Intervention(OUT, lambda x, _: seen.append(x))
    run = trace(tiny, PROMPTS, sites=[OUT], interventions=[early], **RUN)
    before = run[OUT].clone()
    for x in seen:
        x.zero_()
    assert torch.equal(run[OUT], before)


def test_interventions_act_before_anything_is_kept(tiny):
    """Whatever the order of sites; the kept tensor is the one that the network goes on with."""
    plain = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    run = trace(tiny, PROMPTS, sites=[OUT], interventions=[scale(OUT, 3.0, When({0}))], **RUN)
    torch.testing.assert_close(run[OUT][0], 3 * plain[OUT][0])


def test_each_step_is_handed_over_and_told(tiny):
    states, told = [], []
    run = trace(tiny, PROMPTS, on_step=states.append, progress=lambda *now: told.append(now), **RUN)
    assert [s.step for s in states] == list(run.steps) and torch.equal(states[-1].latents, run.latents)
    assert told == [(1, 3, "sampling"), (2, 3, "sampling"), (3, 3, "sampling")]


def test_it_tells_what_it_is(tiny):
    run = trace(
        tiny, PROMPTS, sites=[OUT, OUT, Site(OUT)], when=When({1}), size=(24, 16), guidance=2.0, **RUN
    )
    assert repr(run) == "Trace(2 samples, 3 steps, 1 sites, 0.0 MB, StableDiffusionPipeline)"
    assert (run.about["size"], run.about["steps"], run.about["guidance"]) == ([24, 16], 3, 2.0)
    assert run.latents.shape == (2, 4, 12, 8) and run.images.shape == (2, 3, 24, 16)
    (line,) = run.account.lines
    assert (line.calls, line.steps, line.rows) == (1, (1,), 2)


def test_a_store_holds_the_same(tiny, tmp_path):
    memory = trace(tiny, PROMPTS, sites=[OUT, "text_encoder/layer.1/resid.post"], **RUN)
    disk = trace(
        tiny, PROMPTS, sites=[OUT, "text_encoder/layer.1/resid.post"], store=tmp_path / "acts.zarr", **RUN
    )
    assert sorted(map(str, disk)) == sorted(map(str, memory))
    assert all(torch.equal(disk[s], memory[s]) for s in memory)
    assert torch.equal(disk.latents, memory.latents)
    assert [p.name for p in tmp_path.iterdir()] == ["acts.zarr"]
    chunks = [
        p.name for p in (tmp_path / "acts.zarr").glob(f"*{OUT.rpartition('/')[2]}/*") if p.name[0] != "."
    ]
    assert len(chunks) == 3  # a step is read alone


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_store_keeps_the_format_that_is_asked_for(tiny, tmp_path, dtype):
    how = {"sites": [OUT], "dtype": getattr(torch, dtype), **RUN}
    memory = trace(tiny, PROMPTS, **how)
    disk = trace(tiny, PROMPTS, store=tmp_path / "acts.zarr", **how)
    assert disk[OUT].dtype == memory[OUT].dtype == getattr(torch, dtype)
    assert torch.equal(disk[OUT], memory[OUT])


def test_a_run_that_fails_leaves_no_store(tiny, tmp_path):
    def fail(x, context):
        if context.step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trace(
            tiny,
            PROMPTS,
            sites=[OUT],
            store=tmp_path / "acts.zarr",
            interventions=[Intervention(OUT, fail)],
            **RUN,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_not_overwritten(tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists"):
        trace(tiny, PROMPTS, sites=[OUT], store=tmp_path / "mine", **RUN)


def test_what_a_tokenizer_does_not_know_is_saved_too(tiny, tmp_path):
    run = trace(tiny, ["a 猫 cat"], seeds=[0], steps=1, sites="unet/out/eps")
    run.save(tmp_path / "run.zarr")
    (prompt,) = Trace.load(tmp_path / "run.zarr").prompts
    assert prompt.unknown == run.prompts[0].unknown != () and not prompt.reads("猫")


def test_save_and_load(tiny, tmp_path):
    run = trace(tiny, PROMPTS, sites=[OUT, "text_encoder/layer.0/mlp.out"], when=When({0, 2}), **RUN)
    run.save(tmp_path / "run.zarr")
    back = Trace.load(tmp_path / "run.zarr", tiny)
    assert all(torch.equal(back[s], run[s]) for s in run) and list(back) == list(run)
    assert torch.equal(back.images, run.images)
    assert (back.steps, back.kept_steps, back.seeds, back.about) == (
        run.steps,
        run.kept_steps,
        run.seeds,
        run.about,
    )
    assert back.prompts[1].find("dog") == run.prompts[1].find("dog")
    with pytest.raises(ValueError, match="without its model"):
        _ = Trace.load(tmp_path / "run.zarr").images
    with pytest.raises(FileExistsError):
        run.save(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match="holds no trace"):
        Trace.load(tmp_path)


def test_the_dataset_is_labelled(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT, PROBS], **RUN)
    data = run.to_xarray()
    out, probs = (str(s).replace("/", "__") for s in (OUT, PROBS))
    assert data[out].dims[:2] == ("step", "sample") and data[probs].sizes["step"] == 3
    assert list(data["prompt"].values) == PROMPTS and list(data["seed"].values) == [4, 9]
    np.testing.assert_array_equal(data[probs].values, run[PROBS].numpy())
    assert data["sigma"].values[0] > data["sigma"].values[-1]


def test_the_bytes_are_announced_once_and_many_loudly(tiny, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, "denoscope"):
        run = trace(tiny, PROMPTS, sites=[OUT], **RUN)
        trace(tiny, PROMPTS, **RUN)  # keeps nothing, and says nothing
    kept = run[OUT].numel() * 4
    (record,) = caplog.records
    assert f"{kept / 1e6:.1f} MB at 1 sites" in record.getMessage() and record.levelname == "INFO"
    caplog.clear()
    monkeypatch.setattr("denoscope.probes.keep.WARN_BYTES", kept)
    trace(tiny, PROMPTS, sites=[OUT], **RUN)
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_an_unconditional_stochastic_model_traces():
    model = load(tiny_ddpm())
    run = trace(model, seeds=[0, 1], steps=3, sites="unet/mid.attn.0/self_attn.out")
    theirs = model.run_pipeline(["", ""], [torch.Generator().manual_seed(s) for s in (0, 1)], 3, 1.0)
    assert torch.equal(run.images, theirs) and len(run) == 1


def test_a_site_is_in_a_trace_or_not(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    assert OUT in run and "unet/mid.attn.0.0/mlp.out" not in run and 3 not in run


def test_wrong_calls_say_what_to_write(tiny):
    with pytest.raises(LookupError, match="did you mean"):
        trace(tiny, PROMPTS, sites="unet/mid.attn.0.0/cros_attn.out", **RUN)
    with pytest.raises(TypeError, match=r"\['a cat'\]"):
        trace(tiny, "a cat", seeds=[0])
    with pytest.raises(TypeError, match=r"single number 3.*\[3\]"):
        trace(tiny, seeds=3)
    with pytest.raises(LookupError, match="did you mean"):
        trace(tiny, PROMPTS, sites=[Site("unet/mid.attn.0.0/cros_attn.out")], **RUN)
    with pytest.raises(ValueError, match="one guidance branch"):
        trace(tiny, PROMPTS, sites=[OUT], when=When(branch=None), **RUN)
    with pytest.raises(LookupError, match="was not traced"):
        _ = trace(tiny, PROMPTS, sites=[OUT], **RUN)["unet/mid.attn.0.0/mlp.out"]
    with pytest.raises(ValueError, match="2 prompts but 3 seeds"):
        trace(tiny, PROMPTS, seeds=[0, 1, 2])


def test_a_trace_says_which_interventions_acted(tiny):
    change = scale("unet/mid.attn.0.0/cross_attn.out", 0.5, when=When(steps=[1]))
    run = trace(tiny, ["a cat"], seeds=[0], steps=2, interventions=[change])
    described = run.about["interventions"]
    assert described == [change.described] and json.loads(json.dumps(described)) == described
    assert change.described == {
        "site": "unet/mid.attn.0.0/cross_attn.out",
        "does": "scale",
        "digest": change.spec.digest,
        "steps": [1],
        "branch": "cond",
    }
    assert "interventions" not in trace(tiny, ["a cat"], seeds=[0], steps=1).about


# from a GPU -----------------------------------------------------------------------------------------------


class Sent(torch.Tensor):
    """A tensor of main memory that says it is on a GPU, or pinned."""

    is_cuda = True

    def is_pinned(self):
        return True


def test_what_a_gpu_sends_is_pinned_up_to_a_limit_and_waited_for(monkeypatch):
    asked, waited, empty = [], [], torch.empty

    def made(*shape, pin_memory, **how):
        asked.append(pin_memory)
        buffer = empty(*shape, **how)
        return buffer.as_subclass(Sent) if pin_memory else buffer

    monkeypatch.setattr(torch, "empty", made)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(keep, "PINNED_BYTES", 50)
    keeper, x = Keeper(2, None), torch.arange(4.0).as_subclass(Sent)
    for step in range(2):
        for site in "ab":
            keeper.add(Site(f"unet/{site}/out"), step, x + step)
    assert asked == [True, False]  # 32 bytes each
    assert not waited and len(keeper.kept()) == 2 and waited == [torch.device("cpu")]
    assert not keeper.sending
    for kept in keeper.result().values():
        assert kept.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_what_comes_from_main_memory_is_neither_pinned_nor_waited_for(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("there is no GPU"))
    run = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    assert not run[OUT].is_pinned()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_trace_on_a_gpu_keeps_what_was_there():
    model = load(tiny_sd().to("cuda"))
    seen = []
    look = Intervention(Site(OUT), lambda x, _: seen.append(x.cpu()))
    run = trace(model, PROMPTS, sites=[OUT], interventions=[look], **RUN)
    assert run[OUT].is_pinned() and torch.equal(run[OUT], torch.stack(seen))
    assert torch.equal(run.latents, trace(model, PROMPTS, **RUN).latents)
