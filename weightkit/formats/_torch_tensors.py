"""torch's tensors and storages as pickle records, decoded and checked.

Source: torch/_utils.py (the ``_rebuild_*`` functions), torch/serialization.py (persistent ids of storages).
"""

from __future__ import annotations

from dataclasses import dataclass

from weightkit.core.dtype import DTYPES, DType
from weightkit.core.tensor import TensorSpec
from weightkit.formats._pickle_policy import FROM_TYPE, REBUILDS
from weightkit.formats._pickle_records import Call, Persistent, Ref
from weightkit.formats._pickle_values import items_of, pairs_of

_MOST_DIMENSIONS = 64
_MOST_WRAPPERS = 16
_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
_UNTYPED = ("UntypedStorage", "_UntypedStorage")


class MalformedError(Exception):
    """A record that claims to be a tensor or a storage and is not; the message says how."""


class UnsupportedError(Exception):
    """A tensor of a kind that is not read: sparse, quantized, without storage, of an unknown element type."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes in the file. ``dtype`` is None where the tensors on it say what they are."""

    key: str
    dtype: DType | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A view of a storage; ``offset`` and ``strides`` in elements."""

    storage: Storage
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    conjugate: bool = False
    negative: bool = False

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape."""
        return TensorSpec(self.dtype, self.shape)

    @property
    def extent(self) -> int:
        """Elements from the first to the last one, both included; 0 for an empty tensor."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def packed(self) -> bool:
        """Whether the elements lie one after the other, the last dimension fastest."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


def is_tensor_call(node: object) -> bool:
    """Whether the record is one of torch's tensor constructors."""
    if not isinstance(node, Call):
        return False
    if node.path != FROM_TYPE:
        return node.path in REBUILDS
    function = node.arguments[0] if isinstance(node.arguments, tuple) and node.arguments else None
    return isinstance(function, Ref) and function.path in REBUILDS


def decode_storage(node: Persistent) -> Storage:
    """The storage behind a persistent id. Raises MalformedError, UnsupportedError."""
    key = node.key
    if not isinstance(key, tuple) or len(key) != 5 or key[0] != "storage":
        raise MalformedError("a persistent id that is no storage")
    _, kind, name, location, numel = key
    if not isinstance(kind, Ref) or not isinstance(name, str) or not isinstance(location, str):
        raise MalformedError("a storage whose type, key or location is not what it should be")
    count = _count(numel, "a storage's number of elements")
    if kind.name in _UNTYPED:
        return Storage(name, None, count)
    if kind.name not in _STORAGE_DTYPES:
        raise UnsupportedError(f"its elements are of a kind ({kind.name}) that is not read")
    dtype = DTYPES[_STORAGE_DTYPES[kind.name]]
    return Storage(name, dtype, count * dtype.itemsize)


def decode_tensor(node: object) -> StridedTensor:
    """The tensor that a record stands for, its ranges checked. Raises MalformedError, UnsupportedError."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(node, Call) or not isinstance(node.arguments, tuple):
            break
        arguments = node.arguments
        name = node.path.rpartition(".")[2]
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state") and arguments:
            node = arguments[0]
        elif node.path == FROM_TYPE and len(arguments) == 4:
            node = Call("REDUCE", arguments[0], arguments[2], None, node.offset)
        elif name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _strided(name, arguments)
        elif is_tensor_call(node):
            raise UnsupportedError(f"it is of a kind ({name.removeprefix('_rebuild_')}) that is not read")
        else:
            break
    raise MalformedError("a record that should be a tensor and is none")


def _strided(name: str, arguments: tuple[object, ...]) -> StridedTensor:
    least = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}[name]
    if not least <= len(arguments) <= least + 1:
        raise MalformedError(f"{name} with {len(arguments)} arguments")
    if not isinstance(arguments[0], Persistent):
        raise MalformedError(f"{name} without a storage")
    storage = decode_storage(arguments[0])
    offset = _count(arguments[1], "a tensor's offset")
    shape = _counts(arguments[2], "a tensor's shape")
    strides = _counts(arguments[3], "a tensor's strides")
    dtype = storage.dtype
    if name == "_rebuild_tensor_v3":
        named = arguments[6]
        if not isinstance(named, Ref) or named.module != "torch":
            raise MalformedError(f"{name} without an element type")
        if named.name not in DTYPES:
            raise UnsupportedError(f"its elements are of a kind ({named.name}) that is not read")
        dtype = DTYPES[named.name]
    if dtype is None:
        raise MalformedError("a tensor on a storage without an element type")
    bits = dict.fromkeys(_bits(arguments[least]) if len(arguments) > least else ())
    tensor = StridedTensor(storage, dtype, shape, strides, offset, "conj" in bits, "neg" in bits)
    _check_extent(tensor)
    return tensor


def _check_extent(tensor: StridedTensor) -> None:
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > _MOST_DIMENSIONS:
        raise MalformedError(
            f"{len(tensor.shape)} sizes and {len(tensor.strides)} strides, expected as many, at most 64"
        )
    elements = tensor.storage.size_bytes // tensor.dtype.itemsize
    if tensor.extent and tensor.offset + tensor.extent > elements:
        raise MalformedError(
            f"shape {list(tensor.shape)}, strides {list(tensor.strides)}, offset {tensor.offset} reach element "
            f"{tensor.offset + tensor.extent} of a storage of {elements}"
        )


def _bits(metadata: object) -> list[str]:
    """The names of the lazy operations ("conj", "neg") that are switched on."""
    return [key for key, value in pairs_of(metadata) or () if isinstance(key, str) and value is True]


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise MalformedError(f"{what} is no number from 0 to 2**63 - 1")
    return value


def _counts(value: object, what: str) -> tuple[int, ...]:
    items = items_of(value)
    if items is None or len(items) > _MOST_DIMENSIONS:
        raise MalformedError(f"{what} is no tuple of at most {_MOST_DIMENSIONS} numbers")
    return tuple(_count(item, what) for item in items)
