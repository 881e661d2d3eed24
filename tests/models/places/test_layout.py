"""The axes of every site of every family, held against real tensors of pictures that are not square."""

import re
from functools import cache

import pytest
import torch
from peft import LoraConfig
from torch import nn

from denoscope.models.load import load
from denoscope.models.places.hooks import hooked
from denoscope.models.places.layout import Layout, Tokens, site_layout
from denoscope.models.run.context import Call
from denoscope.models.sites import site_shapes
from denoscope.models.synthetic import tiny
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.sizes import full_size
from tests.models.families.test_families import FAMILIES, opened, shortened

every = pytest.mark.parametrize("name", FAMILIES)
WIDE = slice(None)


@cache
def wide(name):
    """A model that paints pictures of unequal sides, where its family can."""
    if name == "ddpm":
        pipe = tiny.tiny_ddpm()
        pipe.unet.register_to_config(sample_size=(8, 16))
        return load(pipe)
    return opened(name, FAMILIES[name].size)


def sizes(model):
    return [(site, model.layout(site), site_shapes(model)[site]) for site in model.sites()]


def taken(part, n):
    return list(range(n))[part] if part else []


@every
def test_sizes_multiply_out_at_every_site(name):
    model = wide(name)
    height, width = model.picture_grid
    assert height != width or name == "dit"
    for site, layout, shape in sizes(model):
        assert len(layout.axes) == len(shape), site
        size = dict(zip(layout.axes, shape, strict=True))
        assert size.get("head") == layout.heads, site
        if "height" in size:
            assert (size["height"], size["width"]) == layout.grid, site
        for axis, tokens in (("token", layout.tokens), ("query", layout.tokens), ("key", layout.keys)):
            if axis in size:
                picture, text = (taken(part, size[axis]) for part in (tokens.picture, tokens.text))
                assert sorted(picture + text) == list(range(size[axis])), site
                if picture:
                    assert len(picture) == layout.grid[0] * layout.grid[1], site
        if layout.grid:  # shrunk by the same factor on both sides
            assert layout.grid[0] * width == layout.grid[1] * height, site


@every
def test_text_tokens_are_as_many_as_the_prompt_has(name):
    model = wide(name)
    n = len(model.encode([""])[0].embeds)
    for site, layout, shape in sizes(model):
        if site.component in ("unet", "transformer"):
            size = dict(zip(layout.axes, shape, strict=True))
            tokens = layout.keys or layout.tokens
            if tokens and tokens.text:
                assert len(taken(tokens.text, size.get("key") or size["token"])) == n, site


def channels(model, site):
    """What a module's own attributes say, where they say it."""
    module, port = model.module(site), model.place(site).port
    if isinstance(module, nn.Linear):
        return module.in_features if port == "in" else module.out_features
    if isinstance(module, nn.Conv2d):
        return module.in_channels if port == "in" else module.out_channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    return None


@every
def test_the_channel_axis_has_the_channels_of_the_module(name):
    model, tried = wide(name), 0
    for site, layout, shape in sizes(model):
        wanted = channels(model, site)
        if wanted:
            assert (0, *shape)[layout.channel_axis] == wanted, site
            tried += 1
        if site.kind.endswith("attn.z"):
            last = [s for s in model.sites(f"{site.component}/{site.block}/{site.kind[:-2]}.q_proj*")][0]
            assert (0, *shape)[layout.channel_axis] * layout.heads == site_shapes(model)[last][-1], site
    assert tried > 5


def test_odd_sides_are_halved_as_the_network_does():
    model = load(FAMILIES["ldm"].make(), size=(24, 40))  # 3 x 5 latents
    assert model.layout("unet/mid.res.0/resid.post").grid == (2, 3)
    assert model.layout("unet/up.0.upsample/out").grid == (3, 5)
    for _, layout, shape in sizes(model):
        if "height" in layout.axes:
            assert shape[1:] == layout.grid


ROW, COLUMN = 6, 13  # of the latents, 8 x 16


def moved(name, site):
    """How much each entry at a site moves when one latent pixel does, [channel or token, ...]."""
    model = wide(name)
    x = model.noise([0])
    y = x.clone()
    if x.ndim == 4:
        y[:, :, ROW, COLUMN] += 1
    else:  # packed, two by two
        pixels = torch.zeros(1, model.latent_shape[-1] // 4, *model.picture_grid)
        pixels[:, :, ROW, COLUMN] = 1
        y += model.pipe._pack_latents(pixels, *pixels.shape)
    step, found = model.steps(1)[0], []
    prompts = model.encode([""])
    with torch.no_grad(), hooked(model, [(site, lambda seen: found.append(seen[0:1].clone()))]):
        for start in (x, y):
            with model.calling(Call(model.input_site.component, {"cond": slice(0, 1)}, (step,))):
                model.predict(start, step, prompts)
    return (found[1] - found[0])[0].abs()


def cells(change, layout):
    """The change at each cell of the picture's grid, and how much the text's tokens moved."""
    axis = layout.token_axis
    if axis is None:
        return change.amax(0), torch.zeros(())
    change = change.movedim(axis - 1, 0).flatten(1).amax(1)
    text = change[layout.text].amax() if layout.text else torch.zeros(())
    return change[layout.picture].view(layout.grid), text


EXACT = {  # before attention mixes them, one patch moves one token
    "pixart-alpha": ["in/patch.out", "block.0/resid.pre", "block.0/self_attn.q", "block.0/self_attn.k_proj"],
    "sana": ["in/patch.out", "block.0/resid.pre", "block.0/self_attn.v_proj"],
    "sd3": ["in/patch.out", "block.0/resid.pre@img", "block.0/joint_attn.q", "block.0/joint_attn.v"],
    "flux-dev": ["in/patch.out", "block.0/resid.pre@img", "block.0/joint_attn.k", "block.0/joint_attn.v"],
}


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, places in EXACT.items() for p in places])
def test_one_patch_moves_one_cell_of_a_transformer(name, place):
    model = wide(name)
    site = f"transformer/{place}"
    layout = model.layout(site)
    change, text = cells(moved(name, model.sites(site)[0]), layout)
    side = model.picture_grid[0] // layout.grid[0]
    assert (change > 0).nonzero().tolist() == [[ROW // side, COLUMN // side]]
    assert text == 0


@pytest.mark.parametrize("name", ["sd", "ldm", "ddpm"])
def test_one_pixel_moves_its_neighbours_in_a_unet(name):
    model = wide(name)
    site = model.sites("unet/in/conv.out")[0]
    change, _ = cells(moved(name, site), model.layout(site))
    around = {(r, c) for r in range(ROW - 1, ROW + 2) for c in range(COLUMN - 1, COLUMN + 2)}
    assert {tuple(x) for x in (change > 0).nonzero().tolist()} == around
    plain = name == "ddpm"
    kinds = ["resid.pre"] if plain else ["resid.pre", "self_attn.q", "self_attn.k_proj"]
    for kind in kinds:  # group norms spread a little of the change everywhere
        site = model.sites(f"unet/down.1.attn.0{'' if plain else '.0'}/{kind}")[0]
        change, _ = cells(moved(name, site), model.layout(site))
        most = divmod(int(change.argmax()), change.shape[1])
        assert abs(most[0] - ROW // 2) <= 1 and abs(most[1] - COLUMN // 2) <= 1, site


@pytest.mark.parametrize(("name", "order"), [("sd3", "img"), ("flux-dev", "txt")])
def test_joint_attention_tells_who_comes_first(name, order):
    layout = wide(name).layout("transformer/block.0/joint_attn.probs")
    assert layout.axes == ("head", "query", "key") and layout.tokens == layout.keys
    n = layout.grid[0] * layout.grid[1]
    first = (slice(0, n), slice(n, None)) if order == "img" else (slice(-n, None), slice(0, -n))
    assert (layout.picture, layout.text) == first


def test_cross_attention_asks_for_the_picture_and_reads_the_text():
    layout = wide("sd").layout("unet/mid.attn.0.0/cross_attn.probs")
    assert layout == Layout(
        ("head", "query", "key"), (4, 8), Tokens(picture=WIDE), Tokens(text=WIDE), heads=2
    )
    assert (layout.token_axis, layout.channel_axis) == (2, None)
    keys = wide("sd").layout("unet/mid.attn.0.0/cross_attn.k")
    assert keys == Layout(("head", "token", "channel"), None, Tokens(text=WIDE), None, heads=2)
    assert (keys.picture, keys.text) == (None, WIDE)


def test_axes_are_counted_with_the_sample_axis():
    layout = wide("sd").layout("unet/mid.res.0/resid.post")
    assert layout.axes == ("channel", "height", "width") and layout.channel_axis == 1
    assert wide("sd").layout("unet/mid.attn.0.0/resid.post").channel_axis == 2


def test_what_cannot_be_known_is_refused():
    model = Analytic(two_by_two())
    with pytest.raises(LookupError, match=r"axes of denoiser/gate/out are not known: .*Gate"):
        site_layout(model, "denoiser/gate/out")
    with pytest.raises(LookupError, match="has no site 'unet/mid/out'"):
        model.layout("unet/mid/out")


def test_the_analytic_model_says_its_own():
    model = Analytic(two_by_two())
    shapes = {s: (len(model.layout(s).axes), model.layout(s).channel_axis) for s in model.sites()}
    assert {s: len(shape) for s, shape in site_shapes(model).items()} == {
        s: n for s, (n, _) in shapes.items()
    }
    assert shapes[model.sites("denoiser/components/means")[0]][1] == 2
    assert shapes[model.sites("denoiser/gate/out")[0]][1] is None


class Strange(nn.Module):
    """Nobody knows what it does."""


@pytest.mark.parametrize("path", ["mid_block.attentions.0.transformer_blocks.0.norm3", "down_blocks.0"])
def test_an_unknown_module_is_refused(path):
    pipe = tiny.tiny_sd()
    if path.endswith("norm3"):
        pipe.unet.get_submodule(path.rsplit(".", 1)[0]).norm3 = Strange()
        site = "unet/mid.attn.0.0/resid.mid2"
    else:
        pipe.unet.get_submodule(path).downsamplers[0] = Strange()
        site = "unet/mid.res.0/resid.post"
    with pytest.raises(LookupError, match=re.escape(f"the axes of {site} are not known") + ".*Strange"):
        load(pipe).layout(site)


def test_layers_with_a_lora_are_known():
    pipe, plain = tiny.tiny_sd(), load(tiny.tiny_sd())
    names = ["to_q", "to_out.0", "ff.net.2", "time_emb_proj", "conv2", "conv_in", "downsamplers.0.conv"]
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=names))
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["out_proj", "fc2"]))
    model = load(pipe)
    assert all(model.layout(site) == plain.layout(site) for site in model.sites())


@pytest.mark.parametrize(
    ("name", "site", "grid"),
    [
        ("sd-1.5", "unet/mid.attn.0.0/cross_attn.q", (8, 8)),
        ("sd-1.5", "unet/up.1.attn.2.0/cross_attn.q", (16, 16)),
        ("sd-2.1", "unet/down.0.attn.0.0/self_attn.z", (96, 96)),
        ("sdxl", "unet/mid.attn.0.9/cross_attn.out", (32, 32)),
        ("sdxl", "unet/up.1.attn.0.0/cross_attn.probs", (64, 64)),
        ("pixart-sigma", "transformer/block.27/cross_attn.probs", (64, 64)),
        ("sd3-medium", "transformer/block.23/joint_attn.z", (64, 64)),
        ("flux-dev", "transformer/single.37/attn_mlp.out", (64, 64)),
        ("sana-1.6b", "transformer/block.19/mlp.act", (32, 32)),
        ("dit-xl-2", "transformer/block.0/self_attn.k", (16, 16)),
        ("ldm-text2im", "unet/mid.attn.0.0/cross_attn.probs", (4, 4)),
        ("ddpm-cifar10", "unet/up.0.upsample/out", (8, 8)),
    ],
)
def test_published_models_have_the_grids_they_are_known_for(name, site, grid):
    assert full_size(name).layout(site).grid == grid


def test_no_forward_is_needed(monkeypatch):
    model = shortened(load(tiny.tiny_sd()))
    monkeypatch.setattr(type(model), "predict", None)
    assert all(model.layout(s).axes for s in model.sites())
