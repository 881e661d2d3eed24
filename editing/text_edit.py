"""Closed forms on the denoiser's layers that read text alone: requests become rows, rows become one solve.

TIME, UCE, LocoEdit and the null-space edits differ in which tokens give rows, which layers are changed, what
is kept and how hard; all that is one ``EditSettings``, and each method a file with its own. A layer W that is
to give for the key k what it gives for the key t gets the residual W0 (t - k), so biases never enter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..models.arguments import check_fields
from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..probes.joint_text import JOINT, joint_inputs, joint_layers
from ..probes.text_layers import TextLayer, text_inputs, text_layers
from ..probes.text_states import TokenStates
from .edit import Edit
from .lowrank import Delta, LowRank
from .requests import TEMPLATES, Pick, PromptPair, Tokens, prompt_pairs, rows
from .ridge import solve
from .spans import basis_of, free_part
from .text_choice import Projections, Weights, chosen


@dataclass(frozen=True)
class EditSettings:
    """How requests become rows.

    Args:
        templates: wordings with ``{}`` for the word.
        tokens: which tokens of a wording give rows.
        kept_tokens: which tokens of a kept text hold the layers: its last word's ("subject"), and all of the
            empty text ("subject+empty"); or "all" of each text: then end and padding, which all texts share,
            hold so hard that little is changed.
        held_tokens: the same for texts that are held exactly.
        projections: which of keys and values are changed: "kv" or "v".
        ridge: λ; None is the mean squared length of a key times the number of requests.
        ridge_scale: λ is multiplied by it.
        kept_weight: of each kept row, beside a row of a request.
        empty: what an erased word is read as: "gap", what stands where it was left out; "begin", the begin
            token, as the authors' code of UCE.
    """

    templates: tuple[str, ...] = TEMPLATES
    tokens: Tokens = "subject+end"
    kept_tokens: Literal["subject+empty", "subject", "all"] = "subject+empty"
    held_tokens: Literal["all", "subject"] = "all"
    projections: Projections = "kv"
    ridge: float | None = None
    ridge_scale: float = 1.0
    kept_weight: float = 1.0
    empty: Literal["gap", "begin"] = "gap"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("ridge_scale", "kept_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; it is a number above 0")
        if self.ridge is not None and not 0 < self.ridge < float("inf"):
            raise UsageError(f"ridge is {self.ridge}; it is a number above 0, or None for its usual size")


@dataclass(frozen=True)
class Wish:
    """One wording of what a text shall be read as: ``own`` times itself, and some of each of other texts."""

    pairs: tuple[PromptPair, ...]
    amounts: tuple[float, ...]
    own: float = 0.0


Asked = tuple[Sequence[Wish], Pick | None]


def edit_text(
    model: Model,
    method: str,
    asked: Asked,
    settings: EditSettings,
    *,
    keep: Sequence[str] = (),
    hold: Sequence[str] = (),
    weights: Weights = None,
    **note: Any,
) -> Edit:
    """Solve for all layers that read text; the model is not changed.

    Args:
        model: an opened model.
        method: its name, for the note.
        asked: what is asked for, wording by wording; and what lines tokens up in place of
            ``settings.tokens``, if anything does.
        settings: how it becomes rows.
        keep: texts that must be read as before, nearly.
        hold: texts that must be read as before, exactly.
        weights: which layers; see ``text_choice.chosen``.
        note: what else the edit should tell of itself.

    Raises:
        ValueError: for contradictory wishes, and as ``ridge.solve``.
        LookupError: for words that a tokenizer loses, and layers that there are not.
    """
    layers, left = chosen(model, [*text_layers(model), *joint_layers(model)], weights, settings.projections)
    _check_kept(asked[0], keep, hold)
    deltas: dict[str, Delta] = {}
    told: dict[str, Any] = {}
    for made in space_rows(model, layers, asked, settings, keep=keep, hold=hold):
        change = solve(
            made.keys, {"": made.targets - made.keys}, made.ridge, preserve=made.kept, exact=made.held
        )[""]
        deltas |= {layer.weight: of_layer(change, layer) for layer in made.layers}
        told[made.space] = {"ridge": made.ridge, "rows": len(made.keys), **made.room()}
    about = {"keep": list(keep), "hold": list(hold), "spaces": told, "unedited": left}
    return Edit.of(model, deltas, method=method, **note, settings=asdict(settings), **about)


@dataclass(frozen=True, eq=False)
class SpaceRows:
    """What the layers of one space are solved for.

    Args:
        space: what they read.
        layers: all of them.
        keys: what is said, [row, in], in float64.
        targets: what each row is to be read as, [row, in].
        wishes: to which wish each row belongs.
        kept: rows to keep, nearly, with their weight.
        held: rows to keep, exactly: an orthonormal basis of them.
        ridge: λ.
    """

    space: str
    layers: Sequence[TextLayer]
    keys: Tensor
    targets: Tensor
    wishes: Sequence[int]
    kept: Tensor | None
    held: Tensor | None
    ridge: float

    def room(self) -> dict[str, Any]:
        """How many directions are held, of how many, and what share of the keys' length is left."""
        if self.held is None:
            return {}
        free = free_part(self.keys, self.held).norm(dim=1) / self.keys.norm(dim=1)
        return {"held": len(self.held), "of": self.keys.shape[1], "free": float(free.mean())}


def space_rows(
    model: Model,
    layers: Sequence[TextLayer],
    asked: Asked,
    settings: EditSettings,
    *,
    keep: Sequence[str],
    hold: Sequence[str],
) -> Iterator[SpaceRows]:
    """Yield the rows of each space that some layers read; as ``edit_text``."""
    wishes, pick = asked
    texts = list(dict.fromkeys([*_texts(wishes), *keep, *hold]))
    requests = len(wishes) / len(settings.templates)
    for space in dict.fromkeys(layer.space for layer in layers):
        group = [layer for layer in layers if layer.space == space]
        read = joint_inputs if space.startswith(JOINT) else text_inputs
        states = read(model, group[0], texts)
        keys, targets, owners = _wanted(states, wishes, settings, pick)
        kept, held = _kept(states, keep, settings.kept_tokens), _kept(states, hold, settings.held_tokens)
        basis = None if held is None else basis_of(held)
        free = keys if basis is None else free_part(keys, basis)
        ridge = requests * float(free.square().sum(1).mean()) if settings.ridge is None else settings.ridge
        kept = None if kept is None else settings.kept_weight**0.5 * kept
        yield SpaceRows(space, group, keys, targets, owners, kept, basis, settings.ridge_scale * ridge)


def _texts(wishes: Sequence[Wish]) -> Iterator[str]:
    for wish in wishes:
        for pair in wish.pairs:
            yield from (pair.source, pair.target)


def _wanted(
    states: Mapping[str, Sequence[TokenStates]],
    wishes: Sequence[Wish],
    settings: EditSettings,
    pick: Pick | None,
) -> tuple[Tensor, Tensor, list[int]]:
    """The keys of all wishes, what each is to be read as, [row, in], in float64; and whose each is."""
    keys, targets, owners = [], [], list[int]()
    for i, wish in enumerate(wishes):
        for part in range(len(next(iter(states.values())))):
            own = {text: parts[part] for text, parts in states.items()}
            made = [_pair_rows(own, pair, settings, pick) for pair in wish.pairs]
            key = made[0][0]
            meant = sum(a * t for a, (_, t) in zip(wish.amounts, made, strict=True))
            keys.append(key)
            targets.append(wish.own * key + meant)
            owners += [i] * len(key)
    return torch.cat(keys), torch.cat(targets), owners


def _pair_rows(
    states: Mapping[str, TokenStates], pair: PromptPair, settings: EditSettings, pick: Pick | None
) -> tuple[Tensor, Tensor]:
    if len(states[pair.source].words.tokens) == 1:  # the pooled vector, or a text of one token
        return states[pair.source].values[:1].double(), states[pair.target].values[:1].double()
    keys, targets = rows(states, [pair], pick or settings.tokens)
    if not pair.meant and settings.empty == "begin":
        targets = states[pair.target].values[:1].double().expand_as(keys)
    return keys, targets


def _kept(states: Mapping[str, Sequence[TokenStates]], texts: Sequence[str], tokens: str) -> Tensor | None:
    """The tokens of texts that must be read as before: all, or their last words'."""
    if not texts:
        return None
    found = []
    for text in texts:
        for part in states[text]:
            n = len(part.values)
            last = min(max(part.words.end - 1, 0), n - 1)
            whole = tokens == "all" or (tokens == "subject+empty" and not text)
            found.append(part.values if whole else part.values[last : last + 1])
    return torch.cat(found).double()


def of_layer(change: Delta, layer: TextLayer) -> Delta:
    """The change of a layer's weight, W0 B, that has it read k as k + B k; text is its first columns.

    B is the solution for the keys themselves, one for all layers of a space.
    """
    weight = layer.module.weight.detach().cpu().double()
    own, more = weight[:, : layer.columns], weight.shape[1] - layer.columns
    if isinstance(change, LowRank):
        return LowRank(own @ change.left, pad(change.right, (0, more))).compact()
    return pad(own @ change, (0, more))


def _check_kept(wishes: Sequence[Wish], keep: Sequence[str], hold: Sequence[str]) -> None:
    for name, texts in (("keep", keep), ("hold", hold)):
        both = [p.source for wish in wishes for p in wish.pairs if p.source in texts]
        if both:
            raise UsageError(
                f"{both[0]!r} is to be read otherwise, and stands in {name} to be read as before; choose one"
            )


def replaced(requests: Mapping[str, str], templates: Sequence[str]) -> list[Wish]:
    """Return the wishes to read each word as another, wording by wording."""
    return [Wish((pair,), (1.0,)) for pair in prompt_pairs(requests, templates)] if requests else []


def noted(note: Mapping[str, Any]) -> EditSettings:
    """Return the settings that an edit's note tells."""
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in note["settings"].items()}
    return EditSettings(**kept)


def named(settings: str | EditSettings, known: Mapping[str, EditSettings]) -> EditSettings:
    """Return settings by name.

    Raises:
        LookupError: for a name that there is not.
    """
    if isinstance(settings, EditSettings):
        return settings
    if settings not in known:
        raise NotFoundError(f"there are no settings {settings!r}; there are {', '.join(map(repr, known))}")
    return known[settings]
