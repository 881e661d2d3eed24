"""A store holds what a trace holds, in random order; what was cut off goes on, and is not read before."""

import pytest
import torch

from denoscope import When, trace
from denoscope.models.errors import FileInTheWayError, NotFoundError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes import ActivationStore, collect_activations
from tests.probes.dictionary.worlds import AFTER, BEFORE, TOKENS

LAYER = "text_encoder/layer.0/self_attn.out"
RUN = {"prompts": ["a cat", "a dog", "a red cat"], "seeds": [0, 1, 2], "steps": 2}
SITES = [TOKENS, BEFORE, AFTER, LAYER]


class Stop(BaseException):
    """What a test stops with."""


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "store"
    return collect_activations(tiny, SITES, store=folder, batch=2, **RUN)


@pytest.fixture(scope="module")
def run(tiny):
    return trace(tiny, sites=SITES, **RUN)


def as_set(rows):
    return set(map(tuple, rows.tolist()))


def test_it_holds_the_rows_of_a_trace_and_one_sample_apart(store, run):
    for site in (TOKENS, LAYER):
        kept = run[site].half().float()
        for held, some in ((False, slice(0, 2)), (True, slice(2, 3))):
            expected = kept[..., some, :, :] if site == TOKENS else kept[some]
            rows, _ = store.rows(site, 0, store.n_rows(site, held), held)
            assert len(rows) == expected[..., 0].numel()
            assert as_set(rows) == as_set(expected.reshape(-1, 16))
    rows, steps = store.rows(TOKENS, 0, store.n_rows(TOKENS))
    first = run[TOKENS].half().float()[0, :2]
    assert as_set(rows[steps == 0]) == as_set(first.reshape(-1, 16))
    in_order = first.reshape(-1, 16)[: len(rows) // 2]
    assert not torch.equal(rows[steps == 0], in_order)
    assert [s.t for s in store.steps] == [s.t for s in run.steps]


def test_row_i_is_the_same_place_at_each_site(store, run):
    n = store.n_rows(AFTER)
    pairs = torch.cat([store.rows(site, 0, n)[0] for site in (BEFORE, AFTER)], -1)
    both = [run[site][:, :2].half().float().movedim(2, -1).reshape(-1, 16) for site in (BEFORE, AFTER)]
    assert as_set(pairs) == as_set(torch.cat(both, -1))


def test_a_row_may_be_a_whole_map(tiny, run, tmp_path):
    store = collect_activations(tiny, AFTER, store=tmp_path / "s", kernel="map", dtype="float32", **RUN)
    rows, steps = store.rows(AFTER, 0, store.n_rows(AFTER))
    maps = run[AFTER][:, :2].movedim(2, -1).flatten(2)
    assert rows.shape == (4, 256)
    for row, step in zip(rows, steps, strict=True):
        assert min((row - m).abs().max() for m in maps[step]) < 1e-5


def test_one_that_was_cut_off_is_not_read_and_goes_on_to_the_same_bits(tiny, store, tmp_path):
    folder = tmp_path / "store"

    def stop(done, total, what):
        raise Stop

    with pytest.raises(Stop):
        collect_activations(tiny, SITES, store=folder, batch=2, progress=stop, **RUN)
    with pytest.raises(UsageError, match="was cut off: 2 of 3 samples.*the same call"):
        ActivationStore.open(folder)
    with pytest.raises(UsageError, match="cut off while it was filled with .*same sites"):
        collect_activations(tiny, TOKENS, store=folder, **RUN)
    again = collect_activations(tiny, SITES, store=folder, batch=2, **RUN)
    for site in SITES:
        for held in (False, True):
            n = store.n_rows(site, held)
            assert torch.equal(again.rows(site, 0, n, held)[0], store.rows(site, 0, n, held)[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"prompts": ["a cat"] * 3}, "something else: prompts was"),
        ({"seeds": [0, 1, 3]}, r"seeds was \[0, 1, 2\], is \[0, 1, 3\]"),
        ({"steps": 3}, "steps was"),
        ({"guidance": 2.0}, "guidance was 7.5, is 2.0"),
        ({"when": When([1])}, "when was"),
        ({"kernel": "map"}, 'kernel was "position", is "map"'),
    ],
)
def test_a_store_of_something_else_is_refused(tiny, store, other, message):
    with pytest.raises(UsageError, match=message):
        collect_activations(tiny, TOKENS, store=store.folder, **{**RUN, **other})


def test_so_are_other_weights_other_sites_and_other_folders(tiny, store, tmp_path):
    with pytest.raises(UsageError, match="something else: weights was"):
        collect_activations(load(tiny_sd(seed=1)), TOKENS, store=store.folder, **RUN)
    with pytest.raises(NotFoundError, match="does not hold unet/in/conv.out.*filled at once"):
        collect_activations(tiny, "unet/in/conv.out", store=store.folder, **RUN)
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(FileInTheWayError, match="something else"):
        collect_activations(tiny, TOKENS, store=tmp_path, **RUN)
    with pytest.raises(UsageError, match="no activation store"):
        ActivationStore.open(tmp_path)


def test_what_was_damaged_since_is_told(tiny, tmp_path):
    folder = tmp_path / "store"
    collect_activations(tiny, TOKENS, store=folder, **RUN)
    file = next(folder.glob("*/rows.bin"))
    data = bytearray(file.read_bytes())
    file.write_bytes(data[:-2])
    with pytest.raises(UsageError, match="damaged: unet__mid.*not what was written"):
        ActivationStore.open(folder)


def test_what_cannot_be_kept_is_told(tiny, tmp_path):
    with pytest.raises(UsageError, match="no channels"):
        collect_activations(tiny, "unet/mid.attn.0.0/cross_attn.probs", store=tmp_path / "a", **RUN)
    with pytest.raises(UsageError, match="one guidance branch"):
        collect_activations(tiny, TOKENS, store=tmp_path / "b", when=When(branch=None), **RUN)
