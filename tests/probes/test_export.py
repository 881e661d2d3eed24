"""Labels say what each axis is, whatever was kept; what is saved is read again as it was."""

import numpy as np
import pytest
import torch

from denoscope.models.run.context import When
from denoscope.models.run.levels import Step
from denoscope.models.site import Site
from denoscope.models.text.prompt import Prompt, Words
from denoscope.probes.trace import Trace, trace

PROMPTS, RUN = ["a cat", "a red dog"], {"seeds": [4, 9], "steps": 3}
OUT, RES = "unet/mid.attn.0.0/cross_attn.out", "unet/mid.res.0/resnet.out"
TEXT = "text_encoder/layer.0/mlp.out"
STEPS = (Step(0, 900.0, 4.0), Step(1, 500.0, 2.0), Step(2, 100.0, 0.5))


def prompt(text, **more):
    spans = ((0, 0), (0, len(text)), (0, 0))
    return Prompt(text, ("<s>", text, "</s>"), spans, embeds=torch.randn(3, 4), **more)


def made(acts=(), kept=STEPS, seeds=(4, 9), prompts=None, latents=None, **about):
    """A trace as a run leaves it, of made up numbers."""
    return Trace(
        {Site(s): x for s, x in dict(acts).items()},
        kept,
        STEPS,
        tuple(prompt(t) for t in PROMPTS) if prompts is None else prompts,
        seeds,
        torch.randn(2, 4, 8, 8) if latents is None else latents,
        {"model": "M", **about},
        lambda x: x,
    )


# as a dataset -----------------------------------------------------------------------------------------


def test_the_dataset_of_a_run_is_labelled(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT, TEXT], when=When({0, 2}), **RUN)
    data = run.to_xarray()
    assert data[OUT].dims == ("step", "sample", f"token of {OUT}", f"channel of {OUT}")
    assert data[TEXT].dims == ("sample", f"token of {TEXT}", f"channel of {TEXT}")
    assert list(data["prompt"].values) == PROMPTS and list(data["seed"].values) == [4, 9]
    assert list(data["step"].values) == [0, 2]
    assert list(data["sigma"].values) == [s.sigma for s in run.kept_steps]
    np.testing.assert_array_equal(data[OUT].values, run[OUT].numpy())
    np.testing.assert_array_equal(data["latents"].values, run.latents.numpy())


@pytest.mark.parametrize(
    ("site", "shape", "axes"),
    [
        (RES, (16, 4, 5), ("channel", "height", "width")),
        (OUT, (16, 8), ("token", "channel")),
        (OUT, (8,), ("channel",)),
        ("unet/mid.attn.0.0/cross_attn.probs", (2, 16, 32), ("head", "query", "key")),
        ("unet/mid.attn.0.0/cross_attn.k", (2, 32, 8), ("head", "token", "channel")),
        ("unet/mid.attn.0.0/cross_attn.z", (2, 16, 8), ("head", "token", "channel")),
        (RES, (2, 3, 4, 5), ("axis0", "axis1", "axis2", "axis3")),
    ],
)
def test_each_axis_has_its_name(site, shape, axes):
    data = made({site: torch.randn(3, 2, *shape)}).to_xarray()
    assert data[site].dims == ("step", "sample", *(f"{axis} of {site}" for axis in axes))
    assert data["latents"].dims == ("sample", *(f"{a} of latents" for a in ("channel", "height", "width")))


def test_without_steps_there_is_no_axis_of_steps():
    data = made({TEXT: torch.randn(2, 3, 4)}).to_xarray()
    assert "step" not in data.coords and "sigma" not in data.coords


def test_plain_provenance_is_told():
    data = made(steps=3, guidance=7.5, negative="bad", versions={"torch": "2"}, size=[8, 8]).to_xarray()
    assert data.attrs == {"model": "M", "steps": 3, "guidance": 7.5, "negative": "bad"}


def test_rows_that_were_kept_alone_have_an_axis_of_their_own(tiny):
    run = trace(tiny, PROMPTS, sites=[OUT, TEXT], when=When(rows=(1,)), **RUN)
    data = run.to_xarray()
    assert data[OUT].dims[:2] == ("step", f"sample of {OUT}") and data[OUT].shape[:2] == (3, 1)
    assert data[TEXT].dims[0] == f"sample of {TEXT}"
    assert data["latents"].dims[0] == "sample" and list(data["prompt"].values) == PROMPTS


def test_what_was_reduced_to_one_number_has_steps_alone():
    assert made({OUT: torch.randn(3)}).to_xarray()[OUT].dims == ("step",)


def test_what_is_not_known_of_the_samples_is_left_out():
    """Calls of one's own may have no seeds, and no prompts."""
    data = made({OUT: torch.randn(3, 2, 4)}, seeds=()).to_xarray()
    assert list(data["prompt"].values) == PROMPTS and "seed" not in data.coords
    data = made({OUT: torch.randn(3, 2, 4)}, seeds=(), prompts=()).to_xarray()
    assert data[OUT].dims[1] == "sample" and not {"seed", "prompt"} & set(data.coords)
    data = made({OUT: torch.randn(3, 2, 4)}, seeds=(), prompts=(), latents=torch.zeros(0)).to_xarray()
    assert data[OUT].dims[1] == f"sample of {OUT}"


# on disk ----------------------------------------------------------------------------------------------


def test_save_and_load(tiny, tmp_path):
    run = trace(tiny, PROMPTS, sites=[OUT, TEXT], when=When({0, 2}), **RUN)
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


def test_prompts_are_read_again_as_they_were(tmp_path):
    told = prompt(
        "cat",
        pooled=torch.randn(5),
        mask=torch.tensor([1, 1, 0]),
        read={"text_encoder": Words("cat", ("ca", "t"), ((0, 2), (2, 3)))},
        sizes={"original_size": (16, 8)},
    )
    made(prompts=(told, prompt("dog"))).save(tmp_path / "run.zarr")
    first, second = Trace.load(tmp_path / "run.zarr").prompts
    assert first.digest == told.digest and first.sizes == told.sizes
    assert (first.text, first.tokens, first.spans) == (told.text, told.tokens, told.spans)
    words = first.of("text_encoder")
    assert (words.text, words.tokens, words.spans) == ("cat", ("ca", "t"), ((0, 2), (2, 3)))
    assert second.pooled is None and second.mask is None and dict(second.read) == {}


def test_half_precision_is_saved_as_numbers_that_numpy_has(tmp_path):
    acts = torch.randn(3, 2, 4, dtype=torch.bfloat16)
    made({OUT: acts}).save(tmp_path / "run.zarr")
    assert torch.equal(Trace.load(tmp_path / "run.zarr")[OUT], acts.float())


def test_what_is_no_trace_is_refused(tmp_path):
    import zarr

    zarr.open_group(str(tmp_path / "other.zarr"), mode="w").attrs["other"] = 1
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "other.zarr", tmp_path / "file"):
        with pytest.raises(ValueError, match=f"{path.name} holds no trace; give a folder"):
            Trace.load(path)
