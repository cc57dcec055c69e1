"""torch's tensors and storages as pickle records, decoded and checked.

Source: torch/_utils.py (the ``_rebuild_*`` functions), torch/serialization.py (persistent ids of storages).
"""

from __future__ import annotations

from weightkit.core.checkpoint import NotDense
from weightkit.core.dtype import DTYPES, DType
from weightkit.core.tensor import TensorSpec, product
from weightkit.core.text import printable
from weightkit.formats._pickle_records import Call, Persistent, Ref
from weightkit.formats._pickle_tables import FROM_TYPE, REBUILDS
from weightkit.formats._pickle_values import pairs_of

_MOST_DIMENSIONS = 64
_MOST_BITS = 16
_MOST_WRAPPERS = 16
_TOO_LARGE = 1 << 63
_ATTRIBUTES_OF_A_TENSOR = ("data", "real", "imag", "names", "__class__", "__dict__", "__setstate__")
_STORAGE_DTYPES = {
    name: DTYPES[dtype] for name, dtype in {
        "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
        "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
        "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
        "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
        "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
    }.items()
}  # fmt: skip
_REBUILD = "torch._utils._rebuild_tensor_v2"
_UNTYPED = ("UntypedStorage", "_UntypedStorage")
_FEWEST_ARGUMENTS = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}
_WRAPPERS = ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor")
_SPARSE_LAYOUTS = {f"torch.sparse_{name}": f"sparse_{name}" for name in ("coo", "csr", "csc", "bsr", "bsc")}


class MalformedError(Exception):
    """A record that claims to be a tensor or a storage and is not; the message says how."""


class Storage:
    """A run of bytes in the file. ``dtype`` is None where the tensors on it say what they are.

    Old files cut storages out of larger ones: it then starts at byte ``start`` of the record ``key``, which has
    ``record_bytes``. In every other file it is the whole record.
    """

    __slots__ = ("dtype", "key", "on_meta", "record_bytes", "size_bytes", "start")

    def __init__(
        self, key: str, dtype: DType | None, record_bytes: int, view: tuple[int, int] | None, on_meta: bool
    ) -> None:
        self.key = key
        self.on_meta = on_meta
        self.dtype = dtype
        self.record_bytes = record_bytes
        width = dtype.itemsize if dtype else 1
        self.start, self.size_bytes = (view[0] * width, view[1] * width) if view else (0, record_bytes)


class StridedTensor:
    """A view of a storage; ``offset`` and ``strides`` in elements.

    ``extent`` counts the elements from the first to the last one, both included, 0 for an empty tensor; ``packed``
    says that they lie one after the other, the last dimension fastest.
    """

    __slots__ = ("conjugate", "dtype", "extent", "negative", "offset", "packed", "shape", "storage", "strides")

    def __init__(
        self,
        storage: Storage,
        dtype: DType,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
        extent: int,
        packed: bool,
    ) -> None:
        self.storage = storage
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
        self.offset = offset
        self.extent = extent
        self.packed = packed
        self.conjugate = False
        self.negative = False

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape."""
        return TensorSpec(self.dtype, self.shape)


class ListedTensor:
    """A tensor that is listed and not read, and the storages that hold its parts."""

    __slots__ = ("dtype", "not_dense", "shape", "storages")

    def __init__(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        kind: str,
        nbytes: int,
        why: str,
        storages: tuple[Storage, ...] = (),
    ) -> None:
        self.storages = storages
        self.dtype = dtype
        self.shape = shape
        self.not_dense = NotDense(kind, nbytes, why)

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape of the dense tensor that it stands for."""
        return TensorSpec(self.dtype, self.shape)


Tensor = StridedTensor | ListedTensor


def is_tensor_call(node: object) -> bool:
    """Whether the record is one of torch's tensor constructors."""
    if type(node) is not Call or type(node.target) is not Ref:
        return False
    path = node.target.path
    if path in REBUILDS:
        return True
    if path != FROM_TYPE:
        return False
    function = node.arguments[0] if isinstance(node.arguments, tuple) and node.arguments else None
    return isinstance(function, Ref) and function.path in REBUILDS


def decode_storage(node: object) -> Storage:
    """The storage behind a persistent id. Raises MalformedError."""
    key = node.key if isinstance(node, Persistent) else None
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise MalformedError("a persistent id that is no storage")
    kind, name, location, numel = key[1:5]
    if not isinstance(kind, Ref) or not isinstance(name, str) or not isinstance(location, str):
        raise MalformedError("a storage whose type, key or location is not what it should be")
    count = _count(numel, "a storage's number of elements")
    view = _view(key[5]) if len(key) == 6 else None
    dtype = _STORAGE_DTYPES.get(kind.name)
    if dtype is None and kind.name in _UNTYPED:
        return Storage(name, None, count, view, location == "meta")
    if dtype is None:
        raise MalformedError(f"a storage of an unknown kind, {printable(kind.path)}")
    return Storage(name, dtype, count * dtype.itemsize, view, location == "meta")


def _view(found: object) -> tuple[int, int] | None:
    if found is None:
        return None
    if not isinstance(found, tuple) or len(found) != 3:
        raise MalformedError("a view of a storage that is no tuple of three")
    return _count(found[1], "a view's offset"), _count(found[2], "a view's size")


def decode_tensor(node: object, *, listed: bool = True, depth: int = 0) -> Tensor:
    """The tensor that a record stands for, its ranges checked. Raises MalformedError.

    With ``listed`` off a tensor of a kind that is listed only is malformed here: it is a part of another one.
    """
    if (
        type(node) is Call
        and type(node.target) is Ref
        and node.target.path == _REBUILD
        and type(node.arguments) is tuple
    ):
        return _strided("_rebuild_tensor_v2", node.arguments)  # by far the commonest
    for _ in range(_MOST_WRAPPERS - depth):
        if not isinstance(node, Call) or not isinstance(node.arguments, tuple):
            break
        arguments = node.arguments
        if node.path == FROM_TYPE:
            if len(arguments) != 4 or not isinstance(arguments[0], Ref) or not isinstance(arguments[2], tuple):
                raise MalformedError("_rebuild_from_type_v2 without a function and its arguments")
            _check_state(arguments[3])
            inner = Call("REDUCE", arguments[0], arguments[2], None, node.offset)
            node = inner
            continue
        name = node.path.rpartition(".")[2]
        if name in _FEWEST_ARGUMENTS:
            return _strided(name, arguments)
        if name in _WRAPPERS:
            if not arguments:
                raise MalformedError(f"{name} without a tensor")
            if name == "_rebuild_parameter_with_state" and len(arguments) > 3:
                _check_state(arguments[3])
            if name == "_rebuild_device_tensor_from_cpu_tensor":
                inner_tensor = decode_tensor(arguments[0], listed=listed, depth=depth + 1)
                if len(arguments) < 2 or _torch_dtype(arguments[1]) != inner_tensor.dtype:
                    raise MalformedError(f"{name} to another element type")
                return inner_tensor
            node = arguments[0]
        elif listed and name in _LISTED:
            return _LISTED[name](arguments)
        else:
            break
    raise MalformedError("a record that should be a tensor and is none")


def _strided(name: str, arguments: tuple[object, ...]) -> Tensor:
    least = _FEWEST_ARGUMENTS[name]
    if not least <= len(arguments) <= least + 1:
        raise MalformedError(f"{name} with {len(arguments)} arguments")
    storage = decode_storage(arguments[0])
    dtype = storage.dtype
    if name == "_rebuild_tensor_v3":
        dtype = _torch_dtype(arguments[6])
    if dtype is None:
        raise MalformedError("a tensor on a storage without an element type")
    tensor = place(storage, dtype, arguments[1], arguments[2], arguments[3])
    if len(arguments) > least:
        bits = _bits(arguments[least])
        if bits:
            tensor.conjugate, tensor.negative = "conj" in bits, "neg" in bits
        if tensor.conjugate and dtype.kind != "complex":
            raise MalformedError(f"a conjugate view of {dtype.name}")
        if tensor.negative and dtype.kind == "bool":
            raise MalformedError("a negative view of bool")
    if storage.on_meta:
        return ListedTensor(dtype, tensor.shape, "meta", 0, "it was on the meta device: it has no values")
    if dtype.kind == "packed" or dtype.name == "complex32":
        why = f"its elements are {dtype.name}, for which numpy has no type"
        return ListedTensor(dtype, tensor.shape, dtype.name, tensor.extent * dtype.itemsize, why, (storage,))
    return tensor


def place(storage: Storage, dtype: DType, offset: object, shape: object, strides: object) -> StridedTensor:
    """A tensor of these numbers on ``storage``, which it must fit into. Raises MalformedError."""
    if type(shape) is not tuple:
        shape = _counts(shape, "a tensor's shape")
    if type(strides) is not tuple:
        strides = _counts(strides, "a tensor's strides")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise MalformedError(f"{len(shape)} sizes and {len(strides)} strides, expected as many, at most 64")
    extent = numel = 1
    packed = True
    for size, stride in zip(shape[::-1], strides[::-1], strict=True):
        if type(size) is not int or type(stride) is not int or not 0 <= size < _TOO_LARGE > stride >= 0:
            raise MalformedError("a tensor's shape or strides are no numbers from 0 to 2**63 - 1")
        if size != 1 and stride != numel:
            packed = False
        numel *= size
        extent += (size - 1) * stride
    if type(offset) is not int or not 0 <= offset < _TOO_LARGE:
        offset = _count(offset, "a tensor's offset")
    if numel * dtype.itemsize >= _TOO_LARGE:
        raise MalformedError(f"a tensor of {numel} elements, which no memory can hold")
    if numel == 0:
        extent = 0
    elif (offset + extent) * dtype.itemsize > storage.size_bytes:
        raise MalformedError(
            f"shape {list(shape)}, strides {list(strides)}, offset {offset} reach element "
            f"{offset + extent} of a storage of {storage.size_bytes // dtype.itemsize}"
        )
    return StridedTensor(storage, dtype, shape, strides, offset, extent, packed)


def _strided_part(node: object) -> StridedTensor:
    part = decode_tensor(node, listed=False)
    if not isinstance(part, StridedTensor):
        raise MalformedError("a part of a tensor that is not dense itself")
    return part


def _torch_dtype(named: object) -> DType:
    if not isinstance(named, Ref) or named.module != "torch":
        raise MalformedError("a tensor without an element type")
    if named.name not in DTYPES:
        raise MalformedError(f"a tensor of an unknown element type, {printable(named.path)}")
    return DTYPES[named.name]


def _sparse(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_sparse_tensor(layout, (indices, values, size, ...))`` and its compressed sisters."""
    if len(arguments) != 2 or not isinstance(arguments[1], tuple) or not 3 <= len(arguments[1]) <= 4:
        raise MalformedError("a sparse tensor without indices, values and size")
    layout = arguments[0]
    named = layout.arguments[0] if isinstance(layout, Call) and isinstance(layout.arguments, tuple) else None
    kind = _SPARSE_LAYOUTS.get(named) if isinstance(named, str) else None
    if kind is None or (kind != "sparse_coo" and len(arguments[1]) != 4):
        raise MalformedError("a sparse tensor of an unknown layout")
    parts = 2 if kind == "sparse_coo" else 3
    decoded = [_strided_part(part) for part in arguments[1][:parts]]
    size = arguments[1][parts]
    stored = sum(part.extent * part.dtype.itemsize for part in decoded)
    shape = _counts(size, "a sparse tensor's size")
    held = decoded[-1].shape[0] if decoded[-1].shape else 1
    parts_on = tuple(part.storage for part in decoded)
    return ListedTensor(decoded[-1].dtype, shape, kind, stored, f"it is sparse, with {held} values stored", parts_on)


def _quantized(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_qtensor(storage, offset, size, stride, quantizer, requires_grad, hooks)``."""
    if len(arguments) < 5:
        raise MalformedError(f"_rebuild_qtensor with {len(arguments)} arguments")
    storage = decode_storage(arguments[0])
    if storage.dtype is None:
        raise MalformedError("a quantized tensor on a storage without an element type")
    tensor = place(storage, storage.dtype, arguments[1], arguments[2], arguments[3])
    stored = tensor.extent * tensor.dtype.itemsize
    return ListedTensor(tensor.dtype, tensor.shape, "quantized", stored, "it is quantized", (storage,))


def _meta(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_meta_tensor_no_storage(dtype, size, stride, requires_grad)``."""
    if len(arguments) < 3:
        raise MalformedError(f"_rebuild_meta_tensor_no_storage with {len(arguments)} arguments")
    shape = _counts(arguments[1], "a tensor's shape")
    return ListedTensor(_torch_dtype(arguments[0]), shape, "meta", 0, "it was on the meta device: it has no values")


def _nested(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_nested_tensor(buffer, sizes, strides, storage_offsets)``."""
    if len(arguments) != 4:
        raise MalformedError(f"_rebuild_nested_tensor with {len(arguments)} arguments")
    buffer = _strided_part(arguments[0])
    stored = buffer.extent * buffer.dtype.itemsize
    why = "it is nested: its parts differ in shape"
    return ListedTensor(buffer.dtype, buffer.shape, "nested", stored, why, (buffer.storage,))


def _from_numpy(arguments: tuple[object, ...]) -> Tensor:
    """``_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)``."""
    if len(arguments) < 2:
        raise MalformedError(f"_rebuild_device_tensor_from_numpy with {len(arguments)} arguments")
    return ListedTensor(_torch_dtype(arguments[1]), (), "numpy", 0, "it is stored as a numpy array inside the pickle")


_LISTED = {
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_qtensor": _quantized,
    "_rebuild_meta_tensor_no_storage": _meta,
    "_rebuild_nested_tensor": _nested,
    "_rebuild_device_tensor_from_numpy": _from_numpy,
}


def _bits(metadata: object) -> list[str]:
    """The names of the lazy operations ("conj", "neg") that are switched on. Raises MalformedError."""
    if type(metadata) is Call and not metadata.pairs and metadata.arguments == ():
        return []  # an empty dict, as nearly all tensors have it
    pairs = pairs_of(metadata) or ()
    if len(pairs) > _MOST_BITS:
        raise MalformedError(f"a tensor with {len(pairs)} marks, expected conj and neg at most")
    found = [(key, value) for key, value in pairs if isinstance(key, str) and key in ("conj", "neg")]
    if any(value is not True for _, value in found):  # torch looks at the key only
        raise MalformedError("a tensor's conj or neg is not true")
    return [key for key, _ in found]


def _check_state(state: object) -> None:
    """Raise MalformedError where attributes that a tensor would be given replace what it holds."""
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        for key, _ in pairs_of(part) or ():
            if not isinstance(key, str) or key in _ATTRIBUTES_OF_A_TENSOR:
                raise MalformedError("the attributes of a tensor replace what it holds")


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < _TOO_LARGE:
        raise MalformedError(f"{what} is no number from 0 to 2**63 - 1")
    return value


def _counts(value: object, what: str) -> tuple[int, ...]:
    sized = value.arguments if isinstance(value, Call) and value.path == "torch.Size" else value
    if isinstance(sized, tuple) and isinstance(value, Call):
        sized = sized[0] if len(sized) == 1 else None
    items = sized if isinstance(sized, tuple) else None  # a list could still grow
    if items is None or len(items) > _MOST_DIMENSIONS:
        raise MalformedError(f"{what} is no tuple of at most {_MOST_DIMENSIONS} numbers")
    counts = tuple(_count(item, what) for item in items)
    if product(counts) * 16 >= _TOO_LARGE:
        raise MalformedError(f"{what} is of more elements than any memory can hold")
    return counts
