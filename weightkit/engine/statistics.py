"""What the numbers of one tensor are like: in float64, chunk by chunk, so that memory stays small."""

from __future__ import annotations

from array import array as array_of_counts
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightkit.engine.forecast import LOOKED_AT

CHUNK = 1 << 20
"""Elements that are looked at together: 8 MB in float64."""
_HUGE = 1e100
"""Numbers from here on are scaled down before they are squared."""


def statistics(array: np.ndarray, chunk: int = CHUNK) -> dict[str, Any]:
    """mean, std, min, max, and what is odd: counts of NaN and Inf, all zero, constant. JSON values only.

    Mean, population std, min and max are those of the finite elements, null where there is none; of complex numbers
    they are those of the magnitudes (``"of": "magnitude"``). Minimum and maximum of whole numbers are exact, bools
    count as 0 and 1. ``zero``: every element is 0 and there is one; ``constant``: there are two or more elements and
    all are the same finite number. ``chunk`` elements are looked at together.
    """
    flat = np.asarray(array).reshape(-1)
    found: dict[str, Any] = {"mean": None, "std": None, "min": None, "max": None}
    is_complex = flat.dtype.kind == "c"
    if is_complex:
        found["of"] = "magnitude"
    whole = flat.dtype.kind in "iub"
    nan = inf = count = 0
    same = True
    total = 0.0
    low: Any = None
    high: Any = None
    scale = 1.0
    with np.errstate(all="ignore"):
        for raw in _chunks(flat, chunk):
            same = same and _uniform(raw, flat[0])
            if whole:
                low = int(raw.min()) if low is None else min(low, int(raw.min()))
                high = int(raw.max()) if high is None else max(high, int(raw.max()))
                count += raw.size
                total += float(raw.sum(dtype=np.float64))
                continue
            part, nans, infs = _finite(raw)
            nan, inf, count = nan + nans, inf + infs, count + part.size
            if part.size:
                low = float(part.min()) if low is None else min(low, float(part.min()))
                high = float(part.max()) if high is None else max(high, float(part.max()))
        if count and not whole:
            scale = _scale(low, high)
            total = sum(float((part / scale).sum()) for part, _, _ in map(_finite, _chunks(flat, chunk)))
        if count:
            mean = total / count
            spread = 0.0
            for raw in _chunks(flat, chunk):
                part = raw.astype(np.float64) if whole else _finite(raw)[0]
                away = part / scale - mean
                spread += float(np.dot(away, away))
            deviation = float(np.sqrt(spread / count))
            low_, high_ = float(low), float(high)
            found |= {
                "mean": _number(min(max(mean * scale, low_), high_)),
                "std": 0.0 if low == high else _number(deviation * scale),
                "min": low,
                "max": high,
            }
    size = int(flat.size)
    constant = size > 1 and count == size and same
    zero = size > 0 and count == size and low == 0 and high == 0
    return {**found, "nan": nan, "inf": inf, "zero": zero, "constant": constant}


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many finite elements lie in each of ``len(counts)`` bins of equal width from ``low`` to ``high``.

    No finite element: bounds 0, counts 0. Of complex numbers the magnitudes are counted.
    """

    low: float
    high: float
    counts: Sequence[int]
    nan: int
    inf: int


def histogram(array: np.ndarray, bins: int = 24, chunk: int = LOOKED_AT) -> Histogram:
    """The `Histogram` of all elements, ``chunk`` of them looked at together in float64, twice."""
    flat = np.asarray(array).reshape(-1)
    low, high = np.inf, -np.inf
    nan = inf = 0
    with np.errstate(all="ignore"):
        for raw in _chunks(flat, chunk):
            part, nans, infs = _finite(raw)
            nan, inf = nan + nans, inf + infs
            if part.size:
                low, high = min(low, float(part.min())), max(high, float(part.max()))
        counts = np.zeros(bins, np.int64)
        if low > high:
            return Histogram(0.0, 0.0, array_of_counts("Q", counts.tolist()), nan, inf)
        scale = 1.0 if np.isfinite(high - low) else 0.5
        width = high * scale - low * scale
        for raw in _chunks(flat, chunk):
            part = _finite(raw)[0] if nan or inf or raw.dtype.kind == "c" else raw.astype(np.float64)
            places = (part * scale - low * scale) / width * bins if width else np.zeros(part.shape)
            counts += np.bincount(np.minimum(places.astype(np.intp), bins - 1), minlength=bins)
    return Histogram(low, high, array_of_counts("Q", counts.tolist()), nan, inf)


def cast_error(before: np.ndarray, after: np.ndarray, chunk: int = LOOKED_AT) -> dict[str, float]:
    """The largest |difference| that a cast made to a finite number, and relative to that number; 0 for none."""
    most = relative = 0.0
    old, new = np.asarray(before).reshape(-1), np.asarray(after).reshape(-1)
    for start in range(0, old.size, chunk):
        with np.errstate(all="ignore"):
            first, second = (_wide(each[start : start + chunk]) for each in (old, new))
            away, size = np.abs(second - first), np.abs(first)
            finite = np.isfinite(away)
            shares = np.divide(away, size, out=np.zeros(away.shape), where=(size > 0) & finite)
        most = max(most, float(away[finite].max(initial=0.0)))
        relative = max(relative, float(shares.max(initial=0.0)))
    return {"max": most, "max_relative": relative}


def _wide(raw: np.ndarray) -> np.ndarray:
    return raw.astype(np.complex128 if raw.dtype.kind == "c" else np.float64)


def numbers(array: np.ndarray) -> list[float]:
    """The elements as Python floats, flat; of complex numbers the magnitudes."""
    flat = np.asarray(array).reshape(-1)
    listed: list[float] = (np.abs(flat) if flat.dtype.kind == "c" else flat).astype(np.float64).tolist()
    return listed


def _chunks(flat: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    for start in range(0, flat.size, chunk):
        yield flat[start : start + chunk]


def _uniform(raw: np.ndarray, first: Any) -> bool:
    """Whether every element equals the tensor's first; never where that is NaN."""
    return bool(raw[0] == first) and bool((raw == first).all())


def _finite(raw: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The finite elements in float64, how many are NaN, how many are infinite. Complex: magnitudes."""
    if raw.dtype.kind == "c":
        nan_places = np.isnan(raw.real) | np.isnan(raw.imag)
        infinite = (np.isinf(raw.real) | np.isinf(raw.imag)) & ~nan_places
        kept = raw[~nan_places & ~infinite].astype(np.complex128)
        magnitudes = np.abs(kept)
        return np.minimum(magnitudes, np.finfo(np.float64).max), int(nan_places.sum()), int(infinite.sum())
    with np.errstate(invalid="ignore"):  # a signalling NaN
        part = raw.astype(np.float64)
    if np.isfinite(part.sum()):
        return part, 0, 0
    nan, inf = int(np.isnan(part).sum()), int(np.isinf(part).sum())
    return (part[np.isfinite(part)] if nan or inf else part), nan, inf


def _scale(low: float, high: float) -> float:
    """A power of two that brings numbers whose squares would overflow, or vanish, near 1; else 1."""
    largest = max(abs(low), abs(high))
    if largest == 0.0 or 1 / _HUGE < largest < _HUGE:
        return 1.0
    return float(2.0 ** max(np.frexp(largest)[1] - 1, -1000))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
