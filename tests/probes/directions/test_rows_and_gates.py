"""Directions of rows of a text move those rows alone; a gate that is shut changes nothing, to the bit."""

from __future__ import annotations

import pytest
import torch

from denoscope import Direction, When, trace
from denoscope.editing import freeze
from denoscope.models.load import load
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny_families import tiny_sd3
from denoscope.probes.directions.token_rows import TokenRows

TEXT, PICTURE = Site("unet/in/text"), Site("unet/mid.res.0/resid.post")
RUN = {"seeds": [0], "steps": 3}


def vector(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(model, prompt, *interventions, site=TEXT):
    return trace(model, [prompt], sites=[site], interventions=interventions, **RUN)[site][0, 0]


def test_each_kind_of_row_has_a_vector_of_its_own(tiny):
    """Exact: all tokens of the subject, the token after the text, what follows; nothing else."""
    v = vector(3, 16)
    d = Direction(TEXT, v, rows=TokenRows())
    prompt = "a cat and a red cook"
    change = read(tiny, prompt, d.of("red cook").steer(2.0)) - read(tiny, prompt)
    words = tiny.encode([prompt])[0]
    wanted = torch.zeros_like(change)
    wanted[words.find("red cook")] = 2 * v[0]
    wanted[words.end], wanted[words.end + 1 :] = 2 * v[1], 2 * v[2]
    assert len(words.find("red cook")) > 1
    torch.testing.assert_close(change, wanted, atol=1e-5, rtol=0)


def test_one_of_two_places_is_named(tiny):
    d = Direction(TEXT, vector(1, 16), rows=TokenRows(("subject",)))
    prompt = "a cook and a cook"
    with pytest.raises(ValueError, match=r"'cook' stands 2 times in .*; say which: 'cook:1' or 'cook:2'"):
        read(tiny, prompt, d.of("cook").steer(1.0))
    change = read(tiny, prompt, d.of("cook:2").steer(1.0)) - read(tiny, prompt)
    moved = change.abs().sum(1).nonzero().flatten().tolist()
    assert moved == tiny.encode([prompt])[0].find("cook:2")
    with pytest.raises(ValueError, match=r"was not said; write direction.of\('cook'\)"):
        read(tiny, prompt, d.steer(1.0))
    with pytest.raises(LookupError, match="'dog' is not in the prompt"):
        read(tiny, prompt, d.of("dog").steer(1.0))


def test_ablation_leaves_nothing_at_its_rows_and_the_rest_as_it_was(tiny):
    d = Direction(TEXT, 3 * vector(2, 16), rows=TokenRows(("subject", "end"), "cat"))
    before, after = read(tiny, "a cat"), read(tiny, "a cat", d.ablate())
    words = tiny.encode(["a cat"])[0]
    for at, v in ((words.find("cat")[0], d.vector[0]), (words.end, d.vector[1])):
        assert before[at] @ v / v.norm() != pytest.approx(0, abs=1e-3)
        assert after[at] @ v / v.norm() == pytest.approx(0, abs=1e-4)
    assert torch.equal(before[words.end + 1 :], after[words.end + 1 :])


def test_tokenizers_one_after_another_have_rows_of_their_own():
    model = load(tiny_sd3())
    site = Site("transformer/in/text")
    d = Direction(site, vector(2, 32), rows=TokenRows(("subject",), "cook"))
    change = read(model, "a cook", d.steer(1.0), site=site) - read(model, "a cook", site=site)
    first, second = model.encode(["a cook"])[0].find("cook")
    torch.testing.assert_close(change[[first, second]], d.vector, atol=1e-5, rtol=0)
    assert change.abs().sum(1).nonzero().flatten().tolist() == [first, second]
    with pytest.raises(ValueError, match="which do not fit 288 tokens"):
        read(model, "a cook", Direction(site, vector(1, 32), rows=d.rows).steer(1.0), site=site)


def test_rows_are_of_a_text(tiny):
    d = Direction("unet/mid.attn.0.0/cross_attn.out", vector(1, 16), rows=TokenRows(("end",)))
    with pytest.raises(ValueError, match=r"none of them the text; a direction of the rows \('end',\) acts"):
        read(tiny, "a cat", d.steer(1.0))
    with pytest.raises(ValueError, match="acts at all places, so it has no subject"):
        Direction(PICTURE, vector(16)).of("cat")
    for wrong in ((), ("subject", "subject"), ("begin",)):
        with pytest.raises(ValueError, match="each of some of subject, end, padding, once"):
            TokenRows(wrong)
    with pytest.raises(ValueError, match="has 8 channels, but axis -1"):
        read(tiny, "a cat", Direction(TEXT, vector(1, 8), rows=TokenRows(("end",))).steer(1.0))


# gates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_a_gate_that_is_shut_changes_no_bit(tiny, whole):
    d = Direction(PICTURE, vector(16))
    plain = trace(tiny, ["a cat"], **RUN).latents
    shut = trace(tiny, ["a cat"], interventions=[d.steer(5.0, gate=d.gate(1.0, whole=whole))], **RUN).latents
    wide = trace(tiny, ["a cat"], interventions=[d.steer(5.0, gate=d.gate(-1.0, whole=whole))], **RUN).latents
    free = trace(tiny, ["a cat"], interventions=[d.steer(5.0)], **RUN).latents
    assert torch.equal(shut, plain) and torch.equal(wide, free) and not torch.equal(free, plain)


def test_a_gate_opens_place_by_place(tiny):
    """Exact: where the cosine is above, the ablation is that without a gate; elsewhere not a bit is moved."""
    d = Direction(PICTURE, vector(16))
    x = read(tiny, "a cat", site=PICTURE)
    cosine = torch.cosine_similarity(x, d.vector.view(16, 1, 1).expand_as(x), 0)
    above = float(cosine.median())
    gated = read(tiny, "a cat", d.ablate(gate=d.gate(above)), site=PICTURE)
    free = read(tiny, "a cat", d.ablate(), site=PICTURE)
    open_ = cosine > above
    assert 0 < open_.sum() < open_.numel()
    assert torch.equal(gated[:, open_], free[:, open_]) and torch.equal(gated[:, ~open_], x[:, ~open_])


def test_a_gate_judges_each_sample(tiny):
    sites = [PICTURE]
    x = trace(tiny, ["a cat", "a dog"], seeds=[0, 1], steps=1, sites=sites)[PICTURE][0]
    d = Direction(PICTURE, (x[0] - x[1]).mean((1, 2)))
    means = [float(torch.cosine_similarity(r.mean((1, 2)), d.vector, 0)) for r in x]
    gate = d.gate(sum(means) / 2, whole=True)
    act = d.steer(1.0, gate=gate)
    new = trace(tiny, ["a cat", "a dog"], seeds=[0, 1], steps=1, sites=sites, interventions=[act])[PICTURE][0]
    assert means[0] > means[1]
    assert torch.equal(new[1], x[1]) and not torch.equal(new[0], x[0])


def test_what_a_gate_cannot_be(tiny):
    d = Direction(PICTURE, vector(16))
    with pytest.raises(ValueError, match=r"above is 2.0; it is a cosine"):
        d.gate(2.0)
    with pytest.raises(ValueError, match="the gate looks at unet/in/text, and the direction acts"):
        d.steer(1.0, gate=Direction(TEXT, vector(16)).gate(0.0))
    out = Direction("unet/mid.attn.0.0/cross_attn.out", vector(16))
    with pytest.raises(ValueError, match="acts where a gate is open, or on some tokens alone"):
        freeze(tiny, out.steer(1.0, When(branch=None), gate=out.gate(0.0)))


def test_steps_are_short_for_when(tiny):
    d = Direction(PICTURE, vector(16))
    assert d.steer(1.0, steps=[1]).when == When(steps=[1])
    late = trace(tiny, ["a cat"], sites=[PICTURE], interventions=[d.steer(1.0, steps=range(2, 3))], **RUN)
    plain = trace(tiny, ["a cat"], sites=[PICTURE], **RUN)
    assert torch.equal(late[PICTURE][:2], plain[PICTURE][:2])
    assert not torch.equal(late[PICTURE][2], plain[PICTURE][2])
    with pytest.raises(ValueError, match="steps are given twice"):
        d.steer(1.0, When(steps=[1]), steps=[2])
    with pytest.raises(ValueError, match="reach past the run"):
        trace(tiny, ["a cat"], interventions=[d.ablate(steps=[3])], **RUN)


# algebra and files ---------------------------------------------------------------------------------------


def test_projections_add_up():
    a, b, c = (Direction({PICTURE: vector(16, seed=i), TEXT: vector(8, seed=i + 9)}) for i in range(3))
    left, along = a.orthogonal(b), a.project(b)
    with pytest.raises(ValueError, match=r"nothing of .* lies along .*: they stand at right angles"):
        left.orthogonal(b).project(Direction("unet/out/eps", torch.ones(4)))
    assert left.dot(b) == pytest.approx(0, abs=1e-5) and abs(along.cosine(b)) == pytest.approx(1)
    for site in a.sites:
        torch.testing.assert_close((left + along)[site].vector, a[site].vector, atol=1e-5, rtol=1e-5)
    both = a.orthogonal(b, c, b + c)  # the last adds nothing to the span
    assert both.dot(b) == pytest.approx(0, abs=1e-5) and both.dot(c) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="lies in the span of the others"):
        a.orthogonal(b, a + b)


def test_directions_of_other_weights_or_rows_do_not_add():
    a, b = (Direction(TEXT, vector(2, 4), rows=TokenRows(("subject", "end"), s)) for s in ("cook", "cat"))
    with pytest.raises(ValueError, match="are of different rows"):
        a + b
    ours, theirs = (Direction(TEXT, vector(4), about={"model": m, "weights": m}) for m in ("one", "two"))
    with pytest.raises(ValueError, match="are of different weights, 'one' and 'two'"):
        ours.dot(theirs)


def test_a_direction_of_another_model_is_refused_where_it_would_act(tiny):
    own = {"model": tiny.name, "weights": "0" * 64}  # edited since, which keeps the name
    foreign = Direction(PICTURE, vector(16), about={"model": "another", "weights": "0" * 64})
    with pytest.raises(ValueError, match="found in 'another' and would act in .*noted.weights=None"):
        read(tiny, "a cat", foreign.steer(1.0), site=PICTURE)
    moved = read(tiny, "a cat", foreign.noted(weights=None).steer(1.0), site=PICTURE)
    same = read(tiny, "a cat", foreign.noted(**own).steer(1.0), site=PICTURE)
    assert torch.equal(moved, same) and not torch.equal(moved, read(tiny, "a cat", site=PICTURE))


def test_a_file_knows_its_weights(tiny, tmp_path):
    from denoscope.models.store.fingerprint import fingerprint  # noqa: PLC0415

    path = tmp_path / "d.safetensors"
    d = Direction(TEXT, vector(2, 16), rows=TokenRows(("subject", "end"), "cat"))
    d.noted(model="tiny", weights=fingerprint(tiny)).save(path)
    back = Direction.load(path, tiny)
    assert back.rows == d.rows and torch.equal(back.vector, d.vector) and back.about["model"] == "tiny"
    d.noted(model="another", weights="0" * 64).save(path)
    with pytest.raises(ValueError, match="was found in 'another' with other weights"):
        Direction.load(path, tiny)
    assert Direction.load(path).about["model"] == "another"
