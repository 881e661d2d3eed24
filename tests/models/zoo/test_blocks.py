"""Joint attention begins with what cross-attention has learnt of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from denoscope.models.zoo.training import __main__ as steps
from denoscope.models.zoo.training.fit.blocks import begin_with
from denoscope.models.zoo.training.fit.denoisers import new_joint_transformer, new_transformer
from denoscope.models.zoo.training.recipes import RECIPES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def both():
    torch.manual_seed(0)
    joint, cross = new_joint_transformer(2, 2, 16, states=16), new_transformer(4, 2, 16, states=16)
    for parameter in cross.parameters():  # a new one says nothing
        nn.init.normal_(parameter, std=0.2)
    begin_with(joint, cross)
    return joint.eval(), cross.eval()


def test_patches_and_times_are_the_same(both):
    joint, cross = both
    x, times = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        assert torch.equal(joint.pos_embed(x), cross.pos_embed(x))
        ours = joint.time_text_embed(times, torch.randn(2, 32))
        _, theirs = cross.adaln_single(times, batch_size=2, hidden_dtype=torch.float32)
        assert torch.equal(ours, theirs)


def test_first_and_last_block_treat_a_picture_as_theirs_do(both):
    joint, cross = both
    x, times = torch.randn(2, 64, 32), torch.tensor([3.0, 700.0])
    told, plain = cross.adaln_single(times, batch_size=2, hidden_dtype=torch.float32)
    for ours, theirs in ((0, 0), (1, 3)):
        block, other = joint.transformer_blocks[ours], cross.transformer_blocks[theirs]
        table = other.scale_shift_table[None] + told.view(2, 6, -1)
        shift, scale, *gates = table.unbind(1)
        read, *modulation = block.norm1(x, emb=plain)
        torch.testing.assert_close(read, other.norm1(x) * (1 + scale[:, None]) + shift[:, None])
        for one, two in zip(modulation, gates, strict=True):
            torch.testing.assert_close(one, two)
        assert torch.equal(block.ff(x), other.ff(x))
        assert torch.equal(block.attn.to_v(x), other.attn1.to_v(x))
        rows = torch.randn(5000, 32)
        queries = other.attn1.to_q(rows).unflatten(-1, (2, 16))
        kept = (block.attn.norm_q(queries).square().mean() / queries.square().mean()).item()
        assert kept == pytest.approx(1, abs=0.1)  # as large as before, though they are normed


def test_the_output_is_theirs_but_for_the_time(both):
    joint, cross = both
    x = torch.randn(2, 64, 32)
    shift, scale = cross.scale_shift_table
    theirs = cross.proj_out(cross.norm_out(x) * (1 + scale) + shift)
    torch.testing.assert_close(joint.proj_out(joint.norm_out(x, torch.randn(2, 32))), theirs)


def test_what_does_not_fit_is_refused(both):
    joint, cross = both
    with pytest.raises(ValueError, match="PixArtTransformer2DModel in the place of a SD3Transformer2DModel"):
        begin_with(cross, cross)
    with pytest.raises(ValueError, match="64 wide; those that begin with them are 32 wide"):
        begin_with(joint, new_transformer(2, 4, 16, states=16))


def test_the_recipe_begins_so_where_a_base_gives_its_latents():
    recipe, shipped = RECIPES["emoji-mmdit"], ROOT / "models" / "zoo"
    begun, anew = steps._first(recipe, shipped / "emoji"), steps._first(recipe, None)
    other = steps._first(RECIPES["emoji-dit"], shipped / "emoji-dit")
    ours, theirs = begun.transformer_blocks[5], other.transformer_blocks[7]
    assert torch.equal(ours.ff.net[2].weight, theirs.ff.net[2].weight)
    assert not torch.equal(anew.pos_embed.proj.weight, begun.pos_embed.proj.weight)
