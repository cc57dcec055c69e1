"""Another element type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightkit.core.dtype import DTYPES, DType, dtype_named, numpy_dtype
from weightkit.core.plan import OpClass
from weightkit.core.rule import StackedAxis
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import ShapeOp

if TYPE_CHECKING:
    import numpy as np

_WIDENING = {
    ("float16", "float32"),
    ("float16", "float64"),
    ("bfloat16", "float32"),
    ("bfloat16", "float64"),
    ("float32", "float64"),
    ("int8", "int16"),
    ("int8", "int32"),
    ("int8", "int64"),
    ("int16", "int32"),
    ("int16", "int64"),
    ("int32", "int64"),
    ("uint8", "int16"),
    ("uint8", "int32"),
    ("uint8", "int64"),
}


@dataclass(frozen=True, slots=True)
class Cast:
    """The same values as another element type. Widening loses nothing; narrowing rounds, and refuses to overflow."""

    before: str
    after: str
    name = "cast"

    @property
    def op_class(self) -> OpClass:
        return "INJ" if (self.before, self.after) in _WIDENING else "LOSSY"

    @property
    def preserves(self) -> str:
        return "the same values" if self.op_class == "INJ" else f"up to rounding to {self.after}"

    @property
    def params(self) -> Mapping[str, int | str]:
        return {"before": self.before, "after": self.after}

    def infer(self, spec: TensorSpec) -> TensorSpec:
        if spec.dtype.name != self.before:
            raise ValueError(f"cast wants {self.before}, found {spec}")
        return TensorSpec(dtype_named(self.after), spec.shape)

    def apply(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        after = dtype_named(self.after)
        if array.dtype.kind == "c" and after.kind != "complex":
            raise ValueError(f"complex values do not fit into {after}")
        if after.kind in {"int", "uint", "bool"}:
            return _whole_numbers(array, after)
        with np.errstate(over="ignore", invalid="ignore"):
            result = array.astype(numpy_dtype(after))
        if bool(np.any(np.isfinite(array) & ~np.isfinite(result))):
            raise ValueError(f"a value does not fit into {after}: it would become infinite")
        return result

    def inverse(self) -> ShapeOp | None:
        """Back from a wider whole number. None for floats: a signalling NaN does not come back bit for bit."""
        whole = dtype_named(self.after).kind in {"int", "uint"}
        return Cast(self.after, self.before) if self.op_class == "INJ" and whole else None


def _whole_numbers(array: np.ndarray, after: DType) -> np.ndarray:
    """``array`` as whole numbers or booleans. Raises ValueError where a value is not one of ``after``."""
    import numpy as np

    wanted = numpy_dtype(after)
    low, high = (0, 1) if after.kind == "bool" else (int(np.iinfo(wanted).min), int(np.iinfo(wanted).max))
    if array.size:
        values = array.astype(np.float64) if array.dtype.kind not in "iub" else array
        if not bool(np.all(np.isfinite(values))) or int(values.min()) < low or int(values.max()) > high:
            raise ValueError(f"a value does not fit into {after}: it holds {low} to {high}")
        with np.errstate(invalid="ignore"):
            if not bool(np.all(values.astype(wanted).astype(values.dtype) == values)):
                raise ValueError(f"a value does not fit into {after}: it is no whole number")
    return array.astype(wanted)


def cast(source: TensorSpec, target: TensorSpec, stacked: StackedAxis | None, choice: str) -> ShapeOp:
    """``cast:DTYPE``, where DTYPE is what the target wants."""
    del stacked
    if choice not in DTYPES:
        raise ValueError(f"unknown dtype {choice!r}; known: {', '.join(DTYPES)}")
    if DTYPES[choice] != target.dtype:
        raise ValueError(f"the target wants {target.dtype}")
    return Cast(source.dtype.name, target.dtype.name)
