"""The account of a run: what acted, where, when; and errors for what did not."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from denoscope.models.load import load
from denoscope.models.places.account import Account, AccountError
from denoscope.models.run.context import Call, CallContext, When
from denoscope.models.run.levels import Step
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, intervening, scale, zero
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

MID, OUT = "unet/mid.attn.0.0/resid.post", "unet/mid.attn.0.0/cross_attn.out"
TEXT = "text_encoder/layer.0/self_attn.out"
RUN = {"seeds": [0, 1], "steps": 3}
PROMPTS = ["a red cat", "a dog"]


def test_a_run_in_order_carries_its_account(tiny):
    change = [scale(OUT, 2.0, When({1})), zero(TEXT, When(rows=(1,)))]
    run = trace(tiny, PROMPTS, sites=[MID], interventions=change, guidance=4.0, **RUN)
    lines = {str(line.site): line for line in run.account}
    assert (lines[OUT].calls, lines[OUT].steps, lines[OUT].rows, lines[OUT].branches) == (
        1,
        (1,),
        2,
        ("cond",),
    )
    assert (lines[TEXT].calls, lines[TEXT].steps, lines[TEXT].rows) == (1, (), 1)
    assert (lines[MID].calls, lines[MID].steps, lines[MID].rows) == (3, (0, 1, 2), 6)
    table = run.account.to_frame()
    assert list(table.loc[MID]) == [3, "0-2", 6, "cond"] and table.loc[OUT, "steps"] == "1"


def test_both_branches_are_told_apart(tiny):
    seen = []
    look = Intervention(OUT, lambda x, c: seen.append((c.branch, c.samples, c.part)), When({0}, None))
    run = trace(tiny, PROMPTS, interventions=[look], guidance=4.0, **RUN)
    assert seen == [("uncond", (0, 1), "unet"), ("cond", (0, 1), "unet")]
    assert run.account.lines[0].calls == 1 and run.account.lines[0].branches == ("uncond", "cond")


def test_a_place_that_never_runs_is_an_error():
    """Blocks that are skipped, as caches do."""
    model = load(tiny_sd())
    block = model.pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    block.forward = lambda hidden_states, **_: hidden_states
    with pytest.raises(AccountError, match=r"cross_attn.out was not reached at step 0, although unet"):
        trace(model, PROMPTS, interventions=[zero(OUT)], **RUN)
    with pytest.raises(AccountError, match="likely causes: .*fuse_qkv_projections.*disable_cache"):
        trace(model, PROMPTS, sites=[OUT], **RUN)
    assert model.call is None


def test_a_place_that_runs_twice_is_an_error():
    model = load(tiny_sd())

    attention = model.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    inner = attention.to_out[0]

    class Processor(AttnProcessor2_0):
        def __call__(self, attn, *args, **kwargs):
            inner(torch.zeros(4, 1, 16))
            return super().__call__(attn, *args, **kwargs)

    attention.set_processor(Processor())
    with pytest.raises(AccountError, match=r"reached 2 times in one call .*IP-Adapter"):
        trace(model, PROMPTS, interventions=[zero(OUT)], guidance=4.0, **RUN)


def test_rows_other_than_expected_are_an_error(tiny):
    step, prompts = tiny.steps(2)[0], tiny.encode(["a cat"])
    call = Call("unet", {"cond": slice(0, 4)}, (step,) * 4)
    with (
        pytest.raises(AccountError, match=r"carries 1 rows, but the call of unet has 4"),
        torch.no_grad(),
        intervening(tiny, zero(MID)),
        tiny.calling(call),
    ):
        tiny.predict(tiny.noise([0]), step, prompts)
    assert tiny.call is None


def test_what_can_never_act_is_an_error(tiny):
    with pytest.raises(AccountError, match="given encoded are not read again: give texts"):
        trace(tiny, tiny.encode(PROMPTS), interventions=[zero(TEXT)], **RUN)
    with (
        pytest.raises(AccountError, match="never acted: no call had rows of When"),
        torch.no_grad(),
        intervening(tiny, zero(OUT, When({7}))),
    ):
        list(tiny.sample(PROMPTS, **RUN))
    with pytest.raises(ValueError, match="a sweep runs once for all"):
        sweep(tiny, [SweepRun("a cat", 0, (zero(TEXT),))], steps=2)


def test_samples_given_encoded_do_not_shift_the_rows_of_the_others(tiny):
    seen = []
    look = Intervention(
        TEXT, lambda x, c: seen.append((c.samples, [p.text for p in c.prompts])), When(rows=(1,))
    )
    trace(tiny, [tiny.encode(["a cat"])[0], "a dog"], interventions=[look], **RUN)
    assert seen == [((1,), ["a dog"])]


def test_fused_projections_are_followed_or_refused():
    model = load(tiny_sd())
    q = "unet/mid.attn.0.0/cross_attn.k_proj"
    assert model.place(q)
    model.pipe.unet.fuse_qkv_projections()
    with pytest.raises(LookupError, match="no site matches .*k_proj"):
        trace(model, PROMPTS, sites=[q], **RUN)
    kept = trace(model, PROMPTS, sites=[OUT], **RUN)
    model.pipe.unet.unfuse_qkv_projections()
    again = trace(model, PROMPTS, sites=[OUT, q], **RUN)
    torch.testing.assert_close(kept[OUT], again[OUT], rtol=1e-4, atol=1e-5)


def test_a_compiled_forward_is_refused():
    model = load(tiny_sd())
    model.pipe.unet.mid_block.forward = torch.compile(model.pipe.unet.mid_block.forward, backend="eager")
    with pytest.raises(RuntimeError, match="unet was compiled"), intervening(model, zero(OUT)):
        pass


def test_a_token_direction_for_one_word_of_one_subject_from_step_three_on(tiny):
    """As token directions will be: the word's tokens are found in the Prompt of each row."""
    way = torch.randn(16, generator=torch.Generator().manual_seed(0))
    shifted = []

    def push(x, context):
        y = x.clone()
        for row, prompt in enumerate(context.prompts):
            tokens = prompt.find("cat") if prompt.reads("cat") else []
            y[row, tokens] += way
            shifted.append((context.step.index, context.samples[row], tokens))
        return y

    texts = ["a red cat", "the cat and a dog"]
    at = Intervention("unet/in/text", push, When(range(3, 5)))
    plain, run = (
        trace(tiny, texts, seeds=[0, 0], steps=5, sites="unet/in/text", interventions=i) for i in ([], [at])
    )
    places = [p.find("cat") for p in run.prompts]
    assert places[0] != places[1]
    change = run["unet/in/text"] - plain["unet/in/text"]
    assert change[:3].abs().max() == 0
    for sample, tokens in enumerate(places):
        moved = change[3:, sample].abs().sum(-1) > 0
        assert all(row.nonzero().flatten().tolist() == tokens for row in moved)
        torch.testing.assert_close(change[3, sample, tokens[0]], way)
    assert shifted == [(k, s, t) for k in (3, 4) for s, t in enumerate(places)]
    assert not torch.equal(run.latents, plain.latents)


# without a model -----------------------------------------------------------------------------------------


def call_at(index, part="unet"):
    return Call(part, {"cond": slice(0, 2)}, (Step(index, 1.0, 1.0),) * 2)


def met(index, branch="cond", samples=(0, 1)):
    return CallContext(Step(index, 1.0, 1.0), branch, samples, (), "unet")


def test_lines_add_up_over_the_calls():
    account = Account([scale(OUT, 2.0), scale(MID, 2.0)])
    for index in (3, 0, 1, 5):
        account.begin(call_at(index))
        account.note(0, [met(index, "uncond", (0,)), met(index)])
        account.note(1, [])
        account.note(1, [])  # reached twice, but nothing to do there
        account.end(call_at(index))
    line, idle = account
    assert (line.calls, line.steps, line.rows, line.branches) == (4, (3, 0, 1, 5), 12, ("uncond", "cond"))
    assert (idle.calls, idle.steps, idle.rows, idle.branches) == (0, (), 0, ())
    assert account.to_frame().loc[OUT, "steps"] == "0-1, 3, 5" and len(account) == 2
    with pytest.raises(AccountError, match=r"resid\.post never acted: no call had rows of When\([^;]*\)$"):
        account.close()


def test_what_is_expected_is_asked_of_each_call_alone():
    account = Account([zero(OUT, When({1}))])
    account.begin(call_at(0))
    account.end(call_at(0))
    account.begin(call_at(1, "vae"))
    account.end(call_at(1, "vae"))
    account.begin(call_at(1))
    with pytest.raises(AccountError, match="was not reached at step 1, although unet was called"):
        account.end(call_at(1))
    account.note(0, [met(1)])
    account.end(call_at(1))
    account.close()


def test_a_run_that_called_nothing_misses_nothing():
    Account([zero(OUT)]).close()


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (When(rows=(0, 5)), r"never acted at rows \[5\]"),
        (When(steps={0, 7}), r"never acted at steps \[7\]"),
        (When(steps={0, 2}), r"never acted at steps \[2\]"),  # the first that is not there
    ],
)
def test_what_acted_in_part_alone_is_told_at_the_end(tiny, when, message):
    def runs():
        with torch.no_grad():
            list(tiny.sample(["a", "b"], seeds=[0, 1], steps=2))

    with pytest.raises(AccountError, match=message), intervening(tiny, zero(MID, when)):
        runs()
    with intervening(tiny, zero(MID, When(rows=(1,), steps={1}))):
        runs()
