"""Names that a pickle may use as data. Whatever is not listed here is judged by where it comes from."""

from __future__ import annotations

import sys

from weightkit.core.dtype import DTYPES

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
# Rebuild functions whose first argument is a tensor, of which they call methods.
OF_A_TENSOR = frozenset(
    f"torch._utils.{name}"
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor")
)
IDENTITIES = frozenset(
    f"torch.jit._pickle.{name}"
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
)
MAPPINGS = frozenset(("collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict"))
SEQUENCES = frozenset(
    ("collections.deque", "builtins.set", "builtins.frozenset", "builtins.list", "builtins.tuple", "torch.Size")
)
CONTAINERS = MAPPINGS | SEQUENCES
VALUES = frozenset(
    ("random.Random",
     "builtins.bytearray", "builtins.bytes", "builtins.complex", "builtins.slice", "builtins.range", "builtins.xrange",
     "torch.device", "torch.Generator", "torch._C.Generator", "torch.serialization._get_layout",
     "torch.torch_version.TorchVersion", "numpy.dtype",
     "numpy.core.multiarray.scalar", "numpy.core.numeric._frombuffer", "decimal.Decimal", "fractions.Fraction",
     "uuid.UUID", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
     "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib.PureWindowsPath",
     "pathlib.PurePath", "pathlib._local.PosixPath", "pathlib._local.Path", "pathlib._local.WindowsPath")
)  # fmt: skip
GENERATORS = frozenset(f"numpy.random._pickle.__{name}_ctor" for name in ("bit_generator", "generator", "randomstate"))
SEED_SEQUENCE = "numpy.random.bit_generator.__pyx_unpickle_SeedSequence"
# Listed functions that are data with certain arguments only: what they would call or import is an argument.
ARGUMENT_CHECKED = (
    frozenset(("_codecs.encode", "collections.defaultdict", "numpy.core.multiarray._reconstruct",
               "copyreg._reconstructor", "builtins.type", SEED_SEQUENCE, FROM_TYPE))
    | IDENTITIES | GENERATORS
)  # fmt: skip
CALLABLE = (REBUILDS | CONTAINERS | VALUES) - ARGUMENT_CHECKED
# Listed functions whose result is given a state by honest picklers.
WITH_STATE = CONTAINERS | GENERATORS | {
    "numpy.dtype", "numpy.core.multiarray._reconstruct", "copyreg._reconstructor", "torch.torch_version.TorchVersion",
    "torch.Generator", "torch._C.Generator", "random.Random", "uuid.UUID", SEED_SEQUENCE,
}  # fmt: skip
SAFE_CODECS = ("latin1", "latin-1", "ascii", "utf-8", "utf8")
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")

PLAIN_TYPES = frozenset(
    f"builtins.{name}" for name in ("int", "long", "float", "bool", "str", "unicode", "object", "dict", "list", "set",
                                    "tuple", "bytes")
)  # fmt: skip
TENSOR_TYPES = frozenset(
    ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch._tensor.Tensor",
     "numpy.ndarray")
)  # fmt: skip
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
# torch's element types, and its singletons that are pickled by name: quantization schemes, memory formats, layouts.
TORCH_CONSTANTS = frozenset(DTYPES) | {
    "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
    "per_channel_affine_float_qparams", "contiguous_format", "channels_last", "channels_last_3d", "preserve_format",
    "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged",
}  # fmt: skip

# The standard library of every Python that may load the file, whichever reads it here: what came or went from 3.10 on.
STDLIB = sys.stdlib_module_names | {
    "_android_support", "_ast_unparse", "_bootsubprocess", "_colorize", "_crypt", "_hmac", "_interpchannels",
    "_interpqueues", "_interpreters", "_ios_support", "_msi", "_opcode_metadata", "_py_warnings", "_pydatetime",
    "_pylong", "_pyrepl", "_remote_debugging", "_sha2", "_sha256", "_sha512", "_suggestions", "_sysconfig",
    "_tokenize", "_types", "_typing", "_wmi", "_zstd", "aifc", "annotationlib", "asynchat", "asyncore", "audioop",
    "binhex", "cgi", "cgitb", "chunk", "compression", "crypt", "distutils", "imghdr", "imp", "lib2to3", "mailcap",
    "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "tomllib",
    "uu", "xdrlib",
}  # fmt: skip
# Installed wherever a checkpoint is loaded: what is not ordinary of these modules is unsafe to name.
EVERYWHERE = STDLIB | {
    "__builtin__", "cPickle", "commands", "copy_reg", "msvcrt", "nt",
    "popen2", "posix", "thread", "torch", "numpy", "urllib2", "winreg",
    # What torch brings along.
    "_dummy_thread", "_dummy_threading", "test",
    "_distutils_hack", "filelock", "fsspec", "functorch", "jinja2", "markupsafe", "mpmath", "networkx", "pip",
    "pkg_resources", "setuptools", "sympy", "torchgen", "typing_extensions", "wheel",
}  # fmt: skip
# Of these modules the classes, which begin with a capital: their functions and the modules they import are not meant.
ORDINARY_MODULES = (
    "abc.", "enum.", "numbers.", "torch.nn.modules.", "torch.nn.parameter.",
    "torch.nn.parallel.", "torch.nn.utils.", "torch.nn.quantized.", "torch.optim.", "torch.distributions.",
    "torch.ao.nn.", "torch.amp.", "torch.cuda.amp.", "torch.utils.data.sampler.", "torch.utils.data.dataset.",
)  # fmt: skip
# Spelled like classes, and functions, modules or tuples; and classes in capitals, which constants are otherwise.
NO_CLASSES = frozenset(
    ("NamedTuple", "TypedDict", "_Number", "_Reduction", *(f"BroadcastingList{n}" for n in range(1, 7)))
)
CLASSES_IN_CAPITALS = frozenset(
    ("ABC", "ASGD", "CELU", "ELU", "GELU", "GLU", "GRU", "LBFGS", "LSTM", "RNN", "SELU", "SGD", "SWALR")
)
ORDINARY = frozenset(
    ("argparse.Namespace", "types.SimpleNamespace", "io.BytesIO", "_io.BytesIO", "random.Random", "_random.Random",
     "uuid.SafeUUID", "dataclasses._MISSING_TYPE", "functools.partial", "torch.Generator", "torch._C.Generator",
     "collections.UserDict", "collections.UserList", "collections.UserString", "collections.ChainMap",
     "ipaddress.IPv4Address", "ipaddress.IPv6Address")
) | frozenset(
    f"torch.nn.functional.{name}" for name in (
        "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "logsigmoid",
        "mish", "normalize", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign",
        "tanh", "tanhshrink", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss",
        "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
    )
) | frozenset(
    f"numpy.random.{name}" for name in (
        "_generator.Generator", "mtrand.RandomState", "bit_generator.SeedSequence", "bit_generator.BitGenerator",
        "bit_generator.SeedlessSeedSequence", "Generator", "RandomState", "SeedSequence",
        *(f"_{name.lower()}.{name}" for name in BIT_GENERATORS), "_pcg64.PCG64DXSM", *BIT_GENERATORS,
    )
) | frozenset(
    f"numpy.{name}" for name in (
        "bool", "bool_", "generic", "number", "integer", "floating", "inexact", "complexfloating", "signedinteger",
        "unsignedinteger", "str_", "bytes_", "intc", "uintc", "intp", "uintp", "half", "single", "double", "longdouble",
        "byte", "ubyte", "short", "ushort", "longlong", "ulonglong", "datetime64", "timedelta64", "float16", "float32",
        "float64", "float128", "complex64", "complex128", "complex256", "int8", "int16", "int32", "int64", "uint8",
        "uint16", "uint32", "uint64",
    )
)  # fmt: skip
ORDINARY_BUILTINS = ("Error", "Exception", "Warning")
SINGLETONS = ("builtins.Ellipsis", "builtins.NotImplemented")
# What torch's own classes call methods of when they are given their state, and what an honest state has there.
CONTAINERS_OF_STATE = frozenset(
    ("state", "param_groups", "defaults", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
)
