"""What a method needs that rides beside the text in joint attention (ConceptAttention, Helbling et al.)."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from denoscope.probes.intervene import scale
from denoscope.probes.observe import Observer
from denoscope.probes.trace import trace
from tests.models.families.test_families import opened

RUN = {"seeds": [0, 1], "steps": 1}
TEXTS = ["a cat", "a red dog"]


def double_blocks(model):
    return [s.block for s in model.sites("transformer/block.*/resid.pre@txt")]


class Passenger:
    """The prompt's own rows, carried through a block by its text-side modules, from its sites alone."""

    def __init__(self, model, block):
        self.model, self.stem, self.errors = model, f"transformer/{block}", {}
        kinds = {"txt": "resid.pre@txt", "temb": "adaln.temb", "z": "joint_attn.z"}
        kinds |= {p: f"joint_attn.{p}" for p in "kv"}
        self.post = f"{self.stem}/resid.post@txt"
        self.last = self.post not in map(str, model.sites())
        kinds |= {} if self.last else {"post": "resid.post@txt"}
        self.observer = Observer({name: f"{self.stem}/{kind}" for name, kind in kinds.items()}, self.ride)

    def ride(self, parts, _):
        block = self.model.module(f"{self.stem}/resid.pre@txt")
        c, temb, attention = parts["txt"], parts["temb"], block.attn
        # the last block of SD3 hands on no text, and has no gates for it
        inside, *gates = (block.norm1_context(c, temb),) if self.last else block.norm1_context(c, emb=temb)

        def heads(projection, norm=None):
            x = projection(inside).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            return x if norm is None else norm(x)

        layout = self.model.layout(f"{self.stem}/joint_attn.k")
        keys, values = (parts[p][:, :, layout.picture] for p in "kv")
        q = heads(attention.add_q_proj, attention.norm_added_q)
        k = torch.cat([keys, heads(attention.add_k_proj, attention.norm_added_k)], 2)
        out = F.scaled_dot_product_attention(q, k, torch.cat([values, heads(attention.add_v_proj)], 2))
        self.errors["z"] = (out - parts["z"][:, :, layout.text]).abs().max()
        if self.last:
            return
        gate, shift, spread, gate_mlp = gates
        c = c + gate[:, None] * attention.to_add_out(out.transpose(1, 2).flatten(2))
        inner = block.norm2_context(c) * (1 + spread[:, None]) + shift[:, None]
        c = c + gate_mlp[:, None] * block.ff_context(inner)
        self.errors["post"] = (c - parts["post"]).abs().max()


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_the_prompts_own_rows_are_carried_as_the_text_stream_is(name):
    model = opened(name)
    riders = [Passenger(model, block) for block in double_blocks(model)]
    plain = trace(model, TEXTS, **RUN)
    ridden = trace(model, TEXTS, interventions=[r.observer for r in riders], **RUN)
    assert torch.equal(plain.latents, ridden.latents) and len(riders) > 1
    for rider in riders:
        assert set(rider.errors) == ({"z"} if rider.last else {"z", "post"})
        assert max(rider.errors.values()) < 1e-5, rider.stem


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_the_conditioning_of_a_block_is_one_vector_and_may_be_changed_there_alone(name):
    model = opened(name)
    first, second = (f"transformer/{b}/adaln.temb" for b in double_blocks(model)[:2])
    assert model.layout(first).axes == ("channel",)
    plain = trace(model, TEXTS, sites=[first, second], **RUN)
    assert torch.equal(plain[first], plain[second])
    changed = trace(model, TEXTS, sites=[second], interventions=[scale(first, 2.0)], **RUN)
    assert torch.equal(changed[second], plain[second])
    assert not torch.equal(changed.latents, plain.latents)
