"""Sites: names, globs, near misses, and that every name resolves to one place that fires once."""

import pytest

from denoscope.models.load import load
from denoscope.models.site import Site, match_sites
from denoscope.models.synthetic.tiny import tiny_ddim

SITES = [
    Site(a)
    for a in (
        "unet/down.0.attn.0.0/cross_attn.out",
        "unet/down.1.attn.0.0/cross_attn.out",
        "unet/mid.attn.0.0/self_attn.out",
        "text_encoder/layer.0/self_attn.out",
    )
]


def test_parts():
    site = Site("unet/up.1.attn.2.0/cross_attn.out@img")
    assert (site.component, site.block) == ("unet", "up.1.attn.2.0")
    assert (site.kind, site.stream) == ("cross_attn.out", "img")
    assert str(site) == site.address and Site(str(site)) == site and len({site, Site(str(site))}) == 1


@pytest.mark.parametrize("bad", ["", "unet", "unet/mid", "unet/mid/a/b", "unet//out", "unet/mid/out@a@b"])
def test_malformed_addresses_are_refused(bad):
    with pytest.raises(ValueError, match="component/block/kind"):
        Site(bad)


@pytest.mark.parametrize(
    ("pattern", "picked"),
    [
        ("unet/**/cross_attn.out", [0, 1]),
        ("unet/*/cross_attn.out", [0, 1]),
        ("unet/down.?.attn.0.0/*", [0, 1]),
        ("**/self_attn.out", [2, 3]),
        ("**", [0, 1, 2, 3]),
        ("unet/down.0.attn.0.0/cross_attn.out", [0]),
    ],
)
def test_globs(pattern, picked):
    assert match_sites(pattern, SITES) == [SITES[i] for i in picked]


@pytest.mark.parametrize("pattern", ["unet/*", "*/cross_attn.out", "unet/mid.attn.0.0/self_attn,out", ".*"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern):
    with pytest.raises(LookupError, match=r"no site matches"):
        match_sites(pattern, SITES)


def test_near_misses_are_named(tiny):
    with pytest.raises(LookupError, match=r"text_encoder/layer\.0/self_attn\.out"):
        tiny.sites("text_encoder/layer.0/selfattn.out")
    with pytest.raises(LookupError, match="did you mean"):
        tiny.place("unet/mid.attn.0.0/cross_atn.out")


def test_the_table_tells_kind_block_and_shape(tiny):
    table = tiny.sites("unet/mid.attn.0.0/cross_attn.*").to_frame()
    assert list(table.columns) == ["component", "block", "kind", "shape"]
    assert table.loc["unet/mid.attn.0.0/cross_attn.probs", "shape"] == (2, 16, 32)  # head, query, key
    assert table.loc["unet/mid.attn.0.0/cross_attn.out", "shape"] == (16, 16)  # token, channel


def test_no_two_sites_share_a_place(tiny):
    places = [(id(p.module), p.port, p.item) for p in map(tiny.place, tiny.sites())]
    assert len(places) == len(set(places))


def test_an_unconditional_unet_has_sites_too():
    sites = load(tiny_ddim()).sites("unet/**/self_attn.out")
    assert len(sites) >= 3 and sites.to_frame()["shape"].notna().all()


def test_weights_are_named_in_full(tiny):
    weights = tiny.weights("text_encoder/layer.0/self_attn.out")
    assert {n.rsplit(".", 1)[1] for n in weights} == {"weight", "bias"}
    for name, parameter in weights.items():
        assert tiny.parameter(name) is parameter
    with pytest.raises(LookupError, match="did you mean"):
        tiny.parameter(name + "s")
