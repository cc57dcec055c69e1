"""What counts as data in a pickle. Structural: everything that is not listed is at least ``opaque``.

``opaque``: a class that is unknown here, built without arguments and given its state: an ordinary object.
``unsafe``: another loader would call something that is not listed, or something whose name is computed; or the file
names something of Python itself, of torch or of numpy that no honest state is made of. Those are installed wherever a
checkpoint is loaded, so their classes are what an attacker builds from: there is one whose ``__setstate__`` unpickles
again, and one that calls an attribute when it is deleted.
"""

from __future__ import annotations

import sys
from typing import Literal, NamedTuple

from weightkit.core.dtype import DTYPES
from weightkit.formats._pickle_records import Call, Dict, Ref

Level = Literal["opaque", "unsafe"]

REBUILDS = frozenset(
    f"torch._utils.{name}"
    for name in (
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_sparse_tensor", "_rebuild_qtensor",
        "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_device_tensor_from_numpy",
        "_rebuild_device_tensor_from_cpu_tensor",
    )
)  # fmt: skip
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_TENSOR_TYPES = frozenset(
    ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch._tensor.Tensor")
)
_CONTAINERS = frozenset(
    ("collections.OrderedDict", "collections.Counter", "collections.deque", "builtins.set", "builtins.frozenset",
     "builtins.dict", "builtins.list", "builtins.tuple", "builtins.bytearray", "builtins.bytes", "builtins.complex",
     "builtins.slice", "builtins.range", "builtins.xrange")
)  # fmt: skip
_VALUES = frozenset(
    ("torch.Size", "torch.device", "torch.serialization._get_layout", "numpy.dtype", "numpy.core.multiarray.scalar",
     "numpy.core.numeric._frombuffer", "torch.torch_version.TorchVersion", "decimal.Decimal", "fractions.Fraction",
     "uuid.UUID", "torch.jit._pickle.build_intlist", "torch.jit._pickle.build_doublelist",
     "torch.jit._pickle.build_boollist", "torch.jit._pickle.build_tensorlist",
     "torch.jit._pickle.restore_type_tag",
     "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
     "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib.PureWindowsPath",
     "pathlib.PurePath", "pathlib._local.PosixPath", "pathlib._local.Path", "pathlib._local.WindowsPath")
)  # fmt: skip
_CALLABLE = REBUILDS | _CONTAINERS | _VALUES
_PLAIN_TYPES = frozenset(
    f"builtins.{name}" for name in ("int", "long", "float", "bool", "str", "unicode", "object", "dict", "list", "set",
                                    "tuple", "bytes")
)  # fmt: skip
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_SAFE_CODECS = ("latin1", "latin-1", "ascii", "utf-8", "utf8")
_ARGUMENT_CHECKED = frozenset(
    ("_codecs.encode", "collections.defaultdict", "numpy.core.multiarray._reconstruct", FROM_TYPE,
     "copyreg._reconstructor", "builtins.type", "numpy.random._pickle.__bit_generator_ctor",
     "numpy.random._pickle.__generator_ctor", "numpy.random._pickle.__randomstate_ctor")
)  # fmt: skip
# What honest objects name of the modules that are installed everywhere; the rest of those modules is unsafe to name.
_EVERYWHERE = sys.stdlib_module_names | {
    "__builtin__", "asynchat", "asyncore", "cPickle", "commands", "copy_reg", "distutils", "imp", "msvcrt", "nt",
    "popen2", "posix", "smtpd", "thread", "torch", "numpy", "urllib2", "winreg",
}  # fmt: skip
_ORDINARY_MODULES = (
    "typing.", "abc.", "collections.", "enum.", "datetime.", "pathlib.", "numbers.", "ipaddress.", "torch.nn.",
    "torch.optim.", "torch.distributions.", "torch.ao.nn.", "torch.amp.", "torch.cuda.amp.",
    "torch.utils.data.sampler.", "torch.utils.data.dataset.", "numpy.random.",
)  # fmt: skip
_ORDINARY = frozenset(
    ("argparse.Namespace", "types.SimpleNamespace", "io.BytesIO", "_io.BytesIO", "random.Random", "_random.Random",
     "uuid.SafeUUID", "dataclasses._MISSING_TYPE", "functools.partial", "torch.Generator", "torch._C.Generator")
)  # fmt: skip
_NUMPY_SCALARS = frozenset(
    ("bool", "bool_", "generic", "number", "integer", "floating", "inexact", "complexfloating", "signedinteger",
     "unsignedinteger", "str_", "bytes_", "intc", "uintc", "intp", "uintp", "half", "single", "double", "longdouble",
     "byte", "ubyte", "short", "ushort", "longlong", "ulonglong", "datetime64", "timedelta64", "float16", "float32",
     "float64", "float128", "complex64", "complex128", "complex256", "int8", "int16", "int32", "int64", "uint8",
     "uint16", "uint32", "uint64")
)  # fmt: skip
# torch's singletons that are pickled by name: quantization schemes, memory formats, layouts.
_TORCH_CONSTANTS = frozenset(
    ("per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
     "per_channel_affine_float_qparams", "contiguous_format", "channels_last", "channels_last_3d", "preserve_format",
     "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged")
)  # fmt: skip


class Remark(NamedTuple):
    """Something that is not plain data: how much it weighs, at which byte, and what it is."""

    level: Level
    offset: int
    subject: str
    message: str


def is_data_ref(ref: Ref) -> bool:
    """Whether naming ``ref`` can only mean data."""
    path = ref.path
    if path in _CALLABLE or path in _PLAIN_TYPES or path in _TENSOR_TYPES or path in _ARGUMENT_CHECKED:
        return True
    if path == "numpy.ndarray":
        return True
    if ref.module in _STORAGE_MODULES and ref.name.endswith("Storage") and ref.name.isidentifier():
        return True
    return ref.module == "torch" and (ref.name in DTYPES or ref.name in _TORCH_CONSTANTS)


def may_be_called(ref: Ref) -> bool:
    """Whether calling ``ref`` with positional arguments is data, whatever the arguments are."""
    return ref.path in _CALLABLE


def judge_ref(ref: Ref) -> Remark | None:
    """What naming ``ref`` amounts to."""
    if not ref.module or not ref.name or not ref.name.isidentifier():
        return Remark("unsafe", ref.offset, ref.path, f"{ref.path!r} names something inside something else")
    if is_data_ref(ref):
        return None
    if ref.path.partition(".")[0] in _EVERYWHERE and not _is_ordinary(ref):
        return Remark("unsafe", ref.offset, ref.path, f"{ref.path} is named, which no honest state is made of")
    return Remark("opaque", ref.offset, ref.path, f"{ref.path} is unknown here")


def _is_ordinary(ref: Ref) -> bool:
    """Whether an honest object may be made of it, though it is not data."""
    path = ref.path
    if path in _ORDINARY or path.startswith(_ORDINARY_MODULES):
        return True
    if ref.module == "numpy":
        return ref.name in _NUMPY_SCALARS
    named_like_one = ref.name.endswith(("Error", "Exception", "Warning")) or ref.name in ("Ellipsis", "NotImplemented")
    return path.startswith("builtins.") and named_like_one


def judge_call(call: Call) -> Remark | None:
    """What making ``call`` amounts to."""
    if not isinstance(call.target, Ref):
        return Remark("unsafe", call.offset, "a computed callable", "a computed callable would be called")
    path = call.path
    unsafe = Remark("unsafe", call.offset, path, f"{path} would be called ({call.how})")
    if path in _CALLABLE:
        return None if not call.keywords or path in _CONTAINERS else unsafe
    if path in _ARGUMENT_CHECKED:
        return _judge_arguments(call, path, unsafe)
    if call.how in ("NEWOBJ", "NEWOBJ_EX") and call.target.name.isidentifier():
        return None if _empty(call.arguments) and _empty(call.keywords) else unsafe
    return unsafe


def judge_build(target: object, offset: int) -> Remark | None:
    """What giving ``target`` a state amounts to."""
    if isinstance(target, Ref):
        return Remark("unsafe", offset, target.path, f"the attributes of {target.path} itself would be overwritten")
    return None


def _judge_arguments(call: Call, path: str, unsafe: Remark) -> Remark | None:
    """Listed callables that are data only with certain arguments: what they would call or import is an argument."""
    arguments = call.arguments if isinstance(call.arguments, tuple) else ()
    harmless = False
    if path == "_codecs.encode":
        harmless = len(arguments) == 2 and isinstance(arguments[0], str) and _is_one_of(arguments[1], _SAFE_CODECS)
    elif path == "collections.defaultdict":
        factory = arguments[0] if arguments else None
        harmless = factory is None or (
            isinstance(factory, Ref) and (factory.path in _CONTAINERS or factory.path in _PLAIN_TYPES)
        )
    elif path == "numpy.core.multiarray._reconstruct":
        kind = arguments[0] if arguments else None
        harmless = isinstance(kind, Ref) and kind.path == "numpy.ndarray"
    elif path == "copyreg._reconstructor":
        harmless = (
            len(arguments) == 3
            and isinstance(arguments[0], Ref)
            and isinstance(arguments[1], Ref)
            and arguments[1].path == "builtins.object"
            and arguments[2] is None
        )
    elif path == "builtins.type":  # how NoneType is written; with three arguments it would make a class
        harmless = len(arguments) == 1 and (arguments[0] is None or isinstance(arguments[0], (Ref, tuple)))
    elif path.startswith("numpy.random._pickle."):
        harmless = all(_is_text_or_generator(argument) for argument in arguments)
    elif path == FROM_TYPE:
        function = arguments[0] if arguments else None
        harmless = isinstance(function, Ref) and function.path in REBUILDS
    return None if harmless else unsafe


def _is_text_or_generator(value: object) -> bool:
    """A bit generator by its name, its class, or the call that makes one: each judged where it stands."""
    if isinstance(value, Call):
        return value.path.startswith("numpy.random._pickle.")
    return isinstance(value, str) or (isinstance(value, Ref) and value.path.startswith("numpy.random."))


def _is_one_of(value: object, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, tuple) and not value) or (isinstance(value, Dict) and not value.pairs)
