"""Paths between two places: what is told adds up, none hear of what comes later, planted wires are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import denoscope
from denoscope.analysis import Noise, Scores, path_effect, trace_denoiser
from denoscope.analysis.mediation.choice import denoiser_sites
from denoscope.analysis.mediation.corruption import Swap
from denoscope.models.families.stable_diffusion import StableDiffusion
from denoscope.models.places.blocks import Place
from denoscope.models.places.resolve import resolve
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3
from denoscope.probes.intervene import patch
from tests.analysis.mediation.test_mediation import height

ROUNDING = 2e-5
EARLY, LATE = "unet/down.1.attn.0.0/cross_attn.out", "unet/up.0.attn.0.0/cross_attn.out"
HOW: dict[str, Any] = {
    "seeds": [0], "metric": height, "corruption": Noise(draws=2), "steps": 2, "guidance": 3.0,
}  # fmt: skip


def paths(model: Any, senders: Any, receivers: Any, **settings: Any) -> Scores:
    return path_effect(model, ["a red cat"], "cat", senders, receivers, **{**HOW, **settings})


def some(outcome: Any) -> Tensor:
    return outcome.latents.flatten(1)[:, ::3].sum(1)


def ones(outcome: Any) -> Tensor:
    return torch.ones(len(outcome.latents))


def layers(model: Any, pattern: str) -> list[str]:
    return [str(s) for s in model.sites(pattern)]


def test_all_that_read_the_sender_have_its_whole_effect(tiny: Any) -> None:
    """The text is read by keys and values alone: told of the clean one, the picture is the clean one."""
    readers = [*layers(tiny, "unet/**/cross_attn.k_proj"), *layers(tiny, "unet/**/cross_attn.v_proj")]
    for state in ("clean", "corrupted"):
        found = paths(tiny, "unet/in/text", [readers, readers[:1]], state=state)
        whole, one = found.mean().values[0]
        assert whole == pytest.approx(1, abs=1e-3) and abs(one) < 0.9
    assert found.values.dims == ("site", "receiver", "prompt", "seed", "draw")
    assert found.values["receiver"].values.tolist() == [
        f"{readers[0]} and {len(readers) - 1} more",
        readers[0],
    ]


def test_through_the_output_all_paths_are_the_total_effect_of_a_site(tiny: Any) -> None:
    whole = paths(tiny, EARLY, "unet/out/eps", held=())
    true = trace_denoiser(tiny, ["a red cat"], "cat", sites=EARLY, source="in_place", **HOW).normalised
    assert whole.mean().item() == pytest.approx(true.mean().item(), abs=1e-3)
    direct = paths(tiny, EARLY, "unet/out/eps")
    assert abs(direct.mean().item() - true.mean().item()) > 1e-3


def test_nobody_hears_of_what_comes_later(tiny: Any) -> None:
    found = paths(
        tiny, [EARLY, LATE], [EARLY.replace("out", "q_proj"), LATE.replace("out", "q_proj")], held=()
    )
    first, second = found.values.mean(("prompt", "seed", "draw")).values
    assert first[0] == 0 and second.tolist() == [0, 0] and first[1] != 0
    still = paths(tiny, EARLY, LATE, held="unet/**")
    assert float(abs(still.values).max()) < ROUNDING  # all ways are held


@pytest.mark.parametrize("family", [tiny_sd, tiny_pixart_alpha, tiny_sd3, tiny_flux])
def test_equals_two_runs_by_hand(family: Any) -> None:
    """In one step: record the receiver where the sender is patched and all else frozen; patch it alone."""
    model = denoscope.load(family().to(torch.float64))
    kind = next(k for k in ("cross_attn.out", "joint_attn.out@img") if model.places() and any(
        str(s).endswith(k) for s in model.places()))  # fmt: skip
    part = model.input_site.component
    sender, receiver = (Site(s) for s in layers(model, f"{part}/**/{kind}")[:2])
    with torch.no_grad():
        for site in layers(model, f"{part}/**/{kind}"):  # else one step does next to nothing
            for weight in model.weights(site).values():
                weight.mul_(20)
    how = {"seeds": [0], "steps": 1, "guidance": 3.0}
    found = path_effect(
        model, ["a red cat"], "cat", sender, receiver, metric=some, corruption=Swap("dog"), **how
    )

    held = [s for s in denoiser_sites(model, None) if s not in (sender, receiver)]
    clean = denoscope.trace(model, ["a red cat"], sites=[sender], **how)
    plain = denoscope.trace(model, ["a red dog"], sites=held, **how)
    frozen = [patch(sender, clean), *(patch(s, plain) for s in held)]
    told = denoscope.trace(model, ["a red dog"], sites=[receiver], interventions=frozen, **how)
    final = denoscope.trace(model, ["a red dog"], interventions=[patch(receiver, told)], **how)
    scores = [float(some(denoscope.analysis.metrics.Outcome(r.latents, (), lambda x: x)))
              for r in (clean, plain, final)]  # fmt: skip
    want = (scores[2] - scores[1]) / (scores[0] - scores[1])
    assert found.mean().item() == pytest.approx(want, rel=1e-6)
    assert found.values.attrs["state"] == "clean" and abs(want) > 1e-3


class Wired(nn.Module):
    """A linear denoiser: each path reads the input and the paths before it, over wires of given strength."""

    def __init__(self, wires: Sequence[Sequence[float]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in, self.last = nn.Conv2d(4, 4, 1), nn.Identity()
        self.text = nn.Linear(16, 4)
        self.paths = nn.ModuleList([nn.Conv2d(4, 4, 1, bias=False) for _ in wires])
        self.wires = wires

    def forward(
        self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        h = self.conv_in(x)
        said = [self.text(encoder_hidden_states.mean(1))[:, :, None, None].expand_as(h)]
        for path, row in zip(self.paths, self.wires, strict=True):
            said.append(path(h + sum(w * s for w, s in zip(row, said, strict=True))))
        return (self.last(h + sum(said)),)


class Toy(StableDiffusion):
    """Stable Diffusion's text encoder before wires."""

    def __init__(self, wires: Sequence[Sequence[float]]) -> None:
        super().__init__(tiny_sd())
        self.toy = Wired(wires)

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), **({"unet": self.toy} if hasattr(self, "toy") else {})}

    def _resolve(self) -> dict[Site, Place]:
        if not hasattr(self, "toy"):
            return super()._resolve()
        found = resolve({"text_encoder": self.components["text_encoder"]})
        places = {"in/conv.out": self.toy.conv_in, "text/mlp.out": self.toy.text, "out/eps": self.toy.last}
        places |= {f"path.{i}/mlp.out": path for i, path in enumerate(self.toy.paths)}
        return found | {Site(f"unet/{n}"): Place(m, "out", None, n) for n, m in places.items()}

    @property
    def denoiser(self) -> nn.Module:
        return self.toy


PATHS = [f"unet/path.{i}/mlp.out" for i in range(3)]


def test_direct_paths_add_up_in_a_linear_denoiser() -> None:
    model = Toy([[1.0], [0.5, 0.0], [1.0, -1.0, 0.5]])
    edges = paths(model, "unet/text/mlp.out", [*PATHS, "unet/out/eps"], seeds=[0, 1])
    assert float(edges.mean().sum()) == pytest.approx(1, abs=1e-3)  # the text is all that the subject changes
    both = paths(model, "unet/text/mlp.out", [PATHS[:2]]).mean()
    assert both.item() == pytest.approx(float(edges.mean().values[0, :2].sum()), abs=1e-3)
    all_ways = paths(model, "unet/text/mlp.out", PATHS[2:], held=()).mean()
    assert abs(all_ways.item() - float(edges.mean().values[0, 2])) > 1e-2


@pytest.mark.parametrize("planted", [(0, 1), (0, 2), (1, 2)])
def test_finds_the_only_wire(planted: tuple[int, int]) -> None:
    sender, receiver = planted
    wires = [[1.0], [1.0, 0.0], [1.0, 0.0, 0.0]]
    wires[receiver][1 + sender] = 3.0
    model, found = Toy(wires), {}
    for i in range(2):
        shares = paths(model, PATHS[i], PATHS[i + 1 :]).mean().values[0]
        found |= {(i, i + 1 + j): abs(share) for j, share in enumerate(shares)}
    assert [pair for pair, share in found.items() if share > 1e-4] == [planted]
    assert found[planted] > 1e-2


def test_is_drawn_as_a_matrix(tiny: Any) -> None:
    found = paths(tiny, [EARLY, LATE], [LATE.replace("out", "q_proj"), "unet/out/eps"])
    (heat,) = found.plot("share").data
    assert np.shape(heat.z) == (2, 2) and heat.z[1][0] == 0


def test_what_cannot_be_is_told(tiny: Any) -> None:
    def fail(match: str, *given: Any, kind: Any = ValueError, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            paths(tiny, *given, **settings)

    fail(f"{EARLY} is sender and receiver", [EARLY, LATE], EARLY)
    fail("state is 'mine'", EARLY, LATE, state="mine")
    fail("not in the denoiser", "text_encoder/layer.0/mlp.out", LATE)
    fail("not in the denoiser", EARLY, "text_encoder/layer.0/mlp.out")
    fail("receivers is empty", EARLY, [])
    fail("receivers hold", EARLY, [LATE, LATE])
    fail("left the mean of ones as it was", EARLY, LATE, metric=ones)
    fail("no site matches", EARLY, "unet/nowhere", kind=LookupError)
