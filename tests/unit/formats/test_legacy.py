"""torch's layout from before 1.6: views of storages, other machines, sources of classes, damage."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from legacy_streams import MAGIC, SYSTEM, Laid, Stored, vector, write_stream
from torch_reference import check_reads_as_torch, save
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, UnsafeContent
from weightkit.formats import Limits, open_checkpoint

TEN = np.arange(10, dtype=np.float32)
WHOLE = Stored("1", 10)


def part(offset: int, size: int, *, key: str = "1", numel: int = 10) -> Stored:
    """A view of a storage."""
    return Stored(key, numel, (offset, size))


def test_two_views_of_one_storage_are_two_tensors(tmp_path: Path) -> None:
    value = {"a": vector(part(0, 5), 5), "b": vector(part(5, 5), 5), "again": vector(part(5, 5), 5)}
    found = check_reads_as_torch(write_stream(tmp_path / "a.pt", value, {"1": TEN}))
    assert found.state.aliases == {"again": "b"}
    assert found.read("b").tolist() == [5, 6, 7, 8, 9]


def test_a_view_and_the_whole_meet_where_they_are_the_same_bytes(tmp_path: Path) -> None:
    value = {"whole": vector(WHOLE, 10), "tail": vector(part(4, 6), 6), "same": vector(WHOLE, 6, 4)}
    path = write_stream(tmp_path / "a.pt", value, {"1": TEN})
    found = open_checkpoint(path)
    assert found.read("tail").tolist() == found.read("same").tolist() == [4, 5, 6, 7, 8, 9]
    assert found.read("whole").tolist() == TEN.tolist()


def test_an_offset_and_strides_count_from_the_start_of_the_view(tmp_path: Path) -> None:
    value = {"a": Laid(part(2, 8), (2, 3), (1, 2), 1), "scalar": Laid(part(2, 8), (), (), 7)}
    found = check_reads_as_torch(write_stream(tmp_path / "a.pt", value, {"1": TEN}))
    assert found.read("a").tolist() == [[3, 5, 7], [4, 6, 8]]
    assert found.read("scalar").tolist() == 9


@pytest.mark.parametrize(
    "value",
    [
        {"a": vector(part(5, 5), 8)},
        {"a": vector(part(5, 5), 5, 1)},
        {"a": vector(part(8, 5), 5)},
        {"a": vector(part(0, 5), 5), "b": vector(part(8, 5), 5)},
        {"a": vector(part(0, 5), 5), "b": vector(part(10, 1), 1)},
        {"a": vector(part(0, 11), 11)},
        {"a": vector(part(0, 5, numel=5), 5)},
        {"a": vector(part(0, 5), 5), "b": vector(part(0, 5, numel=20), 5)},
        {"a": vector(Stored("3", 10), 1)},
        {"a": vector(Stored("1", 10, (-1, 2)), 1)},
        {"a": vector(Stored("1", 10, (1 << 62, 1 << 62)), 1)},
    ],
    ids=range(11),
)
def test_a_view_that_reaches_out_of_its_storage_is_refused(value: dict[str, Laid], tmp_path: Path) -> None:
    """What lies behind the storage is the next one: none of its bytes may pass for this one's."""
    value = {**value, "other": vector(Stored("2", 10), 10)}
    path = write_stream(tmp_path / "a.pt", value, {"1": TEN, "2": TEN + 100})
    with pytest.raises(CorruptFile):
        open_checkpoint(path)


def test_a_machine_of_the_other_byte_order_wrote_its_elements_in_ours(tmp_path: Path) -> None:
    """torch's old writer swaps to little-endian and says nevertheless that the machine was big-endian."""
    path = write_stream(
        tmp_path / "a.pt", {"a": vector(WHOLE, 10)}, {"1": TEN}, system={**SYSTEM, "little_endian": False}
    )
    assert check_reads_as_torch(path).read("a").tolist() == TEN.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_storages_of_old_gpu_classes_are_read(protocol: int, tmp_path: Path) -> None:
    """Before torch 2 the class itself said that it lies on a GPU: torch.cuda.FloatStorage."""
    on_gpu = Stored("1", 10, kind=torch.cuda.FloatStorage, location="cuda:1")
    path = write_stream(tmp_path / "a.pt", {"a": vector(on_gpu, 3, 2)}, {"1": TEN}, protocol=protocol)
    found = open_checkpoint(path)
    assert (found.verdict, found.read("a").tolist()) == ("data", [2, 3, 4])


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_protocol_is_recognised(protocol: int, tmp_path: Path) -> None:
    path = write_stream(tmp_path / "a.pt", {"a": vector(WHOLE, 10)}, {"1": TEN}, protocol=protocol)
    found = open_checkpoint(path)
    assert (found.format, found.read("a").tolist()) == ("torch_legacy", TEN.tolist())


def test_bytes_behind_the_last_storage_are_a_finding(tmp_path: Path) -> None:
    path = write_stream(tmp_path / "a.pt", {"a": vector(WHOLE, 10)}, {"1": TEN}, behind=b"more")
    found = open_checkpoint(path)
    assert [finding.code for finding in found.findings] == ["WK106"]
    assert "4 bytes follow" in found.findings[0].message


def test_a_stream_that_was_cut_short_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = save({"a": torch.arange(3.0), "b": {"c": torch.ones(2)}, "d": "text"}, tmp_path / "a.pt", legacy=True)
    whole = path.read_bytes()
    for length in range(0, len(whole), 2):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_checkpoint(path)


def test_a_changed_byte_ends_in_an_answer_or_in_an_error_of_ours(tmp_path: Path) -> None:
    path = save({"a": torch.arange(3.0), "b": {"c": torch.ones(2)}}, tmp_path / "a.pt", legacy=True)
    whole = path.read_bytes()
    answered = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= (0x01, 0x80, 0xFF)[position % 3]
        path.write_bytes(changed)
        try:
            found = open_checkpoint(path)
            for name in found.state:
                if name not in found.not_dense:
                    found.read(name)
            answered += 1
        except FormatError:
            continue
    assert answered


def test_another_magic_number_and_another_protocol_are_refused(tmp_path: Path) -> None:
    path = write_stream(tmp_path / "a.pt", {"a": vector(WHOLE, 10)}, {"1": TEN})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)))
    with pytest.raises(FormatError, match="1002"):
        open_checkpoint(path)
    path.write_bytes(whole.replace(MAGIC.to_bytes(10, "little"), (MAGIC + 1).to_bytes(10, "little")))
    found = open_checkpoint(path)  # a number, and more pickles behind it
    assert (found.format, found.verdict, len(found.state)) == ("bare_pickle", "unsafe", 0)


@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_a_payload_in_any_of_the_five_pickles_is_named(where: int, tmp_path: Path) -> None:
    """torch unpickles each of them, the system's sizes too, whose value it never looks at."""

    class Runs:
        def __reduce__(self) -> object:
            return exec, ("raise SystemExit('it ran')",)

    marked = {**SYSTEM, "x": Runs()} if where == 0 else SYSTEM
    value: dict[str, object] = {"a": vector(WHOLE, 10)}
    if where == 1:
        value["x"] = Runs()
    path = write_stream(tmp_path / "a.pt", value, {"1": TEN}, system=marked)
    if where > 1:
        keys = pickle.dumps(["1"], 2)
        changed = (
            pickle.dumps(["1", Runs()], 2)
            if where == 2
            else b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR0" + keys[2:]
        )
        path.write_bytes(path.read_bytes().replace(keys, changed))
    try:
        found = open_checkpoint(path)
    except UnsafeContent as error:
        said = str(error)
    else:
        assert found.verdict == "unsafe"
        said = " ".join(finding.message for finding in found.findings if finding.code == "WK103")
    assert ("os.system" if where == 3 else "exec") in said


def test_a_pickle_over_the_first_piece_is_read_in_larger_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weightkit.formats import _torch_legacy_stream

    path = save({"note": "x" * 5000, "a": torch.arange(3.0)}, tmp_path / "a.pt", legacy=True)
    monkeypatch.setattr(_torch_legacy_stream, "_FIRST_PIECE", 64)
    assert open_checkpoint(path).read("a").tolist() == [0, 1, 2]
    with pytest.raises(LimitExceeded, match="header_bytes"):
        open_checkpoint(path, Limits(header_bytes=600))


SOURCE = '''
from torch import nn

class Net(nn.Module):
    """A class whose source is in the file."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Sequential(nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1))])
        self.head = nn.Linear(3, 1, bias=False)
'''


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_modules_whose_sources_are_in_the_file_are_read_without_them(protocol: int, tmp_path: Path) -> None:
    source = tmp_path / "gone_net.py"
    source.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("gone_net", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gone_net"] = module
    try:
        spec.loader.exec_module(module)
        net: nn.Module = module.Net()
        path = save({"net": net, "epoch": 1}, tmp_path / "a.pt", protocol=protocol, legacy=True)
        check_reads_as_torch(path)
    finally:
        del sys.modules["gone_net"]
    assert b"A class whose source is in the file." in path.read_bytes()
    source.unlink()
    found = open_checkpoint(path)
    expected = net.state_dict()
    assert list(found.state) == [f"net.{name}" for name in expected]
    for name, tensor in expected.items():
        assert found.read(f"net.{name}").tobytes() == tensor.numpy().tobytes()
    assert found.verdict == "opaque"
    assert "gone_net" not in sys.modules


def test_the_source_in_the_file_is_not_what_decides(tmp_path: Path) -> None:
    """The class is judged by its name, whatever text is said to be its source."""

    class Claim:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, found: object) -> object:
            if isinstance(found, Claim):
                return "module", eval, "harmless.py", "class Harmless: pass"
            return found.persistent_id if isinstance(found, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"x": Claim(), "a": vector(WHOLE, 10)})
    path = write_stream(tmp_path / "a.pt", 0, {"1": TEN})
    path.write_bytes(path.read_bytes().replace(pickle.dumps(0, 2), stream.getvalue(), 1))
    found = open_checkpoint(path)
    assert found.verdict != "data"
    assert any("eval" in finding.message for finding in found.findings)
