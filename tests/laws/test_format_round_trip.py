"""Law 3: what a format writes reads back bit for bit, and what torch writes we read as torch does."""

from __future__ import annotations

import io
from pathlib import Path

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings

from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.formats import _torch_archive, _torch_state, open_checkpoint, writer_for

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128", "int64",
    "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
]  # fmt: skip
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def bits(tensor: torch.Tensor) -> bytes:
    """The packed bytes of a tensor, lazy conjugation carried out."""
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(dense.reshape(-1).view(torch.uint8).numpy().tobytes()) if dense.numel() else b""


def random_tensor(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random bits, all of them valid elements."""
    element = getattr(torch, dtype)
    size = torch.empty(0, dtype=element).element_size()
    numel = int(np.prod(shape))
    raw = torch.randint(
        0, 2 if dtype == "bool" else 256, (numel * size,), generator=torch.Generator().manual_seed(seed)
    )
    return raw.to(torch.uint8).view(element).reshape(shape)


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
base_tensors = st.builds(random_tensor, st.sampled_from(DTYPES), shapes, st.integers(0, 1000))


@st.composite
def views(draw: st.DrawFn) -> list[torch.Tensor]:
    """A tensor with views on its storage: transposed, offset, stepped, expanded, 0-d."""
    base = random_tensor(draw(st.sampled_from(DTYPES)), (4, 6), draw(st.integers(0, 1000)))
    made = {
        "transposed": base.t(),
        "offset": base[1:, 2:5],
        "stepped": base[::2, ::3],
        "expanded": base[:1].expand(3, 6),
        "scalar": base[2, 3],
        "itself": base,
        "empty": base[4:],
        "stride 0": base[1, 1].expand(2, 2),
    }
    return [made[kind] for kind in draw(st.lists(st.sampled_from(sorted(made)), min_size=1, max_size=4))]


tensors = st.one_of(base_tensors, views().map(lambda found: found[0]))
names = st.text("abcdefgh_", min_size=1, max_size=5)
nested = st.recursive(
    st.one_of(tensors, views(), st.integers(-(10**30), 10**30), st.text(max_size=5), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=3), st.lists(inner, max_size=3), st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def flatten(value: object, path: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Dotted name -> tensor, the obvious way."""
    if isinstance(value, torch.Tensor):
        return {".".join(path): value}
    found: dict[str, torch.Tensor] = {}
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            found.update(flatten(inner, (*path, str(key))))
    return found


def check_reads_as_torch(value: dict[str, object], path: Path) -> None:
    """Raises AssertionError unless our reader sees every tensor as torch.load does."""
    torch.save(value, path)
    expected = flatten(torch.load(path, weights_only=True))
    found = open_checkpoint(path)
    assert found.root == ""
    assert set(found.state) == set(expected)
    for name, tensor in expected.items():
        array = found.read(name)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.shape == tuple(tensor.shape) == found.state[name].shape
        assert array.dtype.name == found.state[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        assert array.tobytes() == bits(tensor)
    for alias, first in found.state.aliases.items():
        one, other = expected[alias], expected[first]
        assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        assert (one.shape, one.stride()) == (other.shape, other.stride())


@given(value=st.dictionaries(names.map(lambda name: f"x{name}"), nested, max_size=4))
@quick
def test_every_tensor_that_torch_saves_reads_as_torch_loads_it(value: dict[str, object], tmp_path: Path) -> None:
    check_reads_as_torch(value, tmp_path / "a.pt")


@pytest.mark.parametrize("mutant", ["strides reversed", "strides ignored"])
def test_a_reader_that_ignores_strides_is_caught(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = random_tensor("float32", (4, 6), 1)
    value: dict[str, object] = {"a": base.t(), "b": base[::2, ::3]}
    check_reads_as_torch(value, tmp_path / "a.pt")
    original = _torch_state.dense_array

    def broken(
        content: bytearray, found: TensorSpec, *, strides: tuple[int, ...] | None = None, **rest: object
    ) -> object:
        content = content + bytes(64)
        if strides is not None:
            strides = tuple(reversed(strides)) if mutant == "strides reversed" else None
        if strides is None:
            content = content[: found.nbytes]
        return original(content, found, strides=strides, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(_torch_state, "dense_array", broken)
    with pytest.raises((AssertionError, ValueError)):
        check_reads_as_torch(value, tmp_path / "a.pt")


def test_a_reader_that_ignores_the_storage_offset_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value: dict[str, object] = {"a": random_tensor("float32", (4, 6), 1)[2]}
    original = _torch_archive.Archive.read_part
    monkeypatch.setattr(
        _torch_archive.Archive, "read_part", lambda self, entry, start, length: original(self, entry, 0, length)
    )
    with pytest.raises(AssertionError):
        check_reads_as_torch(value, tmp_path / "a.pt")


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    name = str(tensor.dtype).removeprefix("torch.")
    element = (
        np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) and name not in ("bool",) else np.dtype(name)
    )
    return np.frombuffer(bits(tensor), dtype=element).reshape(tuple(tensor.shape)).copy()


states = st.lists(st.tuples(names, base_tensors), max_size=6, unique_by=lambda pair: pair[0])
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.text(max_size=5),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=5,
)


def write(path: Path, arrays: dict[str, np.ndarray], aliases: dict[str, str], metadata: dict[str, object]) -> StateSpec:
    specs = {name: spec(array.dtype.name, *array.shape) for name, array in arrays.items()}
    specs.update({alias: specs[first] for alias, first in aliases.items()})
    state = StateSpec(specs, aliases)
    with path.open("w+b") as file:
        writer_for(path)(file, iter(arrays.items()), spec=state, metadata=metadata)
    return state


def check_round_trip(
    path: Path, arrays: dict[str, np.ndarray], aliases: dict[str, str], metadata: dict[str, object]
) -> None:
    state = write(path, arrays, aliases, metadata)
    found = open_checkpoint(path)
    assert dict(found.state.tensors) == dict(state.tensors)
    assert found.state.aliases == state.aliases
    kept = found.metadata["weightkit"] if path.suffix == ".pt" else found.metadata
    assert kept == metadata
    for name in state:
        expected = arrays[state.canonical(name)]
        array = found.read(name)
        assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
        assert array.flags.writeable
        assert array.flags.c_contiguous


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz"])
@given(content=states, metadata=st.dictionaries(names.map(str.upper), json_values, max_size=3), alias=st.booleans())
@quick
def test_what_is_written_reads_back_bit_for_bit(
    ending: str,
    content: list[tuple[str, torch.Tensor]],
    metadata: dict[str, object],
    alias: bool,
    tmp_path: Path,
) -> None:
    arrays = {
        name: numpy_of(tensor)
        for name, tensor in content
        if not (ending == ".safetensors" and tensor.dtype == torch.complex128)
    }
    aliases = {"second name": next(iter(arrays))} if alias and arrays else {}
    path = tmp_path / f"a{ending}"
    check_round_trip(path, arrays, aliases, metadata)
    if ending == ".pt":
        loaded = torch.load(path, weights_only=True)
        assert loaded["weightkit"] == metadata
        state = loaded["state_dict"]
        assert list(state) == [*arrays, *aliases]
        for name, first in aliases.items():
            assert state[name].data_ptr() == state[first].data_ptr()
        reference = {name: bits(state[name]) for name in arrays}
        torch.load(path, weights_only=True, mmap=True)
    elif ending == ".safetensors":
        reference = {name: bits(tensor) for name, tensor in safetensors.torch.load(path.read_bytes()).items()}
    else:
        with np.load(path) as loaded_npz:
            reference = {name: loaded_npz[name].tobytes() for name in arrays}
    assert reference == {name: array.tobytes() for name, array in arrays.items()}


@given(content=states)
@quick
def test_what_the_reference_safetensors_writes_reads_bit_for_bit(
    content: list[tuple[str, torch.Tensor]], tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in content if tensor.dtype not in (torch.complex128,)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save(kept, metadata={"format": "pt"}))
    found = open_checkpoint(path)
    assert found.metadata == {"format": "pt"}
    assert {name: found.read(name).tobytes() for name in found.state} == {n: bits(t) for n, t in kept.items()}


@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_writes_reads_bit_for_bit(compressed: bool, tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(24.0).reshape(4, 6),
        "fortran": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
        "big endian": np.arange(5, dtype=">i4"),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 3), np.uint8),
        "bool": np.array([True, False]),
    }
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    found = open_checkpoint(path)
    assert set(found.state) == set(arrays)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(found.read(name), expected)
        assert found.read(name).dtype.isnative


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for ending in (".pt", ".safetensors", ".npz"):
        for name in ("a", "b"):
            write(tmp_path / f"{name}{ending}", {"w": np.ones((2, 2), np.float32)}, {}, {"step": 1})
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_lazily_conjugated_tensors_read_conjugated(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 4j]).conj()
    check_reads_as_torch({"a": value, "b": value[0]}, tmp_path / "a.pt")
    check_reads_as_torch({"negated": value.imag}, tmp_path / "b.pt")


def test_a_file_of_the_other_byte_order_reads_right(tmp_path: Path) -> None:
    content = io.BytesIO()
    from weightkit.formats._torch_emit import emit_state
    from weightkit.formats._zip_writer import ZipWriter

    state = StateSpec({"a": spec("float32", 3), "c": spec("complex64", 1)})
    archive = ZipWriter(content)
    archive.add("archive/data.pkl", emit_state(state, {}, {"a": "0", "c": "1"}))
    archive.add("archive/byteorder", b"big")
    archive.add("archive/data/0", np.array([1, 2, 3], ">f4").tobytes())
    archive.add("archive/data/1", np.array([1 + 2j], ">c8").tobytes())
    archive.finish()
    path = tmp_path / "a.pt"
    path.write_bytes(content.getvalue())
    found = open_checkpoint(path)
    assert found.read("a").tolist() == [1, 2, 3]
    assert found.read("c").tolist() == [1 + 2j]
