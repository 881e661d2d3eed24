"""Files of others compute here what they compute there, by their own formulas."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from denoscope import Site
from denoscope.models.errors import UsageError
from denoscope.probes import Channels, read_sae_lens, read_sdxl_unbox, write_sae_lens
from tests.probes.dictionary.worlds import AFTER, BEFORE, TOKENS, random_dictionary, rng

CHANNELS = Channels(Site(TOKENS), ("token", "channel"))
X = torch.randn(2, 5, 16, generator=rng(7))
PLAIN = {"d_in": 16, "d_sae": 24, "dtype": "float32", "device": "cpu", "normalize_activations": "none",
         "reshape_activations": "none"}  # fmt: skip


def sae_lens(folder, x):
    """SAELens' own formula, of the files alone."""
    c, t = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    pre = (x - t["b_dec"] * c["apply_b_dec_to_input"]) @ t["W_enc"] + t["b_enc"]
    norm = t["W_dec"].norm(dim=-1) if c.get("rescale_acts_by_decoder_norm") else torch.ones(c["d_sae"])
    if c["architecture"] == "topk":
        top = (pre * norm).topk(c["k"])
        z = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    else:
        z = pre.relu() * (pre > t.get("threshold", torch.zeros(1)))
    return (z / norm) @ t["W_dec"] + t["b_dec"]


@pytest.mark.parametrize("threshold", [None, torch.full((24,), 0.5)], ids=["top-k", "threshold"])
@pytest.mark.parametrize("kind", ["state", "update"])
def test_what_we_write_computes_the_same_there_and_comes_back(tiny, tmp_path, threshold, kind):
    channels = CHANNELS if kind == "state" else Channels.of(tiny, AFTER, kind=kind, source=BEFORE)
    d = random_dictionary(channels, threshold=threshold)
    write_sae_lens(d, tmp_path / "sae")
    x = X if kind == "state" else torch.randn(2, 16, 4, 4, generator=rng(7))
    rows = channels.rows(x)
    ours = d.decode(d.encode(x))
    assert torch.allclose(channels.rows(ours), sae_lens(tmp_path / "sae", rows), atol=1e-4)
    back = read_sae_lens(tmp_path / "sae", tiny)
    assert back.channels == channels
    assert torch.allclose(back.decode(back.encode(x)), ours, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "topk", "k": 3, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": True},
        {"architecture": "jumprelu", "apply_b_dec_to_input": True},
        {"architecture": "standard", "apply_b_dec_to_input": False},
    ],
    ids=lambda c: c["architecture"],
)
def test_what_they_write_computes_the_same_here(tiny, tmp_path, config):
    g = rng(1)
    names = {"W_enc": (16, 24), "W_dec": (24, 16), "b_enc": (24,), "b_dec": (16,)}
    tensors = {n: torch.randn(*shape, generator=g) for n, shape in names.items()}
    if config["architecture"] == "jumprelu":
        tensors["threshold"] = torch.rand(24, generator=g)
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({**PLAIN, **config, "metadata": {"hook_name": "x"}}))
    d = read_sae_lens(tmp_path, tiny, TOKENS)
    assert torch.allclose(d.decode(d.encode(X)), sae_lens(tmp_path, X), atol=1e-4)
    with pytest.raises(UsageError, match="does not say which site"):
        read_sae_lens(tmp_path, tiny)
    for wrong in ({"architecture": "gated"}, {"normalize_activations": "layer_norm"}):
        (tmp_path / "cfg.json").write_text(json.dumps({**PLAIN, **config, **wrong}))
        with pytest.raises(UsageError, match="gated|layer_norm"):
            read_sae_lens(tmp_path, tiny, TOKENS)


def test_what_has_no_place_there_is_told(tmp_path):
    for d, message in (
        (random_dictionary(CHANNELS, levels=(2.0, 1.0)), "no place for 2 levels"),
        (
            random_dictionary(Channels(Site(TOKENS), CHANNELS.axes, "transcoder", Site(TOKENS))),
            "not with top-k",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            write_sae_lens(d, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_the_released_layout_of_sdxl_unbox_computes_its_formula(tiny, tmp_path):
    g = rng(2)
    encoder, decoder = torch.randn(24, 16, generator=g), torch.randn(16, 24, generator=g)
    pre_bias, latent_bias = torch.randn(16, generator=g), torch.randn(24, generator=g)
    config = {"n_dirs_local": 24, "d_model": 16, "k": 4, "auxk": 8, "dead_steps_threshold": 2441}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "state_dict.pth").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"pickled.*weights_only=True.*state_dict.safetensors"):
        read_sdxl_unbox(tmp_path, tiny, AFTER)
    tensors = {"encoder.weight": encoder, "decoder.weight": decoder, "pre_bias": pre_bias,
               "latent_bias": latent_bias, "stats_last_nonzero": torch.zeros(24)}  # fmt: skip
    save_file(tensors, tmp_path / "state_dict.safetensors")
    d = read_sdxl_unbox(tmp_path, tiny, AFTER)
    assert d.channels == Channels.of(tiny, AFTER, kind="update", source=BEFORE)
    x = torch.randn(2, 4, 4, 16, generator=g)
    top = ((x - pre_bias) @ encoder.T + latent_bias).topk(4)
    z = torch.zeros(2, 4, 4, 24).scatter(-1, top.indices, top.values).relu()
    assert torch.allclose(
        d.decode(d.encode(x.movedim(-1, 1))), (z @ decoder.T + pre_bias).movedim(-1, 1), atol=1e-4
    )
    with pytest.raises(UsageError, match="no output of a block"):
        read_sdxl_unbox(tmp_path, tiny, TOKENS)
