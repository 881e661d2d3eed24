"""What changes during a fit, and how it is kept on disk: tensors and JSON, never a pickle."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .errors import StateError, UsageError
from .store.canonical import json_hash, plain_json
from .store.fingerprint import tensor_hash
from .store.store import Store, Unit

log = logging.getLogger(__name__)

MakeOptimizer: TypeAlias = Callable[[list[Tensor]], torch.optim.Optimizer]

_FINITE = "take a lower learning rate, or look for a division by zero in the loss"


@dataclass(eq=False)
class Training:
    """All that changes during a fit.

    Args:
        parameters: what is trained, by name.
        buffers: of a module; its forward may change them.
        frozen: what a module has besides; it may not change.
        optimizer: made for the parameters.
        rates: the learning rate of each of its groups.
        losses: so far.
        kept: parameters and buffers as they were at the last checkpoint, or at the start.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    frozen: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    rates: list[float]
    losses: list[float] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, what: Any, optimizer: MakeOptimizer) -> Training:
        """Begin: find what is trained in a module or in tensors."""
        named: dict[str, Tensor]
        if isinstance(what, nn.Module):
            named, buffers = dict(what.named_parameters()), dict(what.named_buffers())
        else:
            named, buffers = dict(what) if isinstance(what, Mapping) else _numbered(what), {}
        trained = {n: t for n, t in named.items() if t.requires_grad}
        frozen = {n: t for n, t in named.items() if n not in trained}
        if not trained or (frozen and not isinstance(what, nn.Module)):
            which = ", ".join(frozen) or "it is empty"
            raise UsageError(f"there is something that cannot be trained ({which}); set requires_grad_(True)")
        inner = [n for n, t in trained.items() if not t.is_leaf]
        if inner:
            raise UsageError(f"{', '.join(inner)} is computed from others; train those, or detach it first")
        made = optimizer(list(trained.values()))
        state = cls(trained, buffers, frozen, made, [group["lr"] for group in made.param_groups])
        state.kept = state.copies()
        return state

    @property
    def devices(self) -> set[torch.device]:
        """Where the parameters lie."""
        return {t.device for t in self.parameters.values()}

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by their name in a checkpoint."""
        trained = {f"parameter/{n}": t for n, t in self.parameters.items()}
        return trained | {f"buffer/{n}": t for n, t in self.buffers.items()}

    def copies(self) -> dict[str, Tensor]:
        """The same, as they are now."""
        return {n: t.detach().clone() for n, t in self.tensors().items()}

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Write such values back."""
        for name, tensor in self.tensors().items():
            tensor.copy_(values[name])

    def settings(self) -> dict[str, Any]:
        """What of this must be equal for two fits to be the same."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
        return {
            "optimizer": type(self.optimizer).__name__,
            "optimizer settings": plain_json(groups, "the optimizer's settings"),
            "frozen parameters": hash_all(self.frozen),
            "start": hash_all(self.tensors()),
        }

    def step(self, loss: Tensor, factor: float) -> None:
        """Make one step; no gradient is left on anything."""
        step, parameters = len(self.losses), list(self.parameters.values())
        if loss.numel() != 1 or not loss.requires_grad:
            raise UsageError(
                f"the loss of step {step} has shape {tuple(loss.shape)} and "
                f"{'depends' if loss.requires_grad else 'does not depend'} on what is trained; "
                "return one number that depends on it"
            )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise StateError(f"the loss is {value} at step {step}; {_FINITE}")
        grads = torch.autograd.grad(loss.reshape(()), parameters, allow_unused=True)
        idle = [n for n, g in zip(self.parameters, grads, strict=True) if g is None]
        if idle and step == 0:
            log.warning("the loss of the first step does not depend on %s", ", ".join(idle))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        self.optimizer.step()
        self.optimizer.zero_grad()
        lost = [n for n, p in self.parameters.items() if not bool(p.isfinite().all())]
        if lost:
            raise StateError(f"{', '.join(lost)} is not finite after step {step}; {_FINITE}")
        self.losses.append(value)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Put the parameters back to what was kept last if the block does not come to its end."""
        try:
            yield
        except BaseException:
            self.optimizer.zero_grad()
            self.fill(self.kept)
            raise


@dataclass(frozen=True)
class Checkpoints:
    """The state of one fit in a store, one unit that is replaced."""

    store: Store
    settings: Mapping[str, Any]

    def save(self, state: Training) -> None:
        """Keep a state in place of the one before."""
        memory = state.optimizer.state_dict()["state"]
        flat = {f"{i}/{k}": v for i, of_one in memory.items() for k, v in of_one.items()}
        tensors = {f"optimizer/{k}": v for k, v in flat.items() if isinstance(v, Tensor)}
        rest = {k: v for k, v in flat.items() if not isinstance(v, Tensor)}
        kept = state.copies()
        tensors |= kept | {"losses": torch.tensor(state.losses, dtype=torch.float64)}
        self.store.put(self._key, tensors, {"settings": self.settings, "optimizer": rest})
        state.kept = kept

    def restore(self, state: Training) -> None:
        """Go on from the checkpoint, if there is one."""
        unit = self._find(state)
        if unit is None:
            return
        memory: dict[int, dict[str, Any]] = {}
        tensors = {
            k.removeprefix("optimizer/"): v for k, v in unit.tensors.items() if k.startswith("optimizer/")
        }
        for name, value in {**tensors, **unit.about["optimizer"]}.items():
            i, _, key = name.partition("/")
            memory.setdefault(int(i), {})[key] = value
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": memory, "param_groups": groups})
        state.fill(unit.tensors)
        state.losses, state.kept = unit.tensors["losses"].tolist(), state.copies()
        log.info("going on from step %d", len(state.losses))

    @property
    def _key(self) -> str:
        return self.store.key(fit=True)

    def _find(self, state: Training) -> Unit | None:
        """The checkpoint of this fit, begun with these values or left with them."""
        if self._key not in self.store:  # damaged ones too: begin again
            return None
        unit = self.store.get(self._key)
        held = unit.about["settings"] if unit else {}
        now = dict(self.settings)
        if (
            unit
            and hash_all({n: unit.tensors[n] for n in state.tensors() if n in unit.tensors}) == now["start"]
        ):
            now["start"] = held["start"]
        other = [k for k in now if held.get(k) != now[k]]
        if unit and other:
            told = "; ".join(f"{k} was {json.dumps(held.get(k))}, is {json.dumps(now[k])}" for k in other)
            raise UsageError(
                f"{self.store.folder} holds another fit: {told}. Name a new folder, or delete it"
            )
        return unit


def hash_all(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of named tensors and their number formats."""
    return json_hash({name: [str(t.dtype), tensor_hash(t)] for name, t in tensors.items()})


def _numbered(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    return {str(i): t for i, t in enumerate(tensors)}
