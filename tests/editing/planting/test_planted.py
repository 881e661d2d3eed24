"""Planted places: they are what they say, act where they say, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope import Intervention, intervening
from denoscope.editing import planted
from denoscope.editing.lowrank import dense
from denoscope.editing.planting.files import HOME, KINDS, PlantedPlaces, read, write
from denoscope.editing.planting.making import LEAST, gathered, thirds
from denoscope.editing.planting.places import Truth
from denoscope.editing.planting.readings import layers
from denoscope.models.errors import UsageError
from denoscope.models.site import Site
from denoscope.models.store.fingerprint import fingerprint

EVERY = [(kind, i) for kind in KINDS for i in (0, 3)]


@pytest.fixture(params=EVERY, ids=lambda p: f"{p[0]}-{p[1]}")
def place(request: pytest.FixtureRequest) -> Any:
    kind, i = request.param
    return planted(kind)[i]


def seen(model: Any, prompts: list[str], sites: list[Site], step: Any) -> dict[Site, Tensor]:
    """What passes through sites of text encoder and denoiser, in one call, [prompt, ...]."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: found.update({site: x.clone()}))

    text = [s for s in sites if s.component.startswith("text")]
    with torch.no_grad(), intervening(model, *map(keep, text)):
        read = model.encode(prompts)
    watch = [keep(s) for s in sites if s not in text]
    with torch.no_grad():
        model.denoise(model.noise([0] * len(prompts)), step, read, interventions=watch)
    return found


def moved(before: dict[Site, Tensor], after: dict[Site, Tensor]) -> list[Site]:
    return [s for s in before if not torch.equal(before[s], after[s])]


# what ships -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_enough_places(kind: str) -> None:
    assert len(planted(kind)) >= 12


@pytest.mark.parametrize("kind", KINDS)
def test_places_are_for_the_weights_that_ship_and_act(emoji: Any, kind: str) -> None:
    places = planted(kind)
    assert places.redrawn >= 0
    assert {p.base for p in places} == {fingerprint(emoji)}
    for question in (q for place in places for q in place.questions):
        assert question.clean - question.corrupted >= LEAST
        assert question.other != question.prompt
        assert all(site in emoji.places() for site in question.truth.sites)
        if kind == "direction":  # else the word alone would paint it
            assert question.label not in question.prompt


def test_files_are_small() -> None:
    places = [file for file in HOME.iterdir() if not file.name.endswith("-bias.safetensors")]
    assert len(places) == len(KINDS) and sum(file.stat().st_size for file in places) <= 2_000_000


def test_no_two_places_of_a_kind_are_one() -> None:
    for kind in KINDS:
        told = [tuple(place.questions) for place in planted(kind)]
        assert len(set(told)) == len(told)


# exact ----------------------------------------------------------------------------------------------------


def test_a_fact_is_the_weight_and_a_change_of_rank_one_to_the_bit(emoji: Any) -> None:
    place = planted("fact")[0]
    ((name, delta),) = place.edit.deltas.items()
    weight = emoji.parameter(name)
    before = weight.detach().clone()
    with place.applied(emoji):
        assert torch.equal(weight.detach(), (before.double() + dense(delta).double()).to(before.dtype))
    assert torch.equal(weight.detach(), before)
    assert place.edit.to_frame()["rank"].tolist() == [1]


def test_files_hold_the_places_to_the_bit(place: Any, tmp_path: Path) -> None:
    kind = next(name for name, each in KINDS.items() if isinstance(place, each))
    write(tmp_path / "some.safetensors", kind, PlantedPlaces((place,), 3, 5))
    again = read(tmp_path / "some.safetensors")
    assert (again.redrawn, again.seed, len(again)) == (3, 5, 1)
    assert again[0].questions == place.questions
    (first, how), (second, other) = place.stored(), again[0].stored()
    assert how == other
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert set(first) == set(second)


def test_a_plant_is_gone_after_its_block(emoji: Any, place: Any) -> None:
    question = place.questions[0]
    sites = list(question.truth.sites)
    step = emoji.steps(10)[9] if question.truth.snr is None else _within(emoji, question.truth)
    before = seen(emoji, [question.prompt], sites, step)
    with place.applied(emoji):
        assert moved(before, seen(emoji, [question.prompt], sites, step))
    assert moved(before, seen(emoji, [question.prompt], sites, step)) == []


# laws, and the truth found by looking ---------------------------------------------------------------------


def _within(model: Any, truth: Truth) -> Any:
    steps = model.steps(10)
    return steps[truth.steps(steps)[0]]


def _first(model: Any, place: Any, component: str, step: Any, prompt: str) -> Site:
    """The first site whose activations differ with the plant."""
    outs = [s for s in model.places() if s.component == component and s.kind.endswith(".out")]
    before = seen(model, [prompt], outs, step)
    with place.applied(model):
        return moved(before, seen(model, [prompt], outs, step))[0]


@pytest.mark.parametrize("i", range(0, 12, 4))
def test_a_fact_is_found_where_activations_first_differ(emoji: Any, i: int) -> None:
    place = planted("fact")[i]
    (question,) = place.questions
    found = _first(emoji, place, "text_encoder", emoji.steps(10)[0], question.prompt)
    assert (found,) == question.truth.sites


@pytest.mark.parametrize("i", range(0, 4, 3))
def test_a_direction_is_found_where_and_when_activations_first_differ(emoji: Any, i: int) -> None:
    place = planted("direction")[i]
    (question,) = place.questions
    truth, steps = question.truth, emoji.steps(10)
    assert (_first(emoji, place, "unet", _within(emoji, truth), question.prompt),) == truth.sites
    sites, prompts = list(truth.sites), [question.other, question.prompt]
    window = truth.steps(steps)
    assert window in [tuple(range(*cut)) for cut in thirds(10)]
    for step in (steps[0], steps[5], steps[9]):
        before = seen(emoji, prompts, sites, step)[truth.sites[0]]
        with place.applied(emoji):
            after = seen(emoji, prompts, sites, step)[truth.sites[0]]
        assert torch.equal(before[0], after[0])  # the word is not said there
        assert torch.equal(before[1], after[1]) == (step.index not in window)


@pytest.mark.parametrize("i", range(0, 12, 4))
def test_readings_are_found_where_keys_and_values_tell_two_prompts_apart(emoji: Any, i: int) -> None:
    place = planted("layers")[i]
    style, thing = place.questions
    step = emoji.steps(10)[0]
    kinds = {
        layer: [Site(str(layer).replace("cross_attn.out", f"cross_attn.{k}")) for k in ("k_proj", "v_proj")]
        for layer in layers(emoji)
    }
    every = [site for pair in kinds.values() for site in pair]
    with place.applied(emoji):
        for question in (style, thing):
            given = seen(emoji, [question.prompt, question.other], every, step)
            hear = [layer for layer, pair in kinds.items() if not all(torch.equal(*given[s]) for s in pair)]
            assert tuple(hear) == question.truth.sites


def test_a_window_is_the_same_noise_in_runs_of_any_length(emoji: Any) -> None:
    truth = planted("direction")[0].questions[0].truth
    few, many = emoji.steps(10), emoji.steps(40)
    share = [len(truth.steps(steps)) / len(steps) for steps in (few, many)]
    assert share[0] == pytest.approx(share[1], abs=0.1)


# drawing --------------------------------------------------------------------------------------------------


def test_what_does_not_act_is_drawn_again_and_counted() -> None:
    place, heard = planted("fact")[0], []
    draws: Iterator[Any] = iter([None, place, None, None, place, place])
    found, redrawn = gathered(draws, 2, lambda some, n: heard.append((len(some), n)))
    assert (found, redrawn) == ((place, place), 3)
    assert heard[-1] == (2, 3)
    assert next(draws) is place


# refusals -------------------------------------------------------------------------------------------------


def test_other_weights_are_refused(emoji: Any, tiny: Any, place: Any) -> None:
    with (
        pytest.raises(UsageError, match="planted in 'emoji', and the weights of .* are different"),
        place.applied(tiny),
    ):
        pass
    name = next(iter(planted("fact")[1].edit.deltas))
    other = denoscope.editing.Edit.of(emoji, {name: torch.ones_like(emoji.parameter(name))})
    with other.applied(emoji), pytest.raises(UsageError, match="edited, or others"), place.applied(emoji):
        pass


def test_readings_know_their_own_prompts_alone(emoji: Any) -> None:
    place = planted("layers")[0]
    with place.applied(emoji), pytest.raises(UsageError, match="cannot read 'a fish'; ask one of 'a "):
        emoji.denoise(emoji.noise([0]), emoji.steps(2)[0], ["a fish"])


def test_unknown_kinds_models_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no kind of planted place is called 'facts'.*fact"):
        planted("facts")
    with pytest.raises(LookupError, match="nothing was planted in 'emoji-people'; there is emoji"):
        planted("fact", "emoji-people")
    data = bytearray((HOME / "emoji-fact.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "some.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match="damaged planted places"):
        read(tmp_path / "some.safetensors")
