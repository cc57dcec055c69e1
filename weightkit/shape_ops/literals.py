"""Literal parameters: read from files that users write, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from weightkit.core.dtype import DTYPES
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import Specs

MAX_RANK = 32
"""Axes of a tensor, the fewest that a supported numpy allows."""
MAX_TENSORS = 1 << 16
"""Tensors that one op gives or joins: what a line of a plan can ask for without listing them."""
MAX_TEXT = 1000
_TOO_LARGE = 1 << 63


class Literals:
    """The parameters of one op, as a file gives them: each is read with its type checked, lists become tuples.

    All methods raise ValueError, in words for whoever wrote the file.
    """

    def __init__(self, name: str, params: Mapping[str, object], known: tuple[str, ...]) -> None:
        unknown = [key for key in params if key not in known]
        if unknown:
            raise ValueError(f"{name} has no parameter {_shown(unknown[0])}; known: {', '.join(known) or 'none'}")
        self._name = name
        self._params = params
        self._known = known

    def __contains__(self, key: str) -> bool:
        return key in self._params

    def _found(self, key: str) -> object:
        if key not in self._params:
            raise ValueError(f"{self._name} needs {key!r}; its parameters: {', '.join(self._known)}")
        return self._params[key]

    def _wrong(self, key: str, wanted: str) -> ValueError:
        return ValueError(f"{self._name}: {key} must be {wanted}, found {_shown(self._params[key])}")

    def integer(self, key: str) -> int:
        """A whole number of at most 63 bits."""
        value = self._found(key)
        if not _is_integer(value):
            raise self._wrong(key, "a whole number")
        assert isinstance(value, int)
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self._found(key)
        if not isinstance(value, (list, tuple)) or len(value) > MAX_TENSORS or not all(map(_is_integer, value)):
            raise self._wrong(key, f"a list of at most {MAX_TENSORS} whole numbers")
        return tuple(value)

    def text(self, key: str) -> str:
        """A text of at most MAX_TEXT characters."""
        value = self._found(key)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise self._wrong(key, f"a text of at most {MAX_TEXT} characters")
        return value

    def real(self, key: str) -> float:
        """A finite number."""
        value = self._found(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number")
        if isinstance(value, int) and (not _is_integer(value) or int(float(value)) != value):
            raise self._wrong(key, "a number that float64 holds")
        if not isfinite(value):
            raise self._wrong(key, "a finite number")
        return float(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_TOO_LARGE < value < _TOO_LARGE


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or _is_integer(value) else f"a {type(value).__name__} of many bits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_axis(name: str, axis: int) -> None:
    """Raise ValueError for what is no axis: they count from the front, 0 first."""
    if not 0 <= axis < MAX_RANK:
        raise ValueError(f"{name}: axis {axis} is not in 0 to {MAX_RANK - 1}; axes count from the front")


def check_sizes(name: str, sizes: tuple[int, ...], *, least: int = 0) -> None:
    """Raise ValueError where one is smaller than ``least`` or larger than 63 bits."""
    for size in sizes:
        if not least <= size < _TOO_LARGE:
            raise ValueError(f"{name}: {size} is no size, it must be {least} or more")


def check_order(name: str, order: tuple[int, ...], count: int, what: str) -> None:
    """Raise ValueError where ``order`` does not name each of ``count`` once."""
    if len(order) != count or set(order) != set(range(count)):
        wanted = f"each of 0 to {count - 1} once" if count else "nothing"
        raise ValueError(f"{name}: the order of {count} {what} must name {wanted}, found {_shown(list(order))}")


def check_count(name: str, count: int) -> None:
    """Raise ValueError for a number of tensors that one op cannot join or give."""
    if not 1 <= count <= MAX_TENSORS:
        raise ValueError(f"{name}: {count} tensors at a time, it must be 1 to {MAX_TENSORS}")


def check_held(name: str, dtype: str) -> None:
    """Raise ValueError for an unknown element type and for one that numpy does not have."""
    if dtype not in DTYPES:
        raise ValueError(f"{name}: unknown dtype {_shown(dtype)}; known: {', '.join(DTYPES)}")
    if dtype == "complex32" or DTYPES[dtype].kind == "packed":
        raise ValueError(f"{name}: numpy has no {dtype}, so there is nothing to compute with")


def check_extent(name: str, spec: TensorSpec, axis: int, size: int) -> None:
    """Raise ValueError where ``spec`` has not ``size`` entries on ``axis``."""
    if len(spec.shape) <= axis:
        raise ValueError(f"{name} wants {size} entries on axis {axis}, {spec} has {len(spec.shape)} axes")
    if spec.shape[axis] != size:
        raise ValueError(f"{name} wants {size} entries on axis {axis}, {spec} has {spec.shape[axis]}")


def check_zero(name: str, spec: TensorSpec) -> None:
    """Raise ValueError where the element type has no zero that could be written."""
    if spec.dtype.name == "float8_e8m0fnu" or spec.dtype.kind == "packed":
        raise ValueError(f"{name} writes zeros, and {spec.dtype} has none")


def check_float(name: str, spec: TensorSpec) -> None:
    """Raise ValueError for what are no real floats."""
    if spec.dtype.kind != "float":
        raise ValueError(f"{name} wants floats, found {spec}")


def extent(name: str, specs: Specs, axis: int) -> int:
    """The entries on ``axis``, which all of ``specs`` have alike. Raises ValueError."""
    check_axis(name, axis)
    first = only(name, specs)[0]
    for spec in specs:
        if len(spec.shape) <= axis:
            raise ValueError(f"{name}: {spec} has {len(spec.shape)} axes, so no axis {axis}")
        if spec.shape[axis] != first.shape[axis]:
            raise ValueError(
                f"{name}: {first} and {spec} differ on axis {axis}: {first.shape[axis]}, {spec.shape[axis]}"
            )
    return first.shape[axis]


def only(name: str, specs: Specs) -> Specs:
    """``specs``, at least one. Raises ValueError."""
    if not specs:
        raise ValueError(f"{name} has no tensor to work on")
    return specs
