"""Equal tensors have equal digests however they are given; different ones differ."""

from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import pytest

from weightkit.digest import root_digest, sha256_bytes, tensor_digest


def test_documents_have_the_digest_that_sha256sum_prints() -> None:
    expected = hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert sha256_bytes(b"abc" * 1_000_000) == expected


@pytest.mark.parametrize(
    "dtype", [np.float32, np.int8, np.bool_, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 6)])
def test_an_array_and_its_bytes_have_one_digest(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    raw = array.tobytes()
    expected = tensor_digest(array)
    assert len(expected) == 32
    for given in (raw, bytearray(raw), memoryview(raw)):
        assert tensor_digest(given, dtype=array.dtype.name, shape=shape) == expected


def test_layout_and_byte_order_do_not_matter() -> None:
    array = np.arange(24.0).reshape(4, 6)
    assert tensor_digest(np.asfortranarray(array)) == tensor_digest(array) == tensor_digest(array.astype(">f8"))


def test_element_type_shape_and_bytes_matter() -> None:
    array = np.zeros((2, 3), np.float32)
    changed = array.copy()
    changed[1, 2] = -0.0
    others = [array.astype(np.int32), array.reshape(3, 2), array.reshape(6), changed, array[:1]]
    assert len({tensor_digest(other) for other in [array, *others]}) == 6


def test_raw_bytes_need_an_element_type_and_a_shape() -> None:
    with pytest.raises(ValueError, match="dtype and shape"):
        tensor_digest(b"abcd")


def test_the_root_digest_knows_names_and_not_their_order() -> None:
    assert root_digest({"a": "1", "b": "2"}) == root_digest({"b": "2", "a": "1"})
    assert root_digest({"a": "1", "b": "2"}) != root_digest({"a": "2", "b": "1"})
