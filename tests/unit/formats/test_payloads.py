"""Payloads are named and never executed; what is ordinary is not called unsafe."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from unit.formats.pickles import TENSOR, archive, dict_with, save, text
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, UnsafeContent
from weightkit.formats import Limits, open_checkpoint
from weightkit.formats._pickle_vm import unpickle
from weightkit.formats._torch_walk import walk

LIMITS = Limits()
FROM_TYPE = b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n(X\x01\x00\x00\x00at}tR"


class Runs:
    """Reduces to a call that would leave a file behind."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


class Plain:
    """An ordinary object."""


def codes(path: Path) -> dict[str, str]:
    """Finding code -> message of the checkpoint at ``path``."""
    return {finding.code: finding.message for finding in open_checkpoint(path).findings}


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR", "os.system"),
        (b"cposix\nsystem\n(X\x04\x00\x00\x00truetR", "posix.system"),
        (b"cbuiltins\nexec\n(X\x04\x00\x00\x00passtR", "builtins.exec"),
        (b"c__builtin__\neval\n(X\x01\x00\x00\x001tR", "builtins.eval"),
        (b"(X\x04\x00\x00\x00trueios\nsystem\n", "os.system"),
        (b"(cos\nsystem\nX\x04\x00\x00\x00trueo", "os.system"),
        (b"(ios\nabort\n", "os.abort"),
        (b"csubprocess\nPopen\n(X\x04\x00\x00\x00truet\x81", "subprocess.Popen"),
        (b"csubprocess\nPopen\n)}(X\x04\x00\x00\x00argsX\x04\x00\x00\x00trueu\x92", "subprocess.Popen"),
        (b"\x82\x01)R", "extension code 1"),
        (b"\x83\x01\x01)R", "extension code 257"),
        (b"\x84\x01\x00\x00\x00", "extension code 1"),
        (b"cbuiltins\ngetattr\n(cos\nX\nX\x01\x00\x00\x00atR)R", "a computed callable"),
        (b"cos\npath.join\n", "os.path.join"),
        (text("os") + text("path.join") + b"\x93", "os.path.join"),
        (text("os") + text("system") + b"\x93(X\x04\x00\x00\x00truetR", "os.system"),
        (b"cmod\nClass\n}b", "mod.Class"),
        (b"ccollections\ndefaultdict\n(cos\nabort\ntR", "collections.defaultdict"),
        (FROM_TYPE, "_rebuild_from_type_v2"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x09\x00\x00\x00zip_codectR", "_codecs.encode"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(K\x00tX\x01\x00\x00\x00btR", "_reconstruct"),
        (b"ccopy_reg\n_reconstructor\n(cos\nsystem\ncos\nsystem\nX\x01\x00\x00\x00atR", "copyreg._reconstructor"),
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR0N", "os.system"),
    ],
)  # fmt: skip
def test_a_payload_is_named_with_its_place_and_the_tensors_are_still_listed(
    payload: bytes, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(os, "system", lambda command: called.append(command))
    pickled = dict_with(payload)
    path = save(tmp_path, pickled)
    found = open_checkpoint(path)
    assert found.verdict == "unsafe"
    errors = [finding for finding in found.findings if finding.code == "WK103"]
    assert any(named in finding.message and "byte " in finding.message for finding in errors)
    assert list(found.state) == ["w"]
    assert not called


def test_the_byte_offset_of_a_payload_is_where_it_is_called(tmp_path: Path) -> None:
    pickled = dict_with(b"cos\nsystem\n(X\x04\x00\x00\x00truetR")
    offset = pickled.index(b"tRu.") + 1
    findings = open_checkpoint(save(tmp_path, pickled)).findings
    called = next(finding.message for finding in findings if finding.code == "WK103")
    assert f"byte {offset} of the pickle" in called


def test_live_payloads_of_the_pickle_module_are_named_and_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    for index, call in enumerate([Runs(os.mkdir, str(mark)), Runs(exec, f"open({str(mark)!r}, 'w')")]):
        path = tmp_path / f"{index}.pt"
        torch.save({"state_dict": {"w": torch.ones(2)}, "extra": [call]}, path)
        found = open_checkpoint(path)
        assert found.verdict == "unsafe"
        assert found.root == "state_dict"
        assert found.read("w").tolist() == [1, 1]
        assert not mark.exists()


def test_opening_imports_nothing_that_the_file_names(tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"cantigravity\nx\n0cthis\ns\n"))
    before = set(sys.modules)
    open_checkpoint(path)
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


@pytest.mark.parametrize("rest", [b"\x80\x02N.", b"cos\nsystem\n(X\x04\x00\x00\x00truetR."])
def test_a_second_pickle_behind_the_first_is_unsafe(rest: bytes, tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"N") + rest)
    assert open_checkpoint(path).verdict == "unsafe"
    assert {"WK103", "WK106"} <= set(codes(path))


def test_bytes_behind_the_pickle_are_a_finding(tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"N") + b"\xff\xff")
    assert "2 bytes follow the end" in codes(path)["WK106"]
    assert open_checkpoint(path).verdict == "data"


def test_objects_left_on_the_stack_are_a_finding(tmp_path: Path) -> None:
    assert "not used" in codes(save(tmp_path, b"\x80\x02K\x01" + dict_with(b"N")[2:]))["WK106"]


def test_a_payload_in_another_pickle_of_the_archive_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"N"), records={"data/0": bytes(8), "extra.pkl": b"cos\nsystem\n(Vtrue\ntR."})
    assert open_checkpoint(path).verdict == "unsafe"


def test_a_payload_before_a_malformed_byte_is_still_named(tmp_path: Path) -> None:
    path = save(tmp_path, dict_with(b"cos\nsystem\n(X\x04\x00\x00\x00truetR\xff"))
    with pytest.raises(UnsafeContent, match=r"os\.system.*malformed"):
        open_checkpoint(path)


def test_many_harmless_remarks_hide_no_payload(tmp_path: Path) -> None:
    crowd = b"".join(b"cm\nC%d\n0" % index for index in range(3000))
    assert open_checkpoint(save(tmp_path, dict_with(crowd + b"cos\nsystem\n)R"))).verdict == "unsafe"


def test_ordinary_objects_are_opaque_and_their_tensors_are_read(tmp_path: Path) -> None:
    agent = Plain()
    agent.net = torch.nn.Linear(2, 3)  # type: ignore[attr-defined]
    agent.step = 7  # type: ignore[attr-defined]
    path = tmp_path / "a.pt"
    torch.save({"agent": agent}, path)
    found = open_checkpoint(path)
    assert (found.verdict, found.root, list(found.state)) == ("opaque", "agent", ["net.weight", "net.bias"])
    assert found.metadata == {"agent": {"step": 7}}
    assert "Plain" in codes(path)["WK104"]


def test_plain_values_are_data(tmp_path: Path) -> None:
    value = {
        "w": torch.nn.Parameter(torch.ones(2)),
        "values": [
            1,
            2.5,
            None,
            True,
            "text",
            b"\xff\x00",
            1j,
            {3, 4},
            frozenset([5]),
            (6,),
            range(3),
            bytearray(b"x"),
        ],
        "containers": [OrderedDict(a=1), defaultdict(list, b=[2]), Counter("aab")],
        "numpy": [np.float32(1.5), np.arange(6).reshape(2, 3), np.int64(3)],
        "torch": [torch.float32, torch.device("cpu"), torch.Size([2, 3])],
        "time": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.date(2026, 1, 2)],
        "path": pathlib.PurePosixPath("/a/b"),
        "big": 1 << 4000,
    }
    path = tmp_path / "a.pt"
    for protocol in (2, 4, 5):
        torch.save(value, path, pickle_protocol=protocol)
        found = open_checkpoint(path)
        assert found.verdict == "data", found.findings
        assert list(found.state) == ["w"]
        assert found.metadata["containers"] == [{"a": 1}, {"b": [2]}, {"a": 2, "b": 1}]
        assert found.metadata["numpy"] == [1.5, [[0, 1, 2], [3, 4, 5]], 3]
        assert found.metadata["torch"] == ["torch.float32", "cpu", [2, 3]]
        assert found.metadata["time"] == ["2026-01-02T03:04:05.000006", "2026-01-02"]
        assert found.metadata["path"] == "/a/b"


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x09N.",
        b"(.",
        b"\xff",
        b"K",
        b"X\xff\xff\xff\xffab.",
        b"\x8d" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\xff.",
        b"h\x05.",
        b"]K\x01s.",
        b"}(K\x01u.",
        b"NNb.",
        b"t.",
        b"\x85.",
        b"Q.",
        b"S'a.\n",
        b"Iabc\n.",
        b"\x97.",
        b"\x95" + b"\xff" * 8,
        b"\x95\x02\x00\x00\x00\x00\x00\x00\x00X\x05\x00\x00\x00hello.",
        b"\x93.",
        b"R.",
        b"o.",
        b"K\x01K\x02a.",
        b"X\x01\x00\x00\x00\xff.",
    ],
)  # fmt: skip
def test_a_malformed_pickle_is_corrupt_and_says_where(pickled: bytes) -> None:
    with pytest.raises(CorruptFile, match="byte"):
        unpickle(pickled, where="x", limits=LIMITS)


def test_truncation_anywhere_gives_format_errors_only(tmp_path: Path) -> None:
    whole = archive(dict_with(b"cm\nC\n)\x81}b"))
    path = tmp_path / "a.pt"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_checkpoint(path)


def test_a_pickle_cut_anywhere_gives_format_errors_only() -> None:
    whole = dict_with(b"cos\nsystem\n(X\x04\x00\x00\x00truetR")
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            unpickle(whole[:length], where="x", limits=LIMITS)


@pytest.mark.parametrize(
    ("limits", "pickled"),
    [
        (Limits(opcodes=1000), b"N0" * 1000 + b"N."),
        (Limits(memo=3), b"N\x94\x94\x94\x94."),
        (Limits(nodes=10), b"](" + b")" * 20 + b"e."),
        (Limits(depth=10), b"]" * 100 + b"a" * 99 + b"."),
        (Limits(path_length=10), b"}(" + text("x" * 20) + TENSOR + b"u."),
        (Limits(tensors=1), b"}(" + text("a") + TENSOR + text("b") + TENSOR + b"u."),
        (Limits(header_bytes=100), b"N0" * 100 + b"N."),
    ],
)
def test_each_limit_has_its_own_error(limits: Limits, pickled: bytes, tmp_path: Path) -> None:
    path = save(tmp_path, pickled)
    with pytest.raises(LimitExceeded) as error:
        open_checkpoint(path, limits)
    changed = next(
        n
        for n in ("opcodes", "memo", "nodes", "depth", "path_length", "tensors", "header_bytes")
        if n in str(error.value)
    )
    assert getattr(limits, changed) != getattr(LIMITS, changed)
    assert f"--limit {changed}=" in error.value.hint


def test_deep_nesting_costs_a_limit_and_no_recursion(tmp_path: Path) -> None:
    for opening, closing in ((b"(" * 100_000, b"t" * 100_000), (b"]" * 100_001, b"a" * 100_000)):
        with pytest.raises((LimitExceeded, CorruptFile)):
            open_checkpoint(save(tmp_path, b"\x80\x02N" + opening + closing + b"."))


def test_shared_containers_cost_a_limit_and_not_the_machine(tmp_path: Path) -> None:
    doubled = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60)) + b"."
    with pytest.raises(LimitExceeded, match="nodes"):
        open_checkpoint(save(tmp_path, b"\x80\x02" + doubled), Limits(nodes=10_000))


def test_a_list_that_holds_itself_is_not_entered_again(tmp_path: Path) -> None:
    found = open_checkpoint(save(tmp_path, dict_with(b"]q\x01h\x01a")))
    assert found.metadata["p"] == ["<itself>"]


def test_colliding_keys_are_never_hashed_by_value(tmp_path: Path) -> None:
    keys = b"".join(b"\x8a\x0a" + (index * (2**61 - 1)).to_bytes(10, "little") + b"N" for index in range(20_000))
    found = open_checkpoint(save(tmp_path, dict_with(b"}(" + keys + b"u")))
    assert len(found.metadata["p"]) == 20_000  # type: ignore[arg-type]


def test_control_characters_of_a_file_reach_no_message(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.pt"
    path.write_bytes(archive(dict_with("cos\x1b[2J‮\nsystem\n)R".encode())))
    for finding in open_checkpoint(path).findings:
        assert (finding.message + finding.subject).isprintable()
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(FormatError) as error:
        open_checkpoint(path)
    assert error.value.message.isprintable()


_OPCODES = b"NK(tl]}dRbcoi\x81\x85\x86eusa0122hqQ.\x93\x94\x8f\x90\x91\x80\x95"


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "cut", "add"]), st.integers(0, 255)), max_size=4
    ),
    protocol=st.sampled_from([0, 2, 4, 5]),
)
@settings(max_examples=300, deadline=None)
def test_no_damage_to_a_pickle_escapes_as_another_error(edits: list[tuple[int, str, int]], protocol: int) -> None:
    value = [{1, 2}, {"a": (1,)}, np.arange(3), np.float32(1), 1 << 70, "a", b"\xff", 1.5, [None, True]]
    raw = bytearray(pickle.dumps(value, protocol))
    for place, kind, byte in edits:
        at = place % len(raw)
        if kind == "set":
            raw[at] = byte
        elif kind == "cut":
            del raw[at : at + 1 + byte % 4]
        else:
            raw[at:at] = bytes((_OPCODES[byte % len(_OPCODES)],))
        raw = raw or bytearray(b".")
    with contextlib.suppress(FormatError):
        pickled = unpickle(bytes(raw), where="x", limits=LIMITS)
        walk(pickled.value, written=pickled.executed, where="x", limits=Limits(nodes=100_000))
