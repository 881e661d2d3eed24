"""What word maps cost, against the usual processor, at the attention shapes of Stable Diffusion XL.

One guided step of a UNet with random weights, which has few layers of XL's: 10 heads of 4096 places and 20
of 1024, 64 channels each, that read 77 tokens of 2048 channels. The baseline does what the published code
(DAAM) does: a processor computes the softmax of every token for all rows, with a matrix product in place of
the fused kernel, keeps the maps of all tokens, and resizes all of them at the end. Each run has a process of
its own, so that peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from measure import Pair, Row, clock
from torch import Tensor
from torch.nn import functional as F
from tracing import peak

import denoscope
from denoscope.analysis import word_maps
from denoscope.models.synthetic.published_text import clip
from denoscope.models.synthetic.tiny import quiet, tiny_vae
from denoscope.models.synthetic.tiny_text import tiny_tokenizer

PROMPT, WORDS, GUIDANCE = "a red cat", ["red", "cat"], 5.0
Maps = dict[str, Tensor]


def opened() -> denoscope.Model:
    """A random pipeline whose cross-attention has the shapes of XL's."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(640, 1280),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=clip(vocab_size=512, hidden_size=2048, num_hidden_layers=1, num_attention_heads=32),
        tokenizer=tiny_tokenizer(77),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return denoscope.load(quiet(pipe))


class Manual:
    """Attention by hand, whose probabilities are added up: [head, query, token] for each layer."""

    def __init__(self, kept: Maps, name: str) -> None:
        self.kept, self.name = kept, name

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Attend to the text; the second half of the batch is the one that reads the prompt."""
        texts = encoder_hidden_states
        q, k, v = (
            attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(texts), attn.to_v(texts))
        )
        probs = attn.get_attention_scores(q, k)
        mine = probs[len(probs) // 2 :]
        self.kept[self.name] = self.kept[self.name] + mine if self.name in self.kept else mine
        out: Tensor = attn.to_out[0](attn.batch_to_head_dim(probs @ v))
        return out


def bare(model: denoscope.Model) -> None:
    """The pipeline alone."""
    model.pipe(PROMPT, num_inference_steps=1, guidance_scale=GUIDANCE, output_type="latent",
               generator=torch.Generator().manual_seed(0))  # fmt: skip


def theirs(model: denoscope.Model) -> Tensor:
    """Maps of the words [word, y, x], the usual way."""
    unet, kept = model.pipe.unet, Maps()
    before = unet.attn_processors
    unet.set_attn_processor({n: Manual(kept, n) if ".attn2." in n else p for n, p in before.items()})
    bare(model)
    unet.set_attn_processor(before)
    size = model.picture_grid
    all_ = torch.cat([resized(maps, size) for maps in kept.values()]).mean(0)  # [token, y, x]
    prompt = model.encode([PROMPT])[0]
    return torch.stack([all_[prompt.find(word)].mean(0) for word in WORDS])


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[head, query, token] as [head, token, y, x]."""
    side = round(maps.shape[1] ** 0.5)
    grid = maps.transpose(1, 2).unflatten(-1, (side, side))
    return F.interpolate(grid, tuple(size), mode="bicubic").clamp(min=0)


def ours(model: denoscope.Model) -> Tensor:
    """The same maps by ``word_maps``."""
    found = word_maps(model, [PROMPT], WORDS, seeds=[0], steps=1, guidance=GUIDANCE)
    return torch.from_numpy(found.maps.values[0])


WAYS = {"bare": bare, "ours": ours, "theirs": theirs}


def measure(rounds: int) -> list[Row]:
    """Time, and peak memory beyond that of the bare run; the maps are the same, which is checked."""
    runs = [{way: _child(way) for way in WAYS} for _ in range(rounds)]
    apart = max(
        abs(a - b) for run in runs for a, b in zip(run["ours"]["maps"], run["theirs"]["maps"], strict=True)
    )
    if apart > 1e-5:
        raise RuntimeError(f"the maps of both ways differ by {apart:.1e}, so their costs cannot be compared")
    seconds = {way: [run[way]["seconds"] for run in runs] for way in WAYS}
    bytes_ = {way: median(run[way]["peak"] - run["bare"]["peak"] for run in runs) for way in WAYS}
    pair = Pair(seconds["ours"], seconds["theirs"])
    times = "{:.1f} s against {:.1f} s".format(*pair.seconds) + f"; bare {median(seconds['bare']):.1f} s"
    memory = f"{bytes_['ours'] / 1e6:.0f} MB against {bytes_['theirs'] / 1e6:.0f} MB beyond the bare run's"
    what, against = "word maps at SDXL's attention shapes", "manual softmax, all maps kept"
    return [
        Row(f"{what}: time", against, pair.ratio, 1.0, note=f"{times}; maps differ by {apart:.0e}"),
        Row(f"{what}: peak extra memory", against, bytes_["ours"] / bytes_["theirs"], 1.0, note=memory),
    ]


def _child(way: str) -> dict[str, Any]:
    command = [sys.executable, __file__, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def _run_once(way: str) -> None:
    """In the child: one run, what it took, and its maps."""
    torch.set_num_threads(1)
    model, maps = opened(), list[Any]()
    seconds = clock(lambda: maps.append(WAYS[way](model)))
    told = [] if maps[0] is None else maps[0].flatten().tolist()
    print(json.dumps({"seconds": seconds, "peak": peak(), "maps": told}))


if __name__ == "__main__":
    _run_once(sys.argv[1])
