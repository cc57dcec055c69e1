"""Law 3, the other half: every file of torch, safetensors or numpy reads as its own library reads it, bit for bit."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import nn

from legacy_streams import Stored, vector, write_stream
from torch_reference import (
    LISTED_DTYPES,
    NEW_DTYPES,
    OLD_DTYPES,
    ROOTS,
    bits,
    check_equal,
    check_reads_as_torch,
    deflate,
    key_text,
    make_big_endian,
    named_tensors,
    random_tensor,
    save,
    saved_on,
)
from weightkit.core.tensor import TensorSpec
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats import FORMATS, _torch_legacy_stream, _torch_state, _torch_tensors, _torch_walk, open_checkpoint

quick = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200
)

# What torch says once a process, at the first tensor of such a kind.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{kind}") for kind in ("ComplexHalf", "TypedStorage", "Sparse")]


class Marked(torch.Tensor):
    """A subclass of torch.Tensor, as libraries make them."""


# ---- tensors: every way of lying on a storage


@st.composite
def on_one_storage(draw: st.DrawFn, dtypes: tuple[str, ...]) -> list[torch.Tensor]:
    """Views of one storage, some of them twice."""
    dtype = draw(st.sampled_from((*dtypes, "complex64", "complex128", "float32")))
    base = random_tensor(dtype, (4, 6), draw(st.integers(0, 10_000)))
    views = [
        base, base.t(), base.t().t(), base[1:, 2:5], base[::2, ::3], base[:, ::5], base[:1].expand(3, 6), base[2, 3],
        base[4:], base[1, 1].expand(2, 2), base.as_strided((3, 4), (1, 1), 5), base.as_strided((2, 3), (2, 1)),
        base.as_strided((1, 3), (23, 1), 7), base.reshape(-1)[5:], base.reshape(2, 2, 6).permute(2, 0, 1),
        base.unsqueeze(0), base.as_subclass(Marked), base[0:0, 1:], base[3].view(2, 1, 3),
    ]  # fmt: skip
    if base.is_complex():
        views += [base.conj(), base.t().conj(), base[1:, 2:5].conj(), base[2, 3].conj()]
        if draw(st.booleans()):  # torch saves a storage as one element type
            negated = base.conj().imag
            views = [base.real, base.imag, negated, negated[1:, ::2], negated[2, 3], negated.t()]
    if base.dtype.is_floating_point and base.dtype.itemsize > 1:
        grown = nn.Parameter(base)
        with_attribute = nn.Parameter(base[1:])
        with_attribute.tag = "x"  # type: ignore[attr-defined]
        views += [grown, grown, with_attribute, nn.Parameter(base.t(), requires_grad=False), base.detach()]
        views += [base.clone().requires_grad_()]
    return [views[index] for index in draw(st.lists(st.integers(0, len(views) - 1), min_size=2, max_size=5))]


@st.composite
def by_itself(draw: st.DrawFn, dtypes: tuple[str, ...]) -> list[torch.Tensor]:
    """One packed tensor of any shape: 0-d, empty, up to four dimensions."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    return [random_tensor(draw(st.sampled_from(dtypes)), shape, draw(st.integers(0, 10_000)))]


def _listed() -> list[torch.Tensor]:
    """What is listed and not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eye = torch.eye(4)
        raw = torch.arange(16, dtype=torch.uint8)
        return [
            *(raw.clone().view(getattr(torch, dtype)) for dtype in LISTED_DTYPES),
            eye.to_sparse(),
            eye.to_sparse_csr(),
            eye.to_sparse_csc(),
            eye.to_sparse_bsr((2, 2)),
            eye.to_sparse_bsc((2, 2)),
            torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
            torch.quantize_per_channel(eye, torch.ones(4), torch.zeros(4), 0, torch.quint8),
            torch.zeros(2, 3, device="meta"),
        ]


LISTED = _listed()


# ---- values: what people put into torch.save

plain = st.one_of(st.integers(-(10**30), 10**30), st.text(max_size=5), st.booleans(), st.none(), st.floats())
texts = st.one_of(st.text("abcxyz_é ", max_size=4), st.sampled_from(("model", "agent", "state_dict", "params", "0")))
simple_keys = st.one_of(texts, st.integers(-3, 10**12), st.booleans(), st.none(), st.floats(allow_nan=False))
keys = st.one_of(texts, simple_keys, st.tuples(simple_keys, simple_keys), st.tuples(simple_keys))


@dataclass(frozen=True)
class Slot:
    """Where a tensor will stand."""

    index: int


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    labels = st.lists(keys, max_size=3, unique_by=(key_text, lambda key: key))  # 1 and 1.0 are one key
    several = st.lists(inner, max_size=3)
    pairs = st.builds(zip, labels, several).map(list)
    return st.one_of(pairs.map(dict), pairs.map(OrderedDict), several, st.tuples(inner, inner))


wrappers = st.lists(st.tuples(st.sampled_from(("dict", "list", "tuple", "beside")), keys), max_size=2)
slots = st.integers(0, 15).map(Slot)
structures = st.one_of(_containers(st.recursive(st.one_of(slots, slots, plain), _containers, max_leaves=10)), slots)


def filled(structure: Any, pool: list[torch.Tensor]) -> Any:
    """The structure with a tensor of the pool in every slot."""
    if isinstance(structure, Slot):
        return pool[structure.index % len(pool)]
    if isinstance(structure, dict):
        return type(structure)((key, filled(inner, pool)) for key, inner in structure.items())
    if isinstance(structure, (list, tuple)):
        return type(structure)(filled(inner, pool) for inner in structure)
    return structure


@st.composite
def values(draw: st.DrawFn, dtypes: tuple[str, ...] = OLD_DTYPES + NEW_DTYPES, listed: bool = True) -> Any:
    """A nested structure over a few tensors, each of which may stand in it several times."""
    groups = st.lists(st.one_of(on_one_storage(dtypes), by_itself(dtypes)), min_size=2, max_size=4)
    pool = [tensor for group in draw(groups) for tensor in group]
    if listed and draw(st.booleans()):
        pool.append(LISTED[draw(st.integers(0, len(LISTED) - 1))])
    entries = [_wrapped(tensor, draw(wrappers)) for tensor in pool] + [filled(draw(structures), pool)]
    kind = draw(st.sampled_from((dict, dict, OrderedDict, list, tuple, "root")))
    if kind in (list, tuple):
        return kind(entries)
    labels = draw(st.lists(keys, min_size=len(entries), max_size=len(entries), unique_by=(key_text, lambda key: key)))
    found = dict(zip(labels, entries, strict=True))
    return {draw(st.sampled_from(ROOTS)): found, "step": draw(plain)} if kind == "root" else kind(found)


def _wrapped(value: Any, shells: list[tuple[str, Any]]) -> Any:
    """The value inside containers of one entry, some with something else beside it."""
    for kind, key in shells:
        shell: dict[str, Any] = {
            "dict": {key: value},
            "list": [value],
            "tuple": (3, value),
            "beside": {"!": 0, key: value},
        }
        value = shell[kind]
    return value


protocols = st.integers(2, 5)


@given(value=values(), protocol=protocols)
@quick
def test_every_value_in_a_zip_reads_as_torch_loads_it(value: Any, protocol: int, tmp_path: Path) -> None:
    found = check_reads_as_torch(save(value, tmp_path / "a.pt", protocol=protocol))
    assert found.verdict in ("data", "opaque")
    assert {finding.code for finding in found.findings} <= {"WK104", "WK109"}


@given(value=values(OLD_DTYPES, listed=False), protocol=protocols)
@quick
def test_every_value_in_the_old_layout_reads_as_torch_loads_it(value: Any, protocol: int, tmp_path: Path) -> None:
    found = check_reads_as_torch(save(value, tmp_path / "a.pt", protocol=protocol, legacy=True))
    assert found.verdict in ("data", "opaque")
    assert found.format == "torch_legacy"


@given(value=values(), protocol=protocols)
@settings(quick, max_examples=80)
def test_a_compressed_archive_reads_as_torch_loads_it(value: Any, protocol: int, tmp_path: Path) -> None:
    check_reads_as_torch(deflate(save(value, tmp_path / "a.pt", protocol=protocol)))


@given(value=values(listed=False), protocol=protocols)
@settings(quick, max_examples=80)
def test_the_archive_of_a_big_endian_machine_reads_as_the_same_values(
    value: Any, protocol: int, tmp_path: Path
) -> None:
    path = save(value, tmp_path / "a.pt", protocol=protocol)
    root, expected = named_tensors(torch.load(path, weights_only=False))
    check_equal(open_checkpoint(make_big_endian(path)), root, expected)


@given(value=values(OLD_DTYPES, listed=False))
@settings(quick, max_examples=50)
def test_torch_itself_reads_our_big_endian_archives_as_the_same_values(value: Any, tmp_path: Path) -> None:
    path = save(value, tmp_path / "a.pt")
    check_reads_as_torch(make_big_endian(path))


@pytest.mark.parametrize("legacy", [False, True])
@given(value=values(OLD_DTYPES, listed=False), protocol=protocols)
@settings(quick, max_examples=50)
def test_storages_of_a_gpu_read_without_one(value: Any, protocol: int, legacy: bool, tmp_path: Path) -> None:
    with saved_on("cuda:0"):
        path = save(value, tmp_path / "a.pt", protocol=protocol, legacy=legacy)
    check_reads_as_torch(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_marked_for_a_gpu_is_one_that_torch_alone_cannot_read_here(
    legacy: bool, protocol: int, tmp_path: Path
) -> None:
    tensor = torch.arange(6.0)
    with saved_on("cuda:0"):
        path = save({"a": tensor, "b": tensor[2:]}, tmp_path / "a.pt", protocol=protocol, legacy=legacy)
    assert b"cuda:0" in path.read_bytes()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=False)
    found = check_reads_as_torch(path)
    assert (found.verdict, found.read("b").tolist()) == ("data", [2, 3, 4, 5])


@pytest.mark.parametrize("dtype", OLD_DTYPES + NEW_DTYPES)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_element_type_has_its_bits(dtype: str, legacy: bool, tmp_path: Path) -> None:
    value = {"a": random_tensor(dtype, (2, 3), 1), "0-d": random_tensor(dtype, (), 2)}
    value |= {"b": value["a"].t(), "empty": random_tensor(dtype, (0, 2), 3)}
    path = save(value, tmp_path / "a.pt", legacy=legacy)
    if (
        legacy and dtype in NEW_DTYPES
    ):  # torch writes these in its old layout and cannot load them: the values are known
        check_equal(open_checkpoint(path), "", value)
    else:
        check_reads_as_torch(path)


def test_a_key_that_dots_make_ambiguous_is_refused_and_not_guessed(tmp_path: Path) -> None:
    path = save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CorruptFile, match=r"a\.b"):
        open_checkpoint(path)


def test_a_nan_keeps_every_bit_through_lazy_negation(tmp_path: Path) -> None:
    odd = torch.tensor([complex(1, float("nan")), complex(-0.0, -0.0), complex(float("inf"), float("-inf"))])
    check_reads_as_torch(save({"conjugated": odd.conj(), "one": odd[0].conj()}, tmp_path / "a.pt"))
    check_reads_as_torch(save({"negated": odd.conj().imag, "one": odd.conj().imag[0]}, tmp_path / "a.pt"))


# ---- modules pickled whole


class Branch(nn.Module):
    """A module with everything that state_dict() treats in its own way."""

    def __init__(self, parts: list[nn.Module], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.later = parts[0]
        self.scale = nn.Parameter(torch.randn(3, generator=generator))
        self.register_buffer("kept", torch.randn(2, generator=generator))
        self.register_buffer("transient", torch.randn(2, generator=generator), persistent=False)
        self.register_buffer("no_buffer", None)
        self.register_parameter("no_parameter", None)
        self.frozen = nn.Parameter(torch.randn(2, 2, generator=generator), requires_grad=False)
        self.plain_tensor = torch.randn(2, generator=generator)
        self.rest = nn.ModuleList(parts[1:])
        self.again = parts[-1]
        self.tied = next(iter(parts[0].parameters()), None)


leaf_modules: st.SearchStrategy[nn.Module] = st.one_of(
    st.builds(nn.Linear, st.integers(1, 3), st.integers(1, 3), bias=st.booleans()),
    st.builds(nn.Conv2d, st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), bias=st.booleans()),
    st.builds(nn.LayerNorm, st.integers(1, 3), elementwise_affine=st.booleans(), bias=st.booleans()),
    st.builds(
        nn.BatchNorm1d, st.integers(1, 3), affine=st.booleans(), track_running_stats=st.booleans()
    ),
    st.builds(
        nn.GRU, st.integers(1, 2), st.integers(1, 2), num_layers=st.integers(1, 2), bidirectional=st.booleans()
    ),
    st.builds(nn.Embedding, st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from((nn.ReLU, nn.Tanh, nn.Identity)).map(lambda kind: kind()),
    st.lists(st.integers(1, 3), max_size=3).map(lambda sizes: nn.ParameterList([torch.randn(n) for n in sizes])),
    st.lists(st.integers(1, 3), max_size=2).map(
        lambda sizes: nn.ParameterDict({f"p{index}": torch.randn(n) for index, n in enumerate(sizes)})
    ),
)  # fmt: skip


@st.composite
def _holding(draw: st.DrawFn, inner: st.SearchStrategy[nn.Module]) -> nn.Module:
    parts = draw(st.lists(inner, min_size=1, max_size=3))
    if draw(st.booleans()):
        parts.append(parts[0])  # a module registered twice
    kind = draw(st.sampled_from(("sequential", "list", "dict", "branch")))
    if kind == "branch":
        return Branch(parts, draw(st.integers(0, 1000)))
    if kind == "dict":
        return nn.ModuleDict({f"m{index}": part for index, part in enumerate(parts)})
    return nn.Sequential(*parts) if kind == "sequential" else nn.ModuleList(parts)


modules = st.recursive(leaf_modules, _holding, max_leaves=5)
WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "bare": lambda net: net,
    "model": lambda net: {"model": net, "epoch": 3},
    "net": lambda net: {"net": net, "other": [net.state_dict(), None]},
}


@given(net=modules, wrap=st.sampled_from(sorted(WRAPPED)), protocol=protocols, legacy=st.booleans())
@settings(quick, max_examples=150)
def test_a_module_pickled_whole_has_the_names_of_its_state_dict(
    net: nn.Module, wrap: str, protocol: int, legacy: bool, tmp_path: Path
) -> None:
    path = save(WRAPPED[wrap](net), tmp_path / "a.pt", protocol=protocol, legacy=legacy)
    found = check_reads_as_torch(path)
    assert found.verdict == "opaque"
    codes = {finding.code for finding in found.findings}
    assert codes - {"WK116"} == {"WK104"}  # a tensor that state_dict() does not list is said to be left out


# ---- safetensors

SAFETENSORS = tuple(dtype for dtype in OLD_DTYPES + NEW_DTYPES if dtype != "complex128")
names = st.text("abcdef.0", min_size=1, max_size=5)


@given(
    tensors=st.dictionaries(names, by_itself(SAFETENSORS).map(lambda found: found[0]), max_size=5),
    metadata=st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=2),
)
@quick
def test_safetensors_files_read_as_their_own_library_reads_them(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    # A float8_e8m0fnu only where this version of the library can write it.
    safetensors.torch.save_file(tensors, path, metadata)
    expected = safetensors.torch.load_file(path)
    found = open_checkpoint(path)
    assert set(found.state.unique()) == set(expected)
    check_equal(found, "", {name: expected[found.state.canonical(name)] for name in found.state})


@given(net=modules)
@settings(quick, max_examples=40)
def test_models_that_safetensors_saves_have_all_names_of_their_state_dict(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_model(net, str(path))
    expected = net.state_dict()
    found = open_checkpoint(path)
    assert set(found.state) == set(expected)
    for name, tensor in expected.items():
        assert found.read(name).tobytes() == bits(tensor)
        first = expected[found.state.canonical(name)]
        assert first.data_ptr() == tensor.data_ptr()


# ---- npz

NUMPY = ("?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8", "<f2",
         ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16")  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """An array of random bits, in C or Fortran order, or a view that is neither."""
    element = np.dtype(draw(st.sampled_from(NUMPY)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    raw = np.random.default_rng(draw(st.integers(0, 10_000))).integers(
        0, 2 if element.kind == "b" else 256, int(np.prod(shape)) * element.itemsize, np.uint8
    )
    array: np.ndarray = raw.view(element).reshape(shape)
    order = draw(st.sampled_from(("C", "F", "transposed", "stepped")))
    if order == "F":
        return np.asfortranarray(array)
    if order == "transposed":
        return array.T
    return array[::2] if order == "stepped" and array.ndim else array


@pytest.mark.parametrize("compressed", [False, True])
@given(content=st.dictionaries(st.text("abc/_é.0", min_size=1, max_size=5), arrays(), max_size=5))
@quick
def test_npz_files_read_as_numpy_reads_them(content: dict[str, np.ndarray], compressed: bool, tmp_path: Path) -> None:
    content.pop("file", None)
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **content)
    found = open_checkpoint(path)
    with np.load(path) as expected:
        assert list(found.state) == expected.files
        for name in expected.files:
            native = expected[name].astype(expected[name].dtype.newbyteorder("="))
            array = found.read(name)
            assert (array.dtype, array.shape, array.tobytes()) == (native.dtype, native.shape, native.tobytes())
            assert array.flags.writeable
            assert array.flags.c_contiguous


# ---- sharded, as transformers writes it

needs_shards = pytest.mark.skipif(
    not {"sharded_index", "sharded_dir"} <= set(FORMATS), reason="sharded checkpoints are not read yet"
)


def save_sharded(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> Path:
    """Shards and their index under the names that transformers gives them."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        filename = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensor for index, (name, tensor) in enumerate(tensors.items()) if index % shards == shard}
        safetensors.torch.save_file(part, folder / filename, {"format": "pt"})
        weight_map |= dict.fromkeys(part, filename)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return path


@needs_shards
@given(
    tensors=st.dictionaries(
        names, by_itself(SAFETENSORS).map(lambda found: found[0]), min_size=1, max_size=6
    ),
    shards=st.integers(1, 3),
    by_folder=st.booleans(),
)  # fmt: skip
@settings(quick, max_examples=30)
def test_sharded_checkpoints_read_as_the_state_that_was_split(
    tensors: dict[str, torch.Tensor], shards: int, by_folder: bool, tmp_path: Path
) -> None:
    index = save_sharded(tmp_path / "model", tensors, min(shards, len(tensors)))
    found = open_checkpoint(index.parent if by_folder else index)
    assert set(found.state) == set(tensors)
    check_equal(found, "", {name: tensors[name] for name in found.state})


# ---- mutants: readers that are wrong in one way


MIXED = torch.arange(24.0).reshape(4, 6)
CASES: dict[str, Any] = {
    "views": {"whole": MIXED, "transposed": MIXED.t(), "stepped": MIXED[::2, ::3], "row": MIXED[2], "again": MIXED},
    "types": {"int": torch.arange(4, dtype=torch.int32), "unsigned": torch.tensor([1, 65535], dtype=torch.uint16)},
    "lazy": {"conjugated": torch.tensor([1 + 2j]).conj(), "plain": torch.tensor([1 + 2j])},
    "module": Branch([nn.Linear(2, 2), nn.BatchNorm1d(2)], 1),
}


def check_case(name: str, folder: Path) -> None:
    """Raises unless the named case, in the layouts that it has, reads as torch loads it."""
    path = folder / "a.pt"
    if name == "legacy view":
        root = Stored("1", 10)
        value = {
            "a": vector(Stored("1", 10, (0, 5)), 5),
            "b": vector(Stored("1", 10, (5, 5)), 5),
            "c": vector(root, 10),
        }
        check_reads_as_torch(write_stream(path, value, {"1": np.arange(10, dtype=np.float32)}))
        return
    check_reads_as_torch(save(CASES[name], path))
    if name != "types":
        check_reads_as_torch(save(CASES[name], path, legacy=True))
    if name == "views":
        check_reads_as_torch(make_big_endian(save(CASES[name], path)))


Patch = pytest.MonkeyPatch


def _tensors(change: Callable[[Any], None]) -> Callable[[Patch], None]:
    """A decoder that gets something about each tensor wrong."""

    def plant(patch: Patch) -> None:
        original = _torch_walk.decode_tensor

        def broken(node: object) -> Any:
            tensor = original(node)
            change(tensor)
            return tensor

        patch.setattr(_torch_walk, "decode_tensor", broken)

    return plant


def _ignore_strides(patch: Patch) -> None:
    original = _torch_state.dense_array

    def broken(content: bytearray, found: TensorSpec, **rest: Any) -> Any:
        rest["strides"] = None
        return original((content + bytes(found.nbytes))[: found.nbytes], found, **rest)

    patch.setattr(_torch_state, "dense_array", broken)


def _ignore_the_byte_order(patch: Patch) -> None:
    original = _torch_state.dense_array
    patch.setattr(_torch_state, "dense_array", lambda *a, **rest: original(*a, **{**rest, "swapped": False}))


def _ignore_the_place_in_aliases(patch: Patch) -> None:
    patch.setattr(_torch_walk, "_identity", lambda tensor: (tensor.dtype.name, tensor.storage.key))


def _forget_aliases(patch: Patch) -> None:
    patch.setattr(_torch_state, "find_aliases", lambda tensors: {})


def _take_unsigned_for_signed(patch: Patch) -> None:
    types = dict(_torch_tensors.DTYPES)
    types["uint16"] = types["int16"]
    patch.setattr(_torch_tensors, "DTYPES", types)


def _take_float_for_int(patch: Patch) -> None:
    types = dict(_torch_tensors._STORAGE_DTYPES)
    types["IntStorage"] = types["FloatStorage"]
    patch.setattr(_torch_tensors, "_STORAGE_DTYPES", types)


def _list_transient_buffers(patch: Patch) -> None:
    patch.setattr(_torch_walk, "_is_in", lambda key, names: False)


def _ignore_the_view(patch: Patch) -> None:
    original = _torch_legacy_stream._Records.read

    def broken(self: Any, storage: Any, start: int, length: int) -> bytearray:
        return original(self, storage, start - storage.start, length)

    patch.setattr(_torch_legacy_stream._Records, "read", broken)


def _merge_views(patch: Patch) -> None:
    patch.setattr(
        _torch_walk, "_identity", lambda tensor: (tensor.dtype.name, tensor.shape, tensor.strides, tensor.offset)
    )


def _other_way_round(tensor: Any) -> None:
    tensor.strides, tensor.packed = tensor.strides[::-1], False


MUTANTS: dict[str, tuple[str, Callable[[Patch], None]]] = {
    "strides ignored": ("views", _ignore_strides),
    "strides reversed": ("views", _tensors(_other_way_round)),
    "storage offset ignored": ("views", _tensors(lambda tensor: setattr(tensor, "offset", 0))),
    "byte order ignored": ("views", _ignore_the_byte_order),
    "aliases by storage alone": ("views", _ignore_the_place_in_aliases),
    "aliases forgotten": ("views", _forget_aliases),
    "unsigned taken for signed": ("types", _take_unsigned_for_signed),
    "int taken for float": ("types", _take_float_for_int),
    "conjugation ignored": ("lazy", _tensors(lambda tensor: setattr(tensor, "conjugate", False))),
    "non-persistent buffers listed": ("module", _list_transient_buffers),
    "legacy view offset ignored": ("legacy view", _ignore_the_view),
    "legacy views merged": ("legacy view", _merge_views),
}


@pytest.mark.parametrize("case", [*CASES, "legacy view"])
def test_the_cases_of_the_mutants_pass_without_one(case: str, tmp_path: Path) -> None:
    check_case(case, tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_reader_that_is_wrong_in_one_way_is_caught(mutant: str, tmp_path: Path, monkeypatch: Patch) -> None:
    case, plant = MUTANTS[mutant]
    plant(monkeypatch)
    with pytest.raises((AssertionError, FormatError, ValueError)):
        check_case(case, tmp_path)


@pytest.mark.parametrize(
    ("mutant", "change"),
    [
        ("strides", _other_way_round),
        ("offset", lambda tensor: setattr(tensor, "offset", 0)),
        ("lazy", lambda tensor: setattr(tensor, "negative", False)),
    ],
)
def test_random_values_find_what_is_wrong_too(
    mutant: str, change: Callable[[Any], None], tmp_path: Path, monkeypatch: Patch
) -> None:
    """The cases above were chosen for their mutants; these were not."""
    _tensors(lambda tensor: change(tensor) if isinstance(tensor, _torch_tensors.StridedTensor) else None)(monkeypatch)

    @given(value=values(listed=False))
    @settings(quick, max_examples=400, report_multiple_bugs=False, phases=(Phase.generate,), database=None)
    def check(value: Any) -> None:
        check_reads_as_torch(save(value, tmp_path / "a.pt"))

    with pytest.raises((AssertionError, FormatError, ValueError)):
        check()
