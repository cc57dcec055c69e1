"""torch archives: names, aliases, roots, metadata, and numbers that lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unit.formats.pickles import dict_with, save, tensor
from weightkit.errors import CorruptFile, LimitExceeded, NotDenseError
from weightkit.formats import Limits, open_checkpoint

SHARED = Path(__file__).parents[3].parent / "shared"
ROBOBASE = SHARED / "real" / "robobase_1cam_fs3.snapshot.pt"
HUGE = b"\x8a\x08" + (1 << 62).to_bytes(8, "little")


class Net(nn.Module):
    """Everything that makes state_dict() interesting."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.first = nn.Parameter(torch.ones(3))
        self.tied = self.second
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("transient", torch.zeros(2), persistent=False)
        self.register_parameter("absent", None)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net}, lambda net: {"net": net, "epoch": 3}])
def test_a_pickled_module_is_named_as_its_state_dict(wrap: object, tmp_path: Path) -> None:
    net = Net()
    path = tmp_path / "a.pt"
    torch.save(wrap(net), path)  # type: ignore[operator]
    found = open_checkpoint(path)
    prefix = "net." if "epoch" in found.metadata else ""
    expected = net.state_dict()
    assert list(found.state) == [prefix + name for name in expected]
    assert found.state.aliases == {f"{prefix}tied.{name}": f"{prefix}second.{name}" for name in net.second.state_dict()}
    for name, value in expected.items():
        np.testing.assert_array_equal(found.read(prefix + name), value.numpy())


@pytest.mark.parametrize(
    ("content", "root", "names"),
    [
        ({"w": 1}, "", ["w"]),
        ({"state_dict": {"w": 1}, "epoch": None}, "state_dict", ["w"]),
        ({"agent": {"net": {"w": 1}}, "step": None}, "agent", ["net.w"]),
        ({"agent": {"w": 1}, "other": {"v": 1}}, "", ["agent.w", "other.v"]),
        ({"model": 1}, "", ["model"]),
        ({"model.w": 1}, "", ["model.w"]),
        ({"weights": {"w": 1}}, "", ["weights.w"]),
        ({"policy": [1, 1]}, "policy", ["0", "1"]),
    ],
)
def test_names_start_below_a_well_known_key(
    content: dict[str, object], root: str, names: list[str], tmp_path: Path
) -> None:
    def fill(value: object) -> object:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        return torch.ones(1) if value == 1 else value

    path = tmp_path / "a.pt"
    torch.save(fill(content), path)
    found = open_checkpoint(path)
    assert (found.root, list(found.state)) == (root, names)


def test_a_bare_tensor_and_a_list_have_names(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.ones(2), path)
    assert list(open_checkpoint(path).state) == ["tensor"]
    torch.save([torch.ones(2), 3], path)
    found = open_checkpoint(path)
    assert (list(found.state), found.metadata) == (["0"], {"1": 3})


def test_same_view_is_an_alias_and_another_view_is_not(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "a.pt"
    torch.save({"a": base, "b": base, "c": base.t(), "d": base[1:], "e": base.clone()}, path)
    found = open_checkpoint(path)
    assert found.state.aliases == {"b": "a"}
    assert found.read("c").tolist() == base.t().tolist()
    assert found.read("d").tolist() == base[1:].tolist()


def test_a_stride_over_one_entry_tells_no_views_apart(tmp_path: Path) -> None:
    """A file can choose it freely, so many such strides of one hash must not be compared one by one either."""
    base = torch.arange(3.0)
    views = {"a": base.as_strided((1, 3), (5, 1)), "b": base.as_strided((1, 3), (7, 1))}
    far = base.as_strided((3, 1), (1, (1 << 61) + 4))
    torch.save({**views, "c": far, "d": base.as_strided((3, 1), (1, 5))}, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").state.aliases == {"b": "a", "d": "c"}


def test_what_is_no_tensor_is_metadata_by_top_level_key(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    value = {
        "model": {"w": torch.ones(1), "note": "x"},
        "epoch": 3,
        "cfg": {"lr": 1e-3, "sizes": (1, 2)},
        "only": [torch.ones(1)],
    }
    torch.save(value, path)
    metadata = open_checkpoint(path).metadata
    assert metadata == {"model": {"note": "x"}, "epoch": 3, "cfg": {"lr": 1e-3, "sizes": [1, 2]}}


def test_optimizer_state_is_listed(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.pt"
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, path)
    found = open_checkpoint(path)
    assert found.root == ""
    assert {"model.weight", "optimizer.state.0.exp_avg"} <= set(found.state)
    torch.save({"model": net, "optimizer": optimizer}, path)
    assert "optimizer.state.model.weight.exp_avg" in open_checkpoint(path).state


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_dense_are_listed_with_their_kind_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    eye = torch.eye(2)
    torch.save(
        {
            "sparse": eye.to_sparse(),
            **{name: getattr(eye, f"to_sparse_{name}")() for name in ("csr", "csc")},
            "bsr": eye.to_sparse_bsr((1, 1)),
            "quantized": torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
            "per_channel": torch.quantize_per_channel(eye, torch.ones(2), torch.zeros(2), 0, torch.quint8),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "meta": torch.zeros(2, 3, device="meta"),
            "half": torch.ones(2, dtype=torch.complex32),
            "w": torch.ones(1),
        },
        path,
    )
    found = open_checkpoint(path)
    assert found.verdict == "data"
    assert {name: listed.kind for name, listed in found.not_dense.items()} == {
        "sparse": "sparse_coo",
        "csr": "sparse_csr",
        "csc": "sparse_csc",
        "bsr": "sparse_bsr",
        "quantized": "quantized",
        "per_channel": "quantized",
        "nested": "nested",
        "meta": "meta",
        "half": "complex32",
    }
    assert str(found.state["sparse"]) == "float32[2, 2]"
    assert str(found.state["meta"]) == "float32[2, 3]"
    assert str(found.state["quantized"]) == "qint8[2, 2]"
    assert found.not_dense["sparse"].nbytes == 2 * 2 * 8 + 2 * 4
    assert {finding.subject for finding in found.findings if finding.code == "WK109"} == set(found.not_dense)
    assert found.read("w").tolist() == [1]
    for name in found.not_dense:
        with pytest.raises(NotDenseError, match=name):
            found.read(name)


def test_checksums_that_torch_was_told_to_leave_out_are_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(3.0)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert open_checkpoint(path).read("w").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"shape": b"K\x03\x85"}, "reach element 3"),
        ({"shape": HUGE + b"\x85"}, "no memory can hold"),
        ({"strides": b"K\x05\x85"}, "reach element"),
        ({"strides": b"J\xff\xff\xff\xff\x85"}, "strides"),
        ({"shape": b"J\xff\xff\xff\xff\x85"}, "shape"),
        ({"strides": b"K\x01K\x01\x86"}, "2 strides"),
        ({"offset": b"K\x01"}, "reach element"),
        ({"offset": HUGE}, "reach element"),
        ({"offset": b"\x88"}, "offset"),
        ({"numel": b"K\x03"}, "claims 12 bytes"),
        ({"numel": b"K\x01"}, "reach element"),
        ({"shape": b"N"}, "shape"),
    ],
)
def test_a_tensor_whose_numbers_lie_is_refused(lie: dict[str, bytes], said: str, tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"N", tensor=tensor(**lie)))
    with pytest.raises(CorruptFile, match=said):
        open_checkpoint(path)


def test_a_storage_that_is_not_in_the_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="not in the archive"):
        open_checkpoint(save(tmp_path, dict_with(b"N"), records={}))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, path)
    with pytest.raises(CorruptFile, match=r"both be called 'a\.b'"):
        open_checkpoint(path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="stands twice"):
        open_checkpoint(save(tmp_path, dict_with(b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u")))


def test_an_expanded_tensor_is_listed_and_costs_a_limit_only_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(1).expand(1 << 40)}, path)
    found = open_checkpoint(path)
    assert found.state["w"].shape == (1 << 40,)
    with pytest.raises(LimitExceeded, match="expanded_bytes"):
        found.read("w")
    assert open_checkpoint(path, Limits(expanded_bytes=1)).state["w"].numel == 1 << 40


def test_changed_bytes_of_a_tensor_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(100.0), "v": torch.arange(100.0)[3:7]}, path)
    raw = bytearray(path.read_bytes())
    start = raw.index(torch.arange(100.0).numpy().tobytes())
    raw[start + 80] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match="checksum"):
        open_checkpoint(path).read("w")


def test_a_file_that_changes_after_opening_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(3)}, path)
    found = open_checkpoint(path)
    torch.save({"w": torch.ones(300)}, path)
    with pytest.raises(CorruptFile, match="changed"):
        found.read("w")


def test_an_unknown_name_is_a_key_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(3)}, path)
    with pytest.raises(KeyError):
        open_checkpoint(path).read("v")


@pytest.mark.skipif(not ROBOBASE.exists(), reason="the real RoboBase snapshot is not here")
def test_a_real_robobase_snapshot_is_read_as_torch_reads_it() -> None:
    found = open_checkpoint(ROBOBASE)
    assert (len(found.state), len(found.state.aliases), found.root, found.verdict) == (98, 15, "agent", "opaque")
    assert all(
        alias.startswith("actor.actor_model.") and first == alias.removeprefix("actor.")
        for alias, first in found.state.aliases.items()
    )
    cfg = found.metadata["cfg"]
    assert isinstance(cfg, dict)
    assert cfg["frame_stack"] == 3
    assert cfg["method"]["actor_model"]["bottleneck_size"] == 50
    assert found.metadata["_global_env_episode"] == 12
    assert not [finding for finding in found.findings if finding.code != "WK104"]


def test_a_dict_keyed_by_tensors_that_holds_itself_is_read_to_its_end(tmp_path: Path) -> None:
    loop: dict[object, object] = {"weight": torch.ones(2)}
    for _ in range(3):
        loop[torch.zeros(1)] = loop
    torch.save(loop, tmp_path / "loop.pt")
    assert list(open_checkpoint(tmp_path / "loop.pt").state) == ["weight"]
