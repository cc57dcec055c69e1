"""A pickle by itself: its numpy arrays are its tensors, and its payloads are named."""

from __future__ import annotations

import pickle
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from weightkit.errors import CorruptFile
from weightkit.formats import open_checkpoint

ELEMENTS = st.sampled_from(
    ["<f8", "<f4", "<f2", ">f4", ">i8", "<c8", ">c16", "<i4", "<i2", "|i1", "<u8", ">u4", "<u2", "|u1", "|b1"]
)


class RunningStatistics:
    """What a normalising wrapper keeps, as an object of its own."""

    def __init__(self, size: int) -> None:
        self.mean = np.arange(size, dtype=np.float64)
        self.var = np.ones(size)
        self.count = 1e-4


@settings(max_examples=100)
@given(
    ELEMENTS.flatmap(lambda code: arrays.arrays(np.dtype(code), arrays.array_shapes(min_dims=0, min_side=0))),
    st.integers(0, 5),
    st.booleans(),
)
def test_arrays_read_bit_for_bit_as_numpy_pickled_them(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int, fortran: bool
) -> None:
    path = tmp_path_factory.mktemp("p") / "a.pkl"
    array = np.asfortranarray(array) if fortran else array
    path.write_bytes(pickle.dumps({"params": [array]}, protocol))
    if protocol < 2:
        return  # without the opcode that begins every pickle since protocol 2 it is not taken for one
    found = open_checkpoint(path)
    read = found.read("params.0")
    assert (read.shape, read.dtype) == (array.shape, array.dtype.newbyteorder("="))
    assert read.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_running_statistics_are_listed_by_attribute_and_one_array_under_two_names_is_an_alias(tmp_path: Path) -> None:
    statistics = RunningStatistics(3)
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(pickle.dumps({"obs_rms": statistics, "again": statistics.mean, "clip": 10.0}))
    found = open_checkpoint(path)
    assert found.format == "bare_pickle"
    assert found.verdict == "opaque"
    assert list(found.state) == ["obs_rms.mean", "obs_rms.var", "again"]
    assert dict(found.state.aliases) == {"again": "obs_rms.mean"}
    assert found.read("again").tolist() == [0, 1, 2]
    assert found.metadata["clip"] == 10.0


def test_an_array_of_objects_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([{}, None], dtype=object), "w": np.ones(2)}))
    assert list(open_checkpoint(path).state) == ["w"]


def test_a_reference_to_a_storage_that_no_pickle_can_have_is_refused(tmp_path: Path) -> None:
    from unit.formats.pickles import dict_with

    path = tmp_path / "a.pkl"
    path.write_bytes(dict_with(b"N"))
    with pytest.raises(CorruptFile, match="outside the pickle"):
        open_checkpoint(path)
