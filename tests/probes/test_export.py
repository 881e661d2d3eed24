"""Traces elsewhere: xarray alone opens them, and what was damaged is one clear error."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.site import Site
from denoscope.models.store.sealed import MANIFEST
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_sdxl
from denoscope.probes.intervene import zero
from denoscope.probes.stored import variable
from denoscope.probes.trace import Trace, trace

OUT, PROBS = Site("unet/mid.attn.0.0/cross_attn.out"), Site("unet/mid.attn.0.0/cross_attn.probs")
Q, K = Site("unet/mid.attn.0.0/cross_attn.q"), Site("unet/mid.attn.0.0/cross_attn.k")
TEXT, PICTURE = Site("text_encoder/layer.1/resid.post"), Site("unet/mid.res.0/resid.post")
PROMPTS, RUN = ["a cat", "a dog"], {"seeds": [4, 9], "steps": 3}


def test_sites_share_dimensions(tiny: Any) -> None:
    data = trace(tiny, PROMPTS, sites=[OUT, "unet/mid.attn.0.0/mlp.out"], **RUN).to_xarray()
    assert data[variable(OUT)].dims == ("step", "sample", "token", "channel")
    assert set(data.sizes) == {
        "step", "sample", "token", "channel", "latent_channel", "latent_height", "latent_width"
    }  # fmt: skip
    data = trace(tiny, PROMPTS, sites=[OUT, PROBS, Q, K, TEXT, PICTURE], **RUN).to_xarray()
    n, text = data[variable(OUT)].shape[2], data[variable(TEXT)].shape[1]
    assert data[variable(PROBS)].dims == ("step", "sample", "head", "query", "key")
    assert data[variable(Q)].dims == ("step", "sample", "head", f"token_{n}", "channel_8")
    assert data[variable(K)].dims == ("step", "sample", "head", f"token_{text}", "channel_8")
    assert data[variable(TEXT)].dims == ("sample", f"token_{text}", "channel_16")
    assert data[variable(PICTURE)].dims == ("step", "sample", "channel_16", "height", "width")
    assert data[variable(OUT)].attrs["site"] == str(OUT)


def test_what_is_not_known_is_not_named(tiny: Any) -> None:
    """A mean over channels leaves tokens, which would be called channels by their number of axes."""
    data = trace(tiny, PROMPTS, sites=[OUT], reduce=lambda x: x.mean(-1), **RUN).to_xarray()
    assert data[variable(OUT)].dims == ("step", "sample", "axis1")
    model = Analytic(two_by_two())
    run = trace(model, ["", ""], sites=model.sites("**")[:1], **RUN)
    assert run.to_xarray()[variable(next(iter(run)))].dims[:2] == ("step", "sample")


def test_kept_samples_are_labelled_as_what_they_are(tiny: Any, tmp_path: Path) -> None:
    run = trace(tiny, PROMPTS, sites=[OUT, TEXT], when=When(rows=(1,)), **RUN)
    data = run.to_xarray()
    assert data["sample"].values.tolist() == [1] and data["seed"].values.tolist() == [9]
    assert data["prompt"].values.tolist() == ["a dog"]
    np.testing.assert_array_equal(data["latents"].values, run.latents[1:].numpy())
    run.save(tmp_path / "run.zarr")
    back = Trace.load(tmp_path / "run.zarr")
    assert torch.equal(back.latents, run.latents) and back.samples == (1,) and back.seeds == (4, 9)
    xr.testing.assert_identical(back.to_xarray(), data)


@pytest.fixture
def run(tiny: Any) -> Trace:
    return trace(tiny, PROMPTS, sites=[OUT, PROBS, Q, K, TEXT, PICTURE], when=When({0, 2}), **RUN)


def test_xarray_alone_opens_what_is_saved(run: Trace, tmp_path: Path) -> None:
    """With warnings as errors; a plain call finds all sites, with their dimensions and labels."""
    run.save(tmp_path / "run.zarr")
    with xr.open_zarr(tmp_path / "run.zarr") as found:
        xr.testing.assert_identical(found.load(), run.to_xarray())
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as tree:
        assert set(tree.data_vars) == {"latents", *map(variable, run)}
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr", consolidated=False) as tree:
        assert len(tree["prompts"].data_vars) == len(PROMPTS)


def test_zeros_are_zeros_for_xarray_too(tiny: Any, tmp_path: Path) -> None:
    """A fill value would make them NaN, and integers floating point numbers."""
    run = trace(tiny, PROMPTS, sites=[OUT, TEXT], interventions=[zero(OUT), zero(TEXT)], **RUN)
    run.save(tmp_path / "saved.zarr")
    trace(
        tiny,
        PROMPTS,
        sites=[OUT, TEXT],
        interventions=[zero(OUT), zero(TEXT)],
        store=tmp_path / "streamed.zarr",
        **RUN,
    )
    for name in ("saved", "streamed"):
        with xr.open_zarr(tmp_path / f"{name}.zarr") as found:
            assert not found[variable(OUT)].values.any() and not found[variable(TEXT)].values.any()
            assert found["latents"].values.any() and found["seed"].values.tolist() == [4, 9]


def test_datasets_go_through_zarr_and_netcdf(run: Trace, tmp_path: Path) -> None:
    data = run.to_xarray()
    data.to_zarr(tmp_path / "d.zarr", zarr_format=2)
    with xr.open_zarr(tmp_path / "d.zarr") as found:
        xr.testing.assert_identical(found.load(), data)
    data.to_netcdf(tmp_path / "d.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "d.nc", engine="scipy") as found:
        assert {*found.data_vars} == {*data.data_vars} and found.attrs == data.attrs
        for name in data.data_vars:
            xr.testing.assert_equal(found[name].drop_vars("prompt"), data[name].drop_vars("prompt"))
        assert found["prompt"].values.tolist() == PROMPTS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_number_formats_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    pipe = tiny_sd()
    pipe.to(dtype)
    model = load(pipe)
    memory = trace(model, PROMPTS, sites=[OUT, TEXT], **RUN)
    memory.save(tmp_path / "saved.zarr")
    streamed = trace(model, PROMPTS, sites=[OUT, TEXT], store=tmp_path / "streamed.zarr", **RUN)
    for back in (Trace.load(tmp_path / "saved.zarr"), streamed, Trace.load(tmp_path / "streamed.zarr")):
        for site in memory:
            assert back[site].dtype == dtype and torch.equal(back[site], memory[site])
        assert back.latents.dtype == memory.latents.dtype and torch.equal(back.latents, memory.latents)
        assert [p.digest for p in back.prompts] == [p.digest for p in memory.prompts]


def test_a_store_is_a_whole_trace(tiny: Any, tmp_path: Path) -> None:
    memory = trace(tiny, PROMPTS, sites=[OUT, TEXT], **RUN)
    trace(tiny, PROMPTS, sites=[OUT, TEXT], store=tmp_path / "acts.zarr", **RUN)
    back = Trace.load(tmp_path / "acts.zarr", tiny)
    xr.testing.assert_identical(
        back.to_xarray()[sorted(back.to_xarray())], memory.to_xarray()[sorted(memory.to_xarray())]
    )
    assert torch.equal(back.images, memory.images) and back.about == memory.about


def test_sizes_that_a_network_is_told_are_kept(tmp_path: Path) -> None:
    """They are part of what Stable Diffusion XL reads."""
    run = trace(load(tiny_sdxl()), ["a cat"], seeds=[0], steps=1, original_size=(512, 512))
    run.save(tmp_path / "run.zarr")
    back = Trace.load(tmp_path / "run.zarr")
    assert run.prompts[0].sizes and [p.digest for p in back.prompts] == [p.digest for p in run.prompts]


# damage --------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_whatever_is_damaged_is_noticed(run: Trace, tmp_path: Path) -> None:
    """Every file of a trace: lost, cut, one bit changed, or another one of its kind put in its place."""
    whole = tmp_path / "run.zarr"
    run.save(whole)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    read = {name for name in files if name.parts[0] not in ("seed", "prompt", "sample", "step", "sigma")}
    ways = (Path.unlink, cut, flip, lambda p: p.write_bytes((whole / files[1]).read_bytes()))
    for i, name in enumerate(files):
        for how in ways[i % 2 :: 2]:  # each file in two ways, each way with every other file
            part = tmp_path / "part.zarr"
            shutil.copytree(whole, part)
            how(part / name)
            changed = not (part / name).exists() or (part / name).read_bytes() != (whole / name).read_bytes()
            try:
                back = Trace.load(part)
                same = all(torch.equal(back[s], run[s]) for s in run) and torch.equal(
                    back.latents, run.latents
                )
            except ValueError as error:
                assert changed and "part.zarr" in str(error) and "\n" not in str(error)
            else:
                assert same and (not changed or name not in read or str(name) == MANIFEST), name
            shutil.rmtree(part)


def test_the_error_says_what_is_damaged(run: Trace, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    run.save(path)
    back = Trace.load(path)
    next((path / variable(OUT)).glob("1.0*")).unlink()  # zarr would read zeros
    with pytest.raises(
        ValueError, match=rf"could not read .*run.zarr.*{variable(OUT)} is not what was written"
    ):
        _ = back[OUT]
    assert torch.equal(back[TEXT], run[TEXT])
    with xr.open_zarr(path) as found:
        assert not found[variable(OUT)].values[1].any()


def test_what_is_no_trace_is_refused(run: Trace, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    run.save(path)
    (path / ".DS_Store").write_bytes(b"what file browsers leave")
    (path / variable(OUT) / ".DS_Store").write_bytes(b"what file browsers leave")
    assert torch.equal(Trace.load(path)[OUT], run[OUT])
    (path / MANIFEST).unlink()
    for other in (path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"holds no trace: it has no manifest"):
            Trace.load(other)


@pytest.mark.parametrize("rows", [(1, 0), (1, 1), (0, 1), (0,)])
def test_rows_kept_in_another_order_leave_the_run_as_it_was(tiny: Any, tmp_path: Path, rows: Any) -> None:
    """Latents, prompts and seeds are of all samples, in order; the dataset is of those that were kept."""
    whole = trace(tiny, PROMPTS, sites=[OUT], **RUN)
    run = trace(tiny, PROMPTS, sites=[OUT], when=When(rows=rows), **RUN)
    run.save(tmp_path / "trace")
    again = Trace.load(tmp_path / "trace", tiny)
    for found in (run, again):
        assert torch.equal(found.latents, whole.latents) and found.seeds == whole.seeds
        assert torch.equal(found[OUT], whole[OUT][:, list(rows)]) and found.samples == rows
        assert torch.equal(found.images, whole.images)
    with xr.open_zarr(tmp_path / "trace") as data:
        assert data["sample"].values.tolist() == list(rows)
        assert np.array_equal(data["latents"].values, whole.latents[list(rows)].numpy())
        assert data["prompt"].values.tolist() == [PROMPTS[r] for r in rows]


def test_pictures_of_a_loaded_trace_have_the_size_of_the_run(tmp_path: Path) -> None:
    """Packed latents of 16 x 32 are as many as those of 32 x 16, or of other pictures."""
    model = load(tiny_flux()).sized((16, 32))
    run = trace(model, ["a cat"], seeds=[0], steps=1)
    run.save(tmp_path / "trace")
    for opened in (model, model.sized((32, 16)), load(tiny_flux())):
        assert torch.equal(Trace.load(tmp_path / "trace", opened).images, run.images)
