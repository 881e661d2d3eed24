"""Terms of guidance inside a pipeline's own call: as in our own loop, and what makes branches is refused."""

from __future__ import annotations

import pytest
import torch

from denoscope.guidance import CFG, PAG, Adaptive, Compose, JudgeGradient, RegionPreserve
from denoscope.probes.attach import attached
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

SEEDS = (5, 6, 7)


def bright(seen):
    return seen.images.mean((1, 2, 3)) + 0 * len(seen.prompts)


def terms(model, by=1.0):
    mask = torch.zeros(model.latent_shape)
    mask[..., : mask.shape[-1] // 2] = 1
    later = range(1, 3)  # flow matching begins at pure noise
    return JudgeGradient(bright, 0.3 * by, normalised=True, steps=later) + RegionPreserve(
        mask, model.noise([7]), 0.5 * by, steps=later
    )


def by_hand(model, texts, guidance=4.0):
    generators = [torch.Generator().manual_seed(s) for s in SEEDS]
    with torch.no_grad():
        return model.run_pipeline(list(texts), generators, 3, guidance)


@pytest.mark.parametrize("name", ["sd", "flux-dev", "dit", "ddpm"])
def test_equal_to_our_own_loop(name):
    model, texts = opened(name), FAMILIES[name].texts or ("",) * 3
    ours = trace(model, texts, seeds=SEEDS, steps=3, guidance=CFG(4.0) + terms(model))
    with attached(model, guidance=terms(model)) as run:
        theirs = by_hand(model, texts)
    torch.testing.assert_close(theirs, ours.images, rtol=1e-3, atol=1e-4)
    plain = by_hand(model, texts)
    assert not torch.allclose(theirs, plain, atol=1e-3)
    with attached(model, guidance=terms(model, 0.0)):
        assert torch.equal(by_hand(model, texts), plain)
    log = run.trace.guidance
    assert list(log.lengths) == ["JudgeGradient", "RegionPreserve"] and log.output.shape == (3, 3)
    assert (log.lengths["RegionPreserve"] > 0).tolist() == [[False] * 3, [True] * 3, [True] * 3]


def test_what_has_or_needs_branches_is_refused_with_the_reason(tiny):
    why = r"the pipeline makes its branches and combines them itself \(guidance_scale=\.\.\.\)"
    for guidance in (CFG(4.0), CFG(4.0) + terms(tiny), Adaptive(CFG(4.0))):
        with (
            pytest.raises(ValueError, match=rf"CFG\(scale=4.0.* cannot act in a pipeline's own call: {why}"),
            attached(tiny, guidance=guidance),
        ):
            pass
    for term, branch in ((PAG(3.0), "perturbed"), (Compose({"a dog": 1.0}), "uncond', 'a dog")):
        with (
            pytest.raises(ValueError, match=rf"needs the branches \('{branch}'.*: {why}"),
            attached(tiny, guidance=term),
        ):
            pass


def test_steps_that_the_call_did_not_have_are_told(tiny):
    late = RegionPreserve(torch.ones(1), tiny.noise([7]), steps=[7])
    with attached(tiny, guidance=late) as run:
        with pytest.raises(ValueError, match="acts at steps up to 7, but the run has steps 0 to 2"):
            by_hand(tiny, ("a cat",) * 3)
        assert run.traces == []
