"""What a pipeline's running call reads: whose text a text encoder is given, and the prompt of each row."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.places.account import AccountError
from ...models.run.context import Branch
from ...models.text.prompt import Words
from .pipelines import Arguments


def texts_of(arguments: Arguments, branch: Branch, suffix: str = "") -> list[str] | None:
    """Return what a branch reads of a call's arguments; None where its embeddings were given instead.

    Args:
        arguments: of the pipeline's call, or of its ``encode_prompt``.
        branch: "cond" or "uncond"; without a negative prompt the latter reads the empty text.
        suffix: of the text encoder, "_2".
    """
    name = "prompt" if branch == "cond" else "negative_prompt"
    text = arguments.get(name + suffix) or arguments.get(name)
    if text is None and (branch == "cond" or arguments.get("negative_prompt_embeds") is not None):
        return None
    return [text or ""] if text is None or isinstance(text, str) else list(text)


def branch_of(
    pipe: Any, arguments: Arguments, part: str, ids: Tensor, *, order: Sequence[Branch], met: Counter[str]
) -> Branch:
    """Return whose text a text encoder is given: the branch whose text has these tokens.

    Args:
        pipe: the pipeline.
        arguments: of its running call.
        part: the text encoder's component.
        ids: the tokens that it is given, [text, token].
        order: the branches that may read text, first the one that is read first; where several read the same
            tokens, it decides.
        met: calls of each encoder so far whose tokens were those of several branches.

    Raises:
        RuntimeError: an AccountError for tokens of no branch.
    """
    suffix = part.removeprefix("text_encoder")
    tokenizer = getattr(pipe, f"tokenizer{suffix}")
    expected = {b: _texts(pipe, tokenizer, arguments, b, suffix) for b in order}
    found = [b for b, texts in expected.items() if texts is not None and _same(ids, tokenizer, texts)]
    if not found:
        read = tokenizer.batch_decode(ids, skip_special_tokens=True)
        raise AccountError(
            f"{part} reads {read}, neither the prompt nor the negative prompt of the running call, so "
            'whose it is cannot be known; say it: with run.assigning("cond"): ...'
        )
    met[part] += len(found) > 1
    return found[min(max(met[part] - 1, 0), len(found) - 1)]


def _same(ids: Tensor, tokenizer: Any, texts: Sequence[str]) -> bool:
    if len(texts) not in (1, len(ids)):
        return False
    width = {"padding": "max_length", "max_length": ids.shape[1], "truncation": True}
    expected = tokenizer(list(texts), return_tensors="pt", **width).input_ids
    return bool((ids.cpu() == expected).all())


def _texts(pipe: Any, tokenizer: Any, arguments: Arguments, branch: Branch, suffix: str) -> list[str] | None:
    """Return a branch's texts as the pipeline puts them, by its own methods."""
    texts = texts_of(arguments, branch, suffix)
    if texts is None:
        return None
    if hasattr(pipe, "_text_preprocessing"):
        texts = pipe._text_preprocessing(texts, clean_caption=bool(arguments.get("clean_caption")))
    if hasattr(pipe, "maybe_convert_prompt"):  # learned words of several vectors
        texts = pipe.maybe_convert_prompt(texts, tokenizer)
    instruction = arguments.get("complex_human_instruction") if branch == "cond" else None
    return ["\n".join(instruction) + t for t in texts] if instruction else texts


def encoded(model: Model, arguments: Arguments, branches: Sequence[Branch]) -> dict[Branch, list[Prompt]]:
    """Return the Prompt of each row of a call, by branch, where it is known; nothing sees it encode.

    It is not known for prompts given as embeddings, for texts longer than the model reads, and where a second
    encoder reads another text.
    """
    copies = int(arguments.get("num_images_per_prompt") or 1)
    more = [f"{side}prompt_{i}" for side in ("", "negative_") for i in (2, 3)]
    cond = _conditional(arguments)
    if cond is None or any(arguments.get(name) is not None for name in more):
        return {}
    reader = _reader(model, arguments)
    found: dict[Branch, list[Prompt]] = {}
    try:
        with torch.no_grad(), model.live.suspending():
            for branch in branches:
                texts = cond if branch == "cond" else texts_of(arguments, branch)
                if texts is None:
                    continue
                texts = texts * len(cond) if len(texts) == 1 else texts
                made = reader.negative(texts) if branch == "uncond" else reader.encode(texts)
                found[branch] = [p for p in made for _ in range(copies)]
    except (ValueError, LookupError):
        return {}
    return found


def _reader(model: Model, arguments: Arguments) -> Model:
    """Return the model, reading as many tokens as the call does, after its instruction."""
    twin: Any = copy.copy(model)
    if arguments.get("max_sequence_length"):
        twin.t5_tokens = twin.text_tokens = arguments["max_sequence_length"]
    if "complex_human_instruction" in arguments:
        twin.instruction = tuple(arguments["complex_human_instruction"] or ())
    reader: Model = twin
    return reader


def words_of(tokenizer: Any, prompts: Sequence[Prompt], part: str, ids: Tensor) -> list[Words]:
    """Return the words of what a text encoder is given; none unless they are the call's prompts.

    Args:
        tokenizer: the encoder's.
        prompts: of the rows of a branch, one after another the pictures of each.
        part: the text encoder's component.
        ids: the tokens that it is given, [text, token].
    """
    if not len(ids) or len(prompts) % len(ids):
        return []
    words = [p.of(part) for p in prompts[:: len(prompts) // len(ids) or 1]]
    same = [tokenizer.convert_tokens_to_ids(list(w.tokens)) for w in words] == ids.tolist()
    return words if same else []


def _conditional(arguments: Arguments) -> list[str] | None:
    if "class_labels" in arguments:
        return [str(int(label)) for label in arguments["class_labels"]]
    return texts_of(arguments, "cond")


def as_given(
    prompts: Sequence[Prompt], rows: slice, kwargs: Mapping[str, Any], n_rows: int
) -> tuple[Prompt, ...]:
    """Return the prompts of a branch with the embeddings that the denoiser is given; none unless they fit."""
    given = kwargs.get("encoder_hidden_states")
    if len(prompts) != rows.stop - rows.start:
        return ()
    if not isinstance(given, Tensor):
        return tuple(prompts)  # classes
    if len(given) != n_rows or given.shape[1] != len(prompts[0].tokens):
        return ()
    pooled = kwargs.get("pooled_projections", (kwargs.get("added_cond_kwargs") or {}).get("text_embeds"))
    pools = pooled[rows] if isinstance(pooled, Tensor) else [p.pooled for p in prompts]
    return tuple(replace(p, embeds=e, pooled=q) for p, e, q in zip(prompts, given[rows], pools, strict=True))
