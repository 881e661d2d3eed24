"""What public functions are given, compared with their annotations: once, at the edge, in one voice."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from torch import Tensor

from .errors import UsageError, WrongTypeError

F = TypeVar("F", bound=Callable[..., Any])
Part = tuple[str, Any, Any]
"""What it is called, the value, and what it should be."""

_NUMBERS: dict[Any, type] = {int: Integral, float: Real}
_LATE = (("Adapter", "adapter"), ("Model", "base"))
"""What some files may name for type checkers alone, lest they import each other."""
_LISTS = (abc.Sequence, abc.Collection, list)
_WHOLE_OR_REAL = {Integral, Real}
_WORDS = {
    Integral: "a whole number",
    Real: "a number",
    str: "a text",
    bool: "True or False",
    NoneType: "None",
}


def checked(function: F) -> F:
    """Make a public function refuse what its annotations do not allow, before it does anything.

    Shapes and ranges are its own business. numpy's numbers are numbers, arrays of one axis are lists, and a
    text is no list of texts. Keywords that it does not have stay Python's.

    Raises (where it is called):
        TypeError: the message repeats the value, and says what to give.
        ValueError: for a text that is none of the choices of a Literal.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def edge(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:  # Python says it well
            return function(*args, **kwargs)
        hints = _hints(function)
        for name, value in given.arguments.items():
            given.arguments[name] = read(name, value, hints.get(name, Any))
        return function(*given.args, **given.kwargs)

    return edge  # type: ignore[return-value]


def check_fields(value: Any) -> None:
    """Compare the fields of a dataclass with their annotations; the first line of its ``__post_init__``."""
    owner: Any = type(value)
    for name, hint, as_they_are in _fields(owner):
        given = getattr(value, name)
        if type(given) in as_they_are:  # most are: values are made by the thousand
            continue
        plain = read(name, given, hint)
        if plain is not given:
            object.__setattr__(value, name, plain)


def read(name: str, value: Any, hint: Any) -> Any:
    """Return a value as its annotation says: in plain Python where it is numpy's or torch's.

    Raises:
        TypeError: if it is something else; the message repeats it, and says what to give.
        ValueError: if it is a text, and none of those that it may be.
    """
    if type(value) in _as_they_are(hint):
        return value
    if _fits(value, hint):
        return _plain(value, hint)
    for kind in _kinds(hint):
        for part in _parts(name, value, kind) or ():
            read(*part)  # the one that is wrong is named
    if isinstance(value, str) and any(str in _form(k)[1] for k in _kinds(hint) if _form(k)[0] is Literal):
        raise UsageError(f"{name} is {value!r}; it is {_wanted(hint)}")
    raise WrongTypeError(_said(name, value, hint))


def _plain(value: Any, hint: Any) -> Any:
    """Numbers of numpy, arrays that stand for lists, True for 1; the rest as it is."""
    kinds = _kinds(hint)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        as_it_is = any(
            isinstance(k, type) and k not in _WHOLE_OR_REAL and isinstance(value, k) for k in kinds
        )
        return value if as_it_is else value.tolist()
    if isinstance(value, int) and Integral in kinds and bool not in kinds:
        return int(value)
    if isinstance(value, int) and Real in kinds and abs(value) > 2**53:  # torch takes no longer ones
        return float(value)
    if type(value) in (list, tuple):
        inner = [_form(k)[1][0] for k in kinds if _form(k)[0] in (tuple, *_LISTS)]
        numbers = inner and set(_kinds(inner[0])) & _WHOLE_OR_REAL
        return type(value)(_plain(v, inner[0]) for v in value) if numbers else value
    return value


def _fits(value: Any, hint: Any) -> bool:
    return type(value) in _as_they_are(hint) or any(_is(value, kind) for kind in _kinds(hint))


@functools.cache
def _as_they_are(hint: Any) -> frozenset[type]:
    """Types whose values fit, and are plain already: the answer for most, without looking further."""
    kinds = _kinds(hint)
    exact = {k for k in kinds if isinstance(k, type) and get_origin(k) is None}
    if Integral in kinds and Real not in kinds:
        exact.add(int)
    if Real in kinds:
        exact.add(float)
    return frozenset(exact - {Integral, Real, object, list, tuple})


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of one kind, which is no union."""
    origin, inner = _form(kind)
    if origin is None:
        return isinstance(value, kind) or (kind is Integral and _is_whole(value))
    if origin is Literal:
        return isinstance(value, inner) and (not isinstance(value, str) or value in get_args(kind))
    if origin is abc.Callable:
        return callable(value)
    parts = _parts("", value, kind)
    return parts is not None and all(_fits(v, hint) for _, v, hint in parts)


def _is_whole(value: Any) -> bool:
    """Whether an array of no axis holds a whole number."""
    return isinstance(value, Tensor | np.ndarray) and not value.ndim and isinstance(value.item(), int)


@functools.cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Origin and arguments of a kind; of a Literal, the types of its choices."""
    origin, inner = get_origin(kind), get_args(kind)
    return origin, tuple({type(choice) for choice in inner}) if origin is Literal else inner


def _parts(name: str, value: Any, kind: Any) -> Iterator[Part] | None:
    """What a list or mapping holds, and what it should; None if the value is none."""
    origin, inner = _form(kind)
    if origin is abc.Mapping and isinstance(value, Mapping):
        key, item = inner
        keys = ((f"a key of {name}", k, key) for k in value)
        items = () if item is Any else ((f"{name}[{k!r}]", v, item) for k, v in value.items())
        return iter([*keys, *items])
    if origin in (tuple, *_LISTS) and _several(value, abc.Sequence if origin is tuple else origin):
        kinds = inner[:1] if inner[-1] is ... else inner
        return ((f"{name}[{i}]", v, kinds[min(i, len(kinds) - 1)]) for i, v in _numbered(value, inner))
    return None


def _numbered(value: Any, inner: tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    if inner[0] is Any:
        return iter(())
    if inner[-1] is ...:  # one speaks for all of its type: a text has a hundred tokens
        first: dict[type, tuple[int, Any]] = {}
        for i, v in enumerate(values):
            first.setdefault(type(v), (i, v))
        return iter(first.values())
    return iter(enumerate(values))


def _several(value: Any, kind: type) -> bool:
    """Whether a value is a list of things; arrays of an axis are, texts are not."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0
    return isinstance(value, kind) and not isinstance(value, str | bytes | bytearray)


@functools.cache
def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone, as ``isinstance`` takes them where they are classes."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(k for some in get_args(hint) for k in _kinds(some))
    hint = getattr(hint, "array_type", hint)  # jaxtyping's; shapes are checked where they are used
    if hint is None:
        return (NoneType,)
    if get_origin(hint) is None and (
        hint is Any
        or not isinstance(hint, type)
        or (getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False))
    ):
        return (object,)  # Any, type variables, and protocols that cannot be asked
    return (_NUMBERS.get(hint, hint),)


@functools.cache
def _fields(owner: Any) -> list[tuple[str, Any, frozenset[type]]]:
    """The fields of a dataclass: name, annotation, types that need no further look."""
    hints = _hints(owner)
    return [(f.name, hints[f.name], _as_they_are(hints[f.name])) for f in dataclasses.fields(owner)]


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    """Annotations by name; those that only a type checker can read say nothing."""
    found: dict[str, Any] = {}
    for home in reversed(owner.__mro__) if isinstance(owner, type) else [inspect.unwrap(owner)]:
        space = vars(sys.modules[home.__module__])
        for name, text in inspect.get_annotations(home).items():
            found[name] = _read(text, space)
    for each in () if isinstance(owner, type) else inspect.signature(owner).parameters.values():
        if each.kind is inspect.Parameter.VAR_POSITIONAL:
            found[each.name] = GenericAlias(abc.Sequence, (found[each.name],))
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            found[each.name] = Any  # what takes them compares them
    return found


def _read(hint: Any, space: dict[str, Any]) -> Any:
    late = {name: getattr(sys.modules.get(f"{__package__}.{home}"), name, Any) for name, home in _LATE}
    try:
        return eval(hint, {**late, **space}) if isinstance(hint, str) else hint
    except NameError:
        return Any


def _said(name: str, value: Any, hint: Any) -> str:
    """The message: what was given, and what to give."""
    kinds = _kinds(hint)
    lists = any(get_origin(k) in _LISTS or get_args(k)[-1:] == (...,) for k in kinds)
    if lists and isinstance(value, str | bytes):
        return f"{name} is the single string {value!r}; give a list: [{value!r}]"
    if lists and isinstance(value, Real):
        return f"{name} is the single number {value}; give a list: [{value}]"
    names = {getattr(k, "__name__", "") for k in kinds}
    opened = "(pipe)" if hasattr(value, "components") else "('emoji')"
    fix = f": open one by denoscope.load{opened}" if names & {"Model", "Adapter"} else ""
    return f"{name} is {_shown(value)}; it is {_wanted(hint)}{fix}"


def _wanted(hint: Any) -> str:
    return " or ".join(dict.fromkeys(map(_words, _kinds(hint))))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}"
    text = repr(value)
    plain = isinstance(value, str | bytes | Real | NoneType | list | tuple | dict | set)
    return text if plain and len(text) <= 80 else _one(type(value).__name__)


def _words(kind: Any) -> str:
    """A kind in words."""
    origin, inner = get_origin(kind), [k for k in get_args(kind) if k is not ...]
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(repr, inner[:-1])), repr(inner[-1]))))
    if origin is abc.Callable:
        return "a function"
    each = [" or ".join(dict.fromkeys(map(_words, _kinds(k)))) for k in inner]
    if origin is abc.Mapping:
        return f"a mapping from {each[0]} to {each[1]}"
    if origin is tuple and get_args(kind)[-1] is not ...:
        return f"({', '.join(each)})"
    if inner and origin in (tuple, *_LISTS):
        return f"a list, each {each[0]}"
    name = getattr(kind, "__name__", str(kind))
    return _WORDS.get(kind, _one(name))


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def batches(total: int, batch: int) -> list[slice]:
    """Return the slices that cut so many samples into batches.

    Raises:
        ValueError: for a batch that holds none.

    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}; it holds at least 1 sample")
    return [slice(i, min(i + batch, total)) for i in range(0, total, batch)]
