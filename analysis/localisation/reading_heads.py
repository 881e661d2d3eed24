"""Head relevance: which heads look for a word, rather than for other words?

After the head relevance vectors of Park et al. 2025 (ICLR, arXiv:2412.02237). For each head, with q of the
picture's tokens and k of a word's tokens (their logits averaged), at each step::

    relevance = mean over picture tokens and steps of  l(word) - log mean exp l(others),   l = q . k / sqrt(d)

the log-odds of the word against an average other word: 0 looks for neither. Published is a vote for the word
that gets most, which drops how much; words that are drawn anew for each head and step, so that heads see
other lists; and a softmax that the begin token sits in. Here the list is one, and the magnitude is kept.

The words' keys are passengers: they are compared with, and the picture is that of the prompt alone. It is
what a head looks for, not what it does: for that see ``head_ablation``, and compare them by ``agreement``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import CallContext, When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.intervene import Intervention
from ...probes.trace import trace
from ..mediation.choice import copy_row, denoiser_sites, step_windows
from ..mediation.runs import check_each_once, each_subject
from ..scores import Scores
from .ablating_heads import by_head, heads_of, speaking


@checked
def head_relevance(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    others: Sequence[str],
    *,
    seeds: Sequence[int],
    sites: Sequence[Site | str] | Site | str | None = None,
    when: Collection[int] | None = None,
    steps: int = 20,
    guidance: float | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Return how much more each head looks for the subject than for an average one of other words.

    Each word is encoded as a text of its own. Where keys of the text depend on the picture (joint attention),
    the words' texts run beside the prompt at its latents, a row for each; elsewhere they cost one call.

    Args:
        model: an opened model whose denoiser reads text by attention.
        prompts: what is painted meanwhile; the subject need not be in it.
        subject: the words that heads look for, or one for each prompt.
        others: the words that they are compared with, the same at all heads and steps.
        seeds: each prompt is run with each seed.
        sites: attentions that read the text, by what their heads say (``cross_attn.z``); None is all.
        when: step indices to look at; None is all.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default. Rows that read the prompt are looked at.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores with dims site, head, prompt, seed: log-odds in nats, averaged over picture tokens and steps.
        NaN where a site has fewer heads than others.

    Raises:
        ValueError: for no other words, words named twice, sites that do not read the text, and runs that
            cannot be made.
        LookupError: for words that no token stands for, and a model that reads no text by attention.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    subjects = each_subject(prompts, subject)
    for word in subjects:
        check_each_once("the subject and others", [word, *others])
    if not others:
        raise UsageError("others is empty; give at least one word to compare with")
    known = speaking(model)
    heads = heads_of(model, known if sites is None else denoiser_sites(model, sites))
    if lost := [site for site, _ in heads if site not in known]:
        raise UsageError(f"{lost[0]} reads no text; give sites like {str(known[0])!r}")
    (at,) = step_windows(None if when is None else [when], len(model.steps(steps)))
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    found, rows = np.empty((len(heads), len(prompts), len(seeds))), 0
    with showing(progress) as show:
        for p, prompt in enumerate(prompts):
            looking = _Looking(model, [subjects[p], *others], list(dict.fromkeys(s for s, _ in heads)), at)
            for s, seed in enumerate(seeds):
                seen = looking.run(prompt, seed, how)
                found[:, p, s] = [float(seen[site][head]) for site, head in heads]
                show(p * len(seeds) + s + 1, len(prompts) * len(seeds), "prompts and seeds")
            rows += looking.rows
    about = provenance(model, **Sampling(**how).described(model), method="head_relevance", rows=rows,
                       subject=subjects, others=list(others))  # fmt: skip
    return by_head(heads, found, prompts, seeds, about)


class _Looking:
    """A list of words, the first of which is looked for, beside runs of one model."""

    def __init__(self, model: Model, words: Sequence[str], sites: Sequence[Site], when: When) -> None:
        self.model, self.sites, self.when, self.rows = model, sites, when, 0
        with torch.no_grad():
            self.texts = model.encode(list(words))
        self.tokens = [text.find(word) for text, word in zip(self.texts, words, strict=True)]
        self.beside = any("joint_attn" in site.kind for site in sites)
        self.keys = {} if self.beside else self._keys_once()
        self.seen: dict[Site, list[Tensor]] = {}

    def run(self, prompt: str, seed: int, how: SamplingOptions) -> Mapping[Site, Tensor]:
        """Log-odds of each site's heads, [head], in a run of a prompt, whose picture stays as it is."""
        self.seen = {site: [] for site in self.sites}
        texts = self.texts if self.beside else []
        entry = self.model.input_site
        shown = [Intervention(entry, copy_row(0, 1 + i)) for i in range(len(texts))]
        looks = [i for site in self.sites for i in self._looks(site)]
        run = trace(
            self.model,
            [prompt, *texts],
            seeds=[seed] * (1 + len(texts)),
            interventions=[*shown, *looks],
            **how,
        )
        self.rows += (1 + len(texts)) * len(run.steps) * len(self.model.branch_names(how["guidance"]))
        return {site: torch.stack(each).mean(0) for site, each in self.seen.items()}

    def _looks(self, site: Site) -> list[Intervention]:
        """What compares queries with keys where both are: queries come first."""
        picture, _ = self.model.picture_and_text(_probs(site), len(self.texts[0].tokens))
        queries: list[Tensor] = []

        def asked(x: Tensor, _: CallContext) -> None:
            queries[:] = [x[0, :, picture]]
            if not self.beside:
                self.seen[site].append(_log_odds(queries[0], self.keys[site]))

        def read(x: Tensor, _: CallContext) -> None:
            self.seen[site].append(_log_odds(queries[0], self._of_words(site, x)))

        rows = tuple(range(1, 1 + len(self.texts)))
        look = Intervention(_part(site, "q"), asked, self.when).on(0)
        return [look, Intervention(_part(site, "k"), read, self.when).on(*rows)] if self.beside else [look]

    def _of_words(self, site: Site, keys: Tensor) -> Tensor:
        """Mean key of each word's tokens, [word, head, channel], of [word, head, token, channel]."""
        _, first = self.model.picture_and_text(_probs(site), len(self.texts[0].tokens))
        each = zip(keys, self.tokens, strict=True)
        return torch.stack([k[:, [first + t for t in tokens]].float().mean(1) for k, tokens in each])

    def _keys_once(self) -> dict[Site, Tensor]:
        """Keys of the words where they are the same at all steps, of one call."""
        found: dict[Site, Tensor] = {}

        def keep(site: Site) -> Intervention:
            return Intervention(_part(site, "k"), lambda x, _: found.update({site: self._of_words(site, x)}))

        n, step = len(self.texts), self.model.levels[len(self.model.levels) // 2]
        with torch.no_grad():
            self.model.denoise(
                self.model.noise([0] * n), step, self.texts, interventions=[keep(s) for s in self.sites]
            )
        self.rows += n
        return found


def _log_odds(queries: Tensor, keys: Tensor) -> Tensor:
    """[head], of [head, token, channel] and [word, head, channel]; the first word against the others."""
    logits = torch.einsum("htc,whc->wht", queries.float(), keys.to(queries.device)) * keys.shape[-1] ** -0.5
    others = logits[1:].logsumexp(0) - math.log(len(logits) - 1)
    found: Tensor = (logits[0] - others).mean(-1).cpu()
    return found


def _part(site: Site, name: str) -> Site:
    return Site(f"{str(site).removesuffix('.z')}.{name}")


def _probs(site: Site) -> Site:
    return _part(site, "probs")
