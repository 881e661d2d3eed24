"""Each distinct condition once at each noise level and noise draw, on pictures; all else is a reduction.

Information, its decompositions and classification by a diffusion model compare the same network under several
texts. One bank of predictions serves them all: n words and their pairs take 1 + n + n (n - 1) / 2 conditions,
where a function called for each pair takes 9 n (n - 1) / 2 (Kong et al. 2024, arXiv:2310.07972). Three
defects of the released code are not repeated: here weights add up to the range, the level that the network is
told is the level of its input, and the conditions share their noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from ...models.progress import Progress, showing
from ...models.suggest import near
from ..trace import Trace
from .conditions import latents_of, read_conditions
from .one_picture import OnePicture, Plan
from .result import ErrorBank, Estimator, check_estimator
from .strata import Strata, StrataOptions


@checked
def error_bank(  # noqa: PLR0913  # one bank, all its settings by name
    model: Model,
    images: Tensor | Trace,
    conditions: Mapping[str, str | Prompt | Sequence[str | Prompt]],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    estimator: Estimator = "standard",
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
    **strata: Unpack[StrataOptions],
) -> ErrorBank:
    """Evaluate a model under several conditions on pictures, with noise that the conditions share.

    Guidance is 1: the network as it was trained. Costs 2 rows for each picture, distinct condition, level and
    draw; conditions that read the same are evaluated once.

    Args:
        model: an opened model, of any family and kind of prediction.
        images: pictures [picture, channel, height, width] in 0..1, encoded by the posterior's mode; or a run,
            whose final latents are taken as they are.
        conditions: by name, what the network reads: one for all pictures, or one for each. The empty text is
            what the unconditional branch reads.
        pairs: (informed, base) by name: what maps are kept of, and what standard errors are looked at.
        estimator: which of the two estimates has to reach the standard error that is asked for.
        batch: rows in one call of the network.
        store: a folder; what is in it is not computed again, so a call that was stopped goes on. The same
            numbers to the bit, if ``batch`` is the same.
        progress: called with (done, total, what); without it a bar comes by itself.
        **strata: noise levels and draws, as in ``Strata``: log_snr, levels, draws, seed, stderr, ...

    Raises:
        ValueError: for pictures that the model cannot take, levels that it was not trained on, a number of
            conditions that does not fit, and a standard error that is asked for without pairs.
        LookupError: for pairs of conditions that are not there.
        RuntimeError: if the network predicts what is no number.

    >>> from denoscope.models.synthetic.analytic import Analytic, two_by_two
    >>> model = Analytic(two_by_two())
    >>> points = model.denoiser.draw(2, seed=0, condition={"shape": "circle"})
    >>> bank = error_bank(model, points, {"none": "", "circle": "circle"}, levels=8)
    >>> bank
    ErrorBank(2 pictures, 2 conditions, 8 levels, 1 draws; 64 rows)
    """
    how = Strata(**strata)
    _check(conditions, pairs, how)
    check_estimator(estimator)
    names = list(conditions)
    plan = Plan.of(
        model,
        how,
        batch=batch,
        store=store,
        pairs=[(names.index(a), names.index(b)) for a, b in pairs],
        estimator=estimator,
    )
    with torch.no_grad():
        clean = latents_of(model, images)
        prompts = read_conditions(model, conditions, len(clean))
    with showing(progress) as show:
        found = [OnePicture(plan, x, i, prompts[i]).drawn(show) for i, x in enumerate(clean)]
    return ErrorBank(
        tuple(names),
        plan.log_snr,
        plan.width,
        [f.gram for f in found],
        tuple((a, b) for a, b in pairs),
        torch.stack([f.maps for f in found]),
        sum(f.rows for f in found),
        tuple(f.reached for f in found),
        {**plan.about, "levels": how.levels, "width": plan.width, "seed": how.seed},
    )


def _check(conditions: Mapping[str, Any], pairs: Sequence[tuple[str, str]], how: Strata) -> None:
    if not conditions:
        raise UsageError('conditions is empty; name what the network reads: {"none": "", "cat": "a cat"}')
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise UsageError(f"pairs hold {wrong[0]!r}; a pair is (informed, base), two names of conditions")
    for name in (name for pair in pairs for name in pair):
        if name not in conditions:
            raise NotFoundError(f"pairs name {name!r}, which is no condition; {near(name, conditions)}")
    if how.adaptive and not pairs:
        raise UsageError("a standard error is asked for, but of nothing: name pairs of conditions")
