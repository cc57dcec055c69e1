"""Two sets of tensors side by side: names, specs and ties first; the numbers of one pair at a time, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from weightkit.core.tensor import StateSpec, TensorSpec

CHUNK = 1 << 20
"""Elements that are compared together."""


@dataclass(frozen=True, slots=True)
class SpecComparison:
    """What names, shapes, dtypes and ties say. ``common`` are the names of both; all in the order of the files.

    ``shapes`` and ``dtypes`` hold the common names that differ in it, a name may stand in both. ``ties`` maps a common
    name to the other common names that it shares a tensor with, here and there, where those are not the same.
    """

    common: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shapes: tuple[str, ...]
    dtypes: tuple[str, ...]
    ties: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    @property
    def equal(self) -> bool:
        """Whether nothing at all differs."""
        return not (self.only_a or self.only_b or self.shapes or self.dtypes or self.ties)


def compare_specs(a: StateSpec, b: StateSpec) -> SpecComparison:
    """The comparison of two states without their numbers. Which of its names is a tensor's first does not matter."""
    common = tuple(name for name in a if name in b)
    return SpecComparison(
        common,
        tuple(name for name in a if name not in b),
        tuple(name for name in b if name not in a),
        tuple(name for name in common if a[name].shape != b[name].shape),
        tuple(name for name in common if a[name].dtype != b[name].dtype),
        _ties(a, b, common),
    )


def _ties(a: StateSpec, b: StateSpec, common: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    if not a.aliases and not b.aliases:
        return {}
    here, there = _classes(a, common), _classes(b, common)
    differing = {}
    for name in common:
        mine, other = here[a.canonical(name)], there[b.canonical(name)]
        if len(mine) + len(other) > 2 and set(mine) != set(other):
            differing[name] = (
                tuple(one for one in mine if one != name),
                tuple(one for one in other if one != name),
            )
    return differing


def _classes(state: StateSpec, names: Iterable[str]) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for name in names:
        classes.setdefault(state.canonical(name), []).append(name)
    return classes


def lone_candidates(a: StateSpec, only_a: Iterable[str], b: StateSpec, only_b: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs that may be one tensor under two names: of their dtype and shape there is exactly one left on each side."""
    left: dict[TensorSpec, list[str]] = {}
    right: dict[TensorSpec, list[str]] = {}
    for name in only_a:
        left.setdefault(a[name], []).append(name)
    for name in only_b:
        right.setdefault(b[name], []).append(name)
    return [
        (names[0], right[spec][0]) for spec, names in left.items() if len(names) == 1 and len(right.get(spec, ())) == 1
    ]


def pair_equal(left: Mapping[str, object], right: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names of equal content, paired; ``left`` and ``right`` give each name's content.

    Of several that are equal those with the same last segment go together first, then all in their order.
    """
    waiting: dict[object, list[str]] = {}
    for name, content in right.items():
        waiting.setdefault(content, []).append(name)
    pairs: dict[str, str] = {}
    for exact in (True, False):
        taken: set[str] = set()
        ready: dict[object, Iterator[str]] = {}
        for name, content in left.items():
            if name in pairs or content not in waiting:
                continue
            key = (content, name.rpartition(".")[2]) if exact else content
            if key not in ready:
                ready[key] = iter(
                    [n for n in waiting[content] if not exact or n.rpartition(".")[2] == name.rpartition(".")[2]]
                )
            partner = next(ready[key], None)
            if partner is not None:
                pairs[name] = partner
                taken.add(partner)
        waiting = {content: [n for n in names if n not in taken] for content, names in waiting.items()}
    return [(name, pairs[name]) for name in left if name in pairs]


def compare_arrays(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """How the numbers of two tensors of one shape differ, as JSON values.

    ``numel``; ``differing``: elements that are not equal, where NaN equals NaN; ``bit_equal``: same dtype and the same
    bits throughout; ``max_difference``: the largest \\|a - b\\| of differing elements, exact for whole numbers;
    ``not_finite``: differing elements of which one is NaN or infinite, which have no such difference; ``cosine``:
    cosine similarity over the elements that are finite in both, null where one side has no length.
    Raises ValueError for two shapes.
    """
    import numpy as np

    if a.shape != b.shape:
        raise ValueError(f"tensors of shapes {list(a.shape)} and {list(b.shape)} have no differences")
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    bit_equal = a.dtype == b.dtype and all(
        np.array_equal(_bytes(flat_a[start : start + CHUNK]), _bytes(flat_b[start : start + CHUNK]))
        for start in range(0, flat_a.size, CHUNK)
    )
    whole = flat_a.dtype.kind in "iub" and flat_b.dtype.kind in "iub"
    if bit_equal:
        return {
            "numel": int(flat_a.size),
            "differing": 0,
            "bit_equal": True,
            "max_difference": 0 if whole else 0.0,
            "not_finite": 0,
            "cosine": 1.0 if _has_length(flat_a) else None,
        }
    differing = not_finite = 0
    largest: Any = None
    dot = square_a = square_b = 0.0
    scale = _scale(flat_a, flat_b)
    with np.errstate(all="ignore"):
        for start in range(0, flat_a.size, CHUNK):
            x, y = flat_a[start : start + CHUNK], flat_b[start : start + CHUNK]
            wide_x, wide_y = _wide(x), _wide(y)
            finite = np.isfinite(wide_x) & np.isfinite(wide_y)
            if whole:
                unequal = x != y if x.dtype == y.dtype else x.astype(object) != y.astype(object)
            else:
                unequal = _differ(wide_x.real, wide_y.real) | _differ(wide_x.imag, wide_y.imag)
            count = int(np.count_nonzero(unequal))
            if count:
                differing += count
                not_finite += int(np.count_nonzero(unequal & ~finite))
                if whole:
                    found: Any = max(abs(int(p) - int(q)) for p, q in _extremes(x[unequal], y[unequal]))
                else:
                    apart = np.abs(wide_x[unequal & finite] - wide_y[unequal & finite])
                    found = float(apart.max()) if apart.size else None
                if found is not None:
                    largest = found if largest is None else max(largest, found)
            if not finite.all():
                wide_x, wide_y = wide_x[finite], wide_y[finite]
            wide_x, wide_y = wide_x / scale, wide_y / scale
            dot += float(np.vdot(wide_x, wide_y).real)
            square_a += float(np.vdot(wide_x, wide_x).real)
            square_b += float(np.vdot(wide_y, wide_y).real)
        length = float(np.sqrt(square_a) * np.sqrt(square_b))
    cosine = None
    if 0 < length < float("inf"):
        cosine = 1.0 if not differing else max(-1.0, min(1.0, dot / length))
    if largest is None and not not_finite:
        largest = 0 if whole else 0.0
    if isinstance(largest, float) and not np.isfinite(largest):
        largest = float(np.finfo(np.float64).max)
    return {
        "numel": int(flat_a.size),
        "differing": differing,
        "bit_equal": False,
        "max_difference": largest,
        "not_finite": not_finite,
        "cosine": cosine,
    }


def _bytes(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(array).view(np.uint8)


def _has_length(flat: np.ndarray) -> bool:
    """Whether any element is finite and not 0."""
    import numpy as np

    chunks = (_wide(flat[start : start + CHUNK]) for start in range(0, flat.size, CHUNK))
    return any(bool((np.isfinite(chunk) & (chunk != 0)).any()) for chunk in chunks)


def _differ(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where two arrays of floats differ; NaN at the same place is no difference."""
    import numpy as np

    unequal: np.ndarray = (x != y) & ~(np.isnan(x) & np.isnan(y))
    return unequal


def _wide(array: np.ndarray) -> np.ndarray:
    """In float64, complex in complex128."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # a signalling NaN
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _extremes(x: np.ndarray, y: np.ndarray) -> list[tuple[Any, Any]]:
    """The pairs of whole numbers that are farthest apart, among few candidates; exact up to 64 bits."""
    import numpy as np

    if x.dtype != y.dtype:
        return list(zip(x.tolist(), y.tolist(), strict=True))
    if x.dtype.kind == "b":
        return [(1, 0)]
    larger = x > y
    apart = np.where(larger, x.astype(np.uint64) - y.astype(np.uint64), y.astype(np.uint64) - x.astype(np.uint64))
    place = int(apart.argmax())
    return [(x[place], y[place])]


def _scale(a: np.ndarray, b: np.ndarray) -> float:
    """A power of two that keeps squares of float64 elements from overflowing or vanishing; 1 for smaller types."""
    import numpy as np

    if not any(array.dtype.kind in "fc" and array.dtype.itemsize >= 8 for array in (a, b)):
        return 1.0
    largest = 0.0
    with np.errstate(all="ignore"):
        for flat in (a, b):
            for start in range(0, flat.size, CHUNK):
                part = np.abs(_wide(flat[start : start + CHUNK]))
                part = part[np.isfinite(part)]
                largest = max(largest, float(part.max()) if part.size else 0.0)
    if largest == 0.0 or 1e-100 < largest < 1e100:
        return 1.0
    return float(2.0 ** max(np.frexp(largest)[1] - 1, -1000))
