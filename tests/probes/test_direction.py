"""Directions: exact algebra; steering moves along them as far as they are long, ablation leaves nothing."""

import math
from functools import cache

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.load import load
from denoscope.models.site import Site
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny_families import tiny_sdxl
from denoscope.probes.direction import Direction
from denoscope.probes.directions.token_rows import TokenRows
from denoscope.probes.intervene import Intervention, intervening
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

TOKENS, PICTURE = Site("unet/mid.attn.0.0/resid.post"), Site("unet/mid.res.0/resid.post")
HEADS, PROBS = Site("unet/mid.attn.0.0/cross_attn.z"), Site("unet/mid.attn.0.0/cross_attn.probs")
PROMPTS, RUN = ["a cat", "a dog"], {"seeds": [0, 1], "steps": 2}
numbers = st.floats(-5, 5).filter(lambda a: abs(a) > 1e-3)


def vector(n=16, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def first(tiny, site, *interventions):
    return trace(tiny, PROMPTS, sites=[site], interventions=interventions, **RUN)[site][0]


@pytest.mark.parametrize("site", [TOKENS, PICTURE, HEADS])
def test_after_ablation_nothing_is_left(tiny, site):
    d = Direction(site, 3 * vector(8 if site == HEADS else 16))
    before, after = first(tiny, site), first(tiny, site, d.ablate())
    placed = d.at(tiny)
    assert placed.component(before).abs().max() > 0.1
    assert placed.component(after).abs().max() < 1e-5
    torch.testing.assert_close(after + placed.component(before) * placed.unit().along.over(before), before)


@given(alpha=numbers, length=numbers)
def test_steering_moves_by_alpha_times_the_length(tiny, alpha, length):
    d = length * Direction(PICTURE, vector()).unit()
    moved = first(tiny, PICTURE, d.steer(alpha)) - first(tiny, PICTURE)
    wanted = alpha * d.vector.view(1, 16, 1, 1).expand_as(moved)
    torch.testing.assert_close(moved, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("site", [TOKENS, PICTURE])
def test_a_clamp_sets_how_far_it_points_and_moves_nothing_else(tiny, site):
    d = Direction(site, 3 * vector())
    placed, before, after = d.at(tiny), first(tiny, site), first(tiny, site, d.clamp(0.5))
    torch.testing.assert_close(
        placed.component(after),
        torch.full_like(placed.component(after), 0.5 * d.norm()),
        atol=1e-4,
        rtol=1e-4,
    )
    without = [x - placed.component(x) * placed.unit().along.over(x) for x in (before, after)]
    torch.testing.assert_close(*without, atol=1e-4, rtol=1e-4)
    ablated = first(tiny, site, d.ablate())
    torch.testing.assert_close(first(tiny, site, d.clamp(0.0)), ablated, atol=1e-5, rtol=1e-5)
    twice = first(tiny, site, d.clamp(0.5), d.clamp(0.5))
    torch.testing.assert_close(twice, after, atol=1e-5, rtol=1e-5)


def test_a_clamp_of_a_subjects_rows_leaves_the_other_rows(tiny):
    d = Direction("unet/in/text", vector(3 * 16).view(3, 16), rows=TokenRows(subject="cat"))
    run = {"seeds": [0], "steps": 1, "sites": ["unet/in/text"]}
    before, after = (
        trace(tiny, ["a cat on a mat"], interventions=acting, **run)["unet/in/text"][0, 0]
        for acting in ([], [d[d.site].clamp(1.0)])
    )
    moved = (after - before).abs().amax(-1) > 1e-6
    last = len(moved)
    words = tiny.encode(["a cat on a mat"])[0].of("text_encoder")
    assert moved.nonzero().flatten().tolist() == [*words.find("cat"), *range(words.end, last)]


def test_a_schedule_is_a_steering_for_each_step_that_has_one(tiny):
    d = Direction(TOKENS, vector())
    run = {"seeds": [0], "steps": 3}
    plan = d.scheduled([0.0, 2.0, -1.0])
    assert [sorted(i.when.steps) for i in plan] == [[1], [2]]
    by_hand = [d.steer(2.0, steps=[1]), d.steer(-1.0, steps=[2])]
    made, wanted = (trace(tiny, ["a cat"], interventions=i, **run).latents for i in (plan, by_hand))
    assert torch.equal(made, wanted)
    with pytest.raises(ValueError, match="at every step nothing would be done"):
        d.scheduled([0.0, 0.0])
    with pytest.raises(ValueError, match="strength is inf"):
        d.scheduled([0.0, math.inf])
    with pytest.raises(ValueError, match="level is nan"):
        d.clamp(math.nan)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_channel_axis_is_the_layouts_in_every_family(name):
    """Planted: a direction along one channel moves this channel, and no other."""
    model = opened(name)
    last = {}  # one site of each kind is enough
    for site in model.sites():
        last[site.kind, site.component.rstrip("_123")] = site
    for site in last.values():
        layout = model.layout(site)
        if layout.channel_axis is None:
            continue
        seen = []
        x = torch.zeros(2, *(3 + i for i in range(len(layout.axes))))
        one = torch.eye(x.shape[layout.channel_axis])[1]
        (acting,) = Direction(site, one).steer(2.0).parts(model)
        seen.append(acting.fn(x, None))
        assert seen[0].select(layout.channel_axis, 1).eq(2).all(), site
        assert seen[0].sum() == 2 * x.numel() / x.shape[layout.channel_axis], site


def test_an_axis_that_is_given_counts(tiny):
    d = Direction(PICTURE, vector(), axis=1)
    assert d.at(tiny).axes == {PICTURE: 1}
    assert torch.equal(
        first(tiny, PICTURE, d.steer(2.0)), first(tiny, PICTURE, Direction(PICTURE, vector()).steer(2.0))
    )
    with pytest.raises(
        ValueError, match=r"has 16 channels, but axis 2 of the activation \(2, 16, 4, 4\) has 4"
    ):
        first(tiny, PICTURE, Direction(PICTURE, vector(), axis=2).ablate())


def test_unknown_axes_are_refused(tiny):
    d = Direction(PICTURE, vector())
    with pytest.raises(ValueError, match=r"known to the model alone; write direction.at\(model\)"):
        d.component(torch.zeros(2, 16, 4, 4))
    with pytest.raises(ValueError, match=r"\('head', 'query', 'key'\), so no channels"):
        first(tiny, PROBS, Direction(PROBS, vector()).steer(1.0))
    with pytest.raises(LookupError, match="has no site"):
        first(tiny, PICTURE, Direction("unet/mid.res.7/resid.post", vector()).steer(1.0))
    with (
        pytest.raises(ValueError, match="no channels"),
        intervening(Analytic(two_by_two()), Direction("denoiser/gate/out", vector(4)).steer(1.0)),
    ):
        pass


# algebra ---------------------------------------------------------------------------------------------------


def test_it_keeps_its_length():
    d = Direction(TOKENS, torch.tensor([3.0, 4.0]))
    assert d.vector.tolist() == [3, 4] and d.norm() == 5 and d.unit().norm() == pytest.approx(1)
    torch.testing.assert_close(d.unit().vector, torch.tensor([0.6, 0.8]))


def test_it_is_a_vector_space():
    d, e = Direction(TOKENS, vector()), Direction(TOKENS, vector(seed=1))
    assert torch.equal((d + e).vector, d.vector + e.vector)
    assert torch.equal((d - e).vector, d.vector - e.vector)
    assert torch.equal((2 * d).vector, 2 * d.vector) and torch.equal((d * 2).vector, 2 * d.vector)
    assert torch.equal((-d).vector, -d.vector)
    with pytest.raises(TypeError):
        d * e
    with pytest.raises(TypeError):
        d + 1


def test_twice_a_direction_acts_twice_as_far(tiny):
    d = Direction(TOKENS, vector())
    assert torch.equal(first(tiny, TOKENS, (2 * d).steer(1.5)), first(tiny, TOKENS, d.steer(3.0)))
    together = first(tiny, TOKENS, (d + Direction(TOKENS, vector(seed=1))).steer(1.0))
    apart = first(tiny, TOKENS, d.steer(1.0), Direction(TOKENS, vector(seed=1)).steer(1.0))
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(first(tiny, TOKENS, (5 * d).ablate()), first(tiny, TOKENS, d.ablate()))


def test_what_it_does_is_a_value(tiny):
    """By it sweeps and stores know equal interventions."""
    d = Direction(TOKENS, vector())
    acts = [d.steer(1.0), d.steer(2.0), (2 * d).steer(1.0), Direction(TOKENS, vector(), -1).steer(1.0)]
    assert len({a.spec.digest for a in [*acts, d.ablate()]}) == 5
    assert d.steer(1.0).key == Direction(TOKENS, vector()).steer(1.0).key
    (part,) = d.steer(1.0).parts(tiny)
    assert part.spec.digest == d.steer(1.0).spec.digest


def test_number_formats_do_not_limit_it():
    long = Direction(TOKENS, torch.full((4,), 3e4, dtype=torch.float16), axis=-1)
    assert long.norm() == pytest.approx(6e4, rel=1e-3)  # the squares are beyond float16
    assert long.component(torch.ones(2, 3, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("v", [torch.zeros(3), torch.ones(2, 2), torch.tensor([float("nan"), 1])])
@pytest.mark.misshapen
def test_vectors_that_point_nowhere_are_refused(v):
    with pytest.raises(ValueError, match="finite, non-zero vector"):
        Direction(TOKENS, v)
    with pytest.raises(ValueError, match=f"at {PICTURE} it has shape"):
        Direction({TOKENS: torch.ones(2), PICTURE: v})


def test_what_leads_nowhere_is_refused():
    d = Direction(TOKENS, vector())
    for make in (lambda: d - d, lambda: 0 * d, lambda: math.nan * d):
        with pytest.raises(ValueError, match=r"non-zero vector|at every site it is zero"):
            make()
    with pytest.raises(ValueError, match="strength is inf"):
        d.steer(math.inf)
    with pytest.raises(ValueError, match="Direction\\(site, vector\\), or"):
        Direction(TOKENS)
    with pytest.raises(TypeError, match=r"is \[1.0, 2.0\]; it is a Tensor"):
        Direction({TOKENS: [1.0, 2.0]})
    with pytest.raises(ValueError, match=f"differ at {TOKENS}: 16 and 8 channels"):
        d + Direction(TOKENS, vector(8))
    one, last = (Direction(TOKENS, vector(), axis=a) for a in (1, -1))
    with pytest.raises(ValueError, match="16 and 16 channels, on axes 1 and -1"):
        one + last
    assert last[TOKENS].axes == (last + last).axes == (2 * last).axes == {TOKENS: -1}


# several sites ---------------------------------------------------------------------------------------------


@cache
def xl():
    return load(tiny_sdxl())


def both():
    sites = [Site(f"{part}/layer.0/mlp.out") for part in ("text_encoder", "text_encoder_2")]
    return Direction({s: vector(seed=i) for i, s in enumerate(sites)})


def test_a_direction_over_both_text_encoders_steers_both():
    d, run = both(), {"seeds": [0], "steps": 1, "sites": both().sites}
    plain = trace(xl(), ["a cat"], **run)
    moved = trace(xl(), ["a cat"], interventions=[part.steer(2.0) for part in d], **run)
    for site in d.sites:
        torch.testing.assert_close(moved[site] - plain[site], (2 * d[site].vector).expand_as(plain[site]))
    assert not torch.equal(moved.latents, plain.latents)


def test_the_algebra_is_over_all_sites():
    d = both()
    a, b = d
    assert len(d) == 2 and [p.site for p in d] == list(d.sites)
    assert d.norm() == pytest.approx(math.hypot(a.norm(), b.norm()))
    assert d.unit().norm() == pytest.approx(1) and d.unit()[a.site].norm() == pytest.approx(
        a.norm() / d.norm()
    )
    assert all(torch.equal((a + b)[s].vector, d[s].vector) for s in d.sites)
    assert (d - a).sites == (b.site,)  # where it cancels, nothing is left


@pytest.mark.parametrize("act", [lambda d: d.steer(1.0), lambda d: d.ablate(), lambda d: d.vector])
def test_one_intervention_of_several_sites_is_refused(act):
    with pytest.raises(ValueError, match=r"spans 2 sites .*\[part.steer\(1.0\) for part in direction\]"):
        act(both())
    with pytest.raises(LookupError, match="is not at unet/mid"):
        both()["unet/mid.res.0/resid.post"]


def test_directions_ride_in_sweeps_and_on_single_rows(tiny):
    d = Direction(PICTURE, vector())
    runs = [SweepRun("a cat", 0, (d.steer(a),)) for a in (1.0, 2.0)]
    swept = sweep(tiny, runs, steps=2)
    for run, latents in zip(runs, swept.latents, strict=True):
        alone = trace(tiny, ["a cat"], seeds=[0], steps=2, interventions=run.interventions).latents[0]
        torch.testing.assert_close(latents, alone)
    rowwise = d.steer(1.0).on(1)
    assert isinstance(rowwise, Intervention)
    plain, moved = first(tiny, PICTURE), first(tiny, PICTURE, rowwise)
    assert torch.equal(plain[0], moved[0]) and not torch.equal(plain[1], moved[1])


# on disk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_round_trip_is_exact(tmp_path, dtype):
    sites = [Site("text_encoder_2/layer.0/mlp.out"), Site("text_encoder/layer.0/mlp.out")]
    d = Direction({s: vector(seed=i).to(dtype) for i, s in enumerate(sites)}) + Direction(
        TOKENS, vector().to(dtype), axis=-1
    )
    d.save(tmp_path / "d.safetensors")
    back = Direction.load(tmp_path / "d.safetensors")
    assert back.sites == d.sites and back.axes == d.axes == {sites[0]: None, sites[1]: None, TOKENS: -1}
    assert all(torch.equal(back[s].vector, d[s].vector) and back[s].vector.dtype == dtype for s in d.sites)


def test_a_flipped_bit_is_never_another_direction(tmp_path):
    path, d = tmp_path / "d.safetensors", both()
    d.save(path)
    data = path.read_bytes()
    for i in range(0, 8 * len(data), 13):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        try:
            back = Direction.load(path)
        except ValueError:
            continue
        assert back.axes == d.axes and all(torch.equal(back[s].vector, d[s].vector) for s in d.sites)
    for _ in range(5):
        d.save(path)
        assert path.read_bytes() == data


def test_other_files_are_refused(tmp_path, tiny):
    path = tmp_path / "d.safetensors"
    with pytest.raises(FileNotFoundError):
        Direction.load(path)
    Direction(TOKENS, vector()).save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="is no direction"):
        Direction.load(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}))
    with pytest.raises(ValueError, match="is no direction"):
        Direction.load(path)


@pytest.mark.misshapen
def test_a_number_has_no_channels():
    with pytest.raises(ValueError, match=r"16 channels, but axis -1 of the activation \(\) has none"):
        Direction(TOKENS, torch.ones(16), axis=-1).component(torch.tensor(1.0))
