"""stable-baselines3 archives, built here as that project builds them: tensors listed, objects in data never built."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickle
import struct
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from unit.formats.pickles import archive, dict_with, text
from weightkit.cli.main import main
from weightkit.core.report import Severity
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, UnsafeContent
from weightkit.formats import Limits, detect, open_checkpoint
from weightkit.formats.sb3_zip import _decoded

PAYLOAD = b"cos\nsystem\n(X\x04\x00\x00\x00truetR"
SYSTEM = "- OS: Linux\x1b[31m\n- Python: 3.12.0\n"


class Actor(nn.Module):
    """A head of one layer, as SAC's policy.pth names it."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Linear(2, 3)
        self.critic = nn.Linear(2, 1)


def trained() -> tuple[Actor, torch.optim.Adam]:
    """A net and its optimizer after one step."""
    torch.manual_seed(0)
    net = Actor()
    optimizer = torch.optim.Adam(net.actor.parameters())
    net.actor(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return net, optimizer


def saved(content: object, *, zipped: bool = True) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def cloudpickled(pickled: bytes, kind: str = "<class 'object'>", **rest: object) -> dict[str, object]:
    """A value of ``data`` that is no JSON."""
    return {":type:": kind, ":serialized:": base64.b64encode(pickled).decode(), **rest}


GOOD: dict[str, object] = {
    "policy_class": cloudpickled(b"\x80\x04cstable_baselines3.sac.policies\nSACPolicy\n.", "<class 'abc.ABCMeta'>"),
    "train_freq": cloudpickled(
        b"\x80\x04cstable_baselines3.common.type_aliases\nTrainFreq\nK\x01cstable_baselines3.common.type_aliases\n"
        b"TrainFrequencyUnit\nX\x04\x00\x00\x00step\x85R\x86\x81."
    ),
    "gamma": 0.99,
    "verbose": 0,
    "tensorboard_log": None,
}


def build(
    path: Path,
    *,
    data: object = GOOD,
    members: Mapping[str, bytes] | None = None,
    packed: bool = False,
    zipped: bool = True,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """An archive in the order and manner of stable-baselines3's save_to_zip_file."""
    if members is None:
        net, optimizer = trained()
        members = {
            "pytorch_variables.pth": saved({"log_ent_coef": torch.tensor([0.5], requires_grad=True)}, zipped=zipped),
            "policy.pth": saved(net.state_dict(), zipped=zipped),
            "actor.optimizer.pth": saved(optimizer.state_dict(), zipped=zipped),
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        if data is not None:
            file.writestr("data", data if isinstance(data, (str, bytes)) else json.dumps(data, indent=4))
        for name, content in members.items():
            with file.open(name, "w", force_zip64=True) as member:
                member.write(content)
        file.writestr("_stable_baselines3_version", "2.7.0")
        file.writestr("system_info.txt", SYSTEM)
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return path


def refused(path: Path, said: str) -> FormatError:
    """The error of opening ``path``, which must match ``said``."""
    with pytest.raises(FormatError, match=said) as error:
        open_checkpoint(path)
    return error.value


def inspected(path: Path) -> object:
    """The exit code of ``weightkit inspect``."""
    try:
        main(["inspect", str(path)])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_policy_optimizers_and_variables_are_one_checkpoint(packed: bool, zipped: bool, tmp_path: Path) -> None:
    found = open_checkpoint(build(tmp_path / "model.zip", packed=packed, zipped=zipped))
    net, optimizer = trained()
    moments = {
        f"actor.optimizer.state.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    expected = {**net.state_dict(), "pytorch_variables.log_ent_coef": torch.tensor([0.5]), **moments}
    assert found.format == "sb3_zip"
    assert found.root == ""
    assert list(found.state)[:4] == list(net.state_dict())
    assert set(found.state) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found.read(name), value.numpy())
    with pytest.raises(KeyError):
        found.read("policy.actor.weight")


def test_an_honest_file_is_opaque_and_says_what_was_left_alone(tmp_path: Path) -> None:
    found = open_checkpoint(build(tmp_path / "model.zip"))
    assert found.verdict == "opaque"
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("WK115", Severity.WARNING)
    assert "2 values are cloudpickle (policy_class, train_freq)" in finding.message
    assert "type_aliases.TrainFrequencyUnit" in finding.message
    assert inspected(tmp_path / "model.zip") == 0


def test_the_plain_part_of_data_is_metadata_and_the_objects_are_not(tmp_path: Path) -> None:
    data = {**GOOD, "noise": cloudpickled(b"\x80\x02}.", "<class 'dict'>", sigma="[0.1]", mu=1)}
    found = open_checkpoint(build(tmp_path / "model.zip", data=data)).metadata
    plain = found["data"]
    assert isinstance(plain, dict)
    assert plain["gamma"] == 0.99
    assert plain["tensorboard_log"] is None
    assert plain["policy_class"] == {":type:": "<class 'abc.ABCMeta'>"}
    assert plain["noise"] == {":type:": "<class 'dict'>", "sigma": "[0.1]", "mu": 1}
    assert found["_stable_baselines3_version"] == "2.7.0"
    assert found["system_info"] == "- OS: Linux\\x1b[31m\n- Python: 3.12.0"
    assert "param_groups" in str(found["actor.optimizer"])


def test_an_archive_of_plain_values_only_is_data(tmp_path: Path) -> None:
    found = open_checkpoint(build(tmp_path / "model.zip", data={"gamma": 0.9}))
    assert (found.verdict, found.findings) == ("data", ())
    assert open_checkpoint(build(tmp_path / "model.zip", data=None)).verdict == "data"


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (PAYLOAD, "os.system"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR", "builtins.eval"),
        (b"cbuiltins\ngetattr\n(cos\nsystem\nX\x01\x00\x00\x00atR)R", "a computed callable"),
        (b"ccloudpickle.cloudpickle\n_make_function\n)R)R", "a computed callable"),
        (b"ccloudpickle.cloudpickle\n_make_function\n)R)R0N", "a computed callable"),
        (b"cstable_baselines3.common.save_util\nload_from_pkl\n(X\x01\x00\x00\x00atR", "load_from_pkl"),
        (text("stable_baselines3.common.type_aliases") + text("th.load") + b"\x93)R", "th.load"),
        (text("gymnasium.spaces") + text("box.np.load") + b"\x93)R", "box.np.load"),
        (b"ccloudpickle.cloudpickle\nloads\nC\x02N.\x85R", "cloudpickle.cloudpickle.loads"),
        (b"N.cos\nsystem\n(X\x04\x00\x00\x00truetR", "a second pickle"),
    ],
)  # fmt: skip
def test_an_object_in_data_that_calls_anything_else_is_a_payload(
    payload: bytes, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build(tmp_path / "model.zip", data={**GOOD, "seed": cloudpickled(b"\x80\x04" + payload + b".")})
    found = open_checkpoint(path)
    assert found.verdict == "unsafe"
    messages = [finding.message for finding in found.findings if finding.code == "WK103"]
    assert any(named in message and "'seed'" in message for message in messages)
    np.testing.assert_array_equal(found.read("actor.bias"), trained()[0].actor.bias.detach().numpy())
    assert inspected(path) == 4
    assert "seed" in "".join(capsys.readouterr())


def test_a_function_by_value_is_left_alone_and_told(tmp_path: Path) -> None:
    builtin = b"ccloudpickle.cloudpickle\n_builtin_type\n" + text("CodeType") + b"\x85R"
    function = b"\x80\x04ccloudpickle.cloudpickle\n_make_function\n(" + builtin + b")R}NNNtR."
    found = open_checkpoint(build(tmp_path / "model.zip", data={**GOOD, "lr_schedule": cloudpickled(function)}))
    assert found.verdict == "opaque"
    (finding,) = found.findings
    assert "_make_function" in finding.message


def test_objects_in_data_are_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    module = types.ModuleType("stable_baselines3.common.type_aliases")
    module.touch = ran.append  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "stable_baselines3.common.type_aliases", module)
    pickled = b"\x80\x04cstable_baselines3.common.type_aliases\ntouch\nK\x01\x85R."
    open_checkpoint(build(tmp_path / "model.zip", data={"x": cloudpickled(pickled)}))
    assert not ran


@pytest.mark.parametrize("member", ["policy.pth", "actor.optimizer.pth", "pytorch_variables.pth"])
def test_a_payload_in_a_member_is_named_with_it(
    member: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {"policy.pth": saved({"v": torch.ones(1)}), member: archive(dict_with(PAYLOAD))}
    path = build(tmp_path / "model.zip", members=members)
    found = open_checkpoint(path)
    assert found.verdict == "unsafe"
    messages = [finding.message for finding in found.findings if finding.code == "WK103"]
    assert messages
    assert all(member in message and "os.system" in message for message in messages)
    assert inspected(path) == 4
    assert member in "".join(capsys.readouterr())


def test_a_bare_pickle_as_a_member_is_named(tmp_path: Path) -> None:
    members = {"policy.pth": b"\x80\x02" + PAYLOAD + b"."}
    with pytest.raises(UnsafeContent, match=r"policy\.pth.*os\.system"):
        open_checkpoint(build(tmp_path / "model.zip", members=members))
    refused(build(tmp_path / "model.zip", members={"policy.pth": b"no weights"}), "no weights that are read here")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"x": {":serialized:": "gAROLg==", ":serialized:": "gAROLg=="}}', "stands twice"),
        ("[]", "expected a JSON object, found list"),
        (b"\xff\xfe{}", "not UTF-8"),
        ("{" * 50, "not JSON"),
        ({"x": {":serialized:": 1}}, "is no text, expected base64"),
        ({"x": {":serialized:": "gAR\nOLg=="}}, "no base64"),
        ({"x": {":serialized:": "gAROLg=="[:-1]}}, "no base64"),
        ({"x": {":serialized:": "gAROLg==gARO"}}, "no base64"),
        ({"x": {":serialized:": "gAR-OLg="}}, "no base64"),
        ({"x": {":serialized:": "g\u00e4"}}, "no base64"),
        ({"x": cloudpickled(b"\x80\x04K")}, "'x'"),
        ({"x": cloudpickled(b"")}, "'x'"),
    ],
)
def test_data_that_is_malformed_is_refused(data: object, said: str, tmp_path: Path) -> None:
    assert isinstance(refused(build(tmp_path / "model.zip", data=data), said), CorruptFile)


@given(st.binary(max_size=40), st.integers(0, 60), st.sampled_from("A=\n -_+/é"))
def test_base64_has_one_reading_or_none(content: bytes, place: int, put: str) -> None:
    encoded = base64.b64encode(content).decode()
    assert _decoded("x", encoded) == content
    changed = encoded[:place] + put + encoded[place + 1 :]
    try:
        found = _decoded("x", changed)
    except CorruptFile:
        return
    assert found == base64.b64decode(changed, validate=True)


def test_names_that_collide_are_refused_with_both_files(tmp_path: Path) -> None:
    members = {
        "policy.pth": saved({"vars.a": torch.ones(1)}),
        "vars.pth": saved({"a": torch.ones(1)}),
    }
    error = refused(build(tmp_path / "model.zip", members=members), r"both be called 'vars\.a'")
    assert "policy.pth" in error.message
    assert "vars.pth" in error.message


def test_other_files_in_the_archive_are_a_finding(tmp_path: Path) -> None:
    extra = {"readme.md": b"hello", ".pth": b"x"}
    found = open_checkpoint(build(tmp_path / "model.zip", data={"gamma": 1}, extra=extra))
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("WK106", Severity.WARNING)
    assert "readme.md" in finding.message
    assert ".pth" in finding.message


def test_a_zip_without_a_policy_says_what_is_in_it(tmp_path: Path) -> None:
    error = refused(build(tmp_path / "model.zip", members={}, extra={"parameters": b""}), r"no policy\.pth")
    assert "parameters" in error.message


def test_the_archive_is_recognised_by_its_first_file(tmp_path: Path) -> None:
    for name in ("model.zip", "model", "best_model.backup"):
        assert detect(build(tmp_path / name)).name == "sb3_zip"
    assert detect(build(tmp_path / "no_data.zip", data=None)).name == "sb3_zip"
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    np.savez(tmp_path / "data.npz", data=np.ones(2))
    assert detect(tmp_path / "a.pt").name == "torch_zip"
    assert detect(tmp_path / "data.npz").name == "npz"


def test_limits_hold_inside_the_archive(tmp_path: Path) -> None:
    path = build(tmp_path / "model.zip", packed=True)
    for limits, said in (
        (Limits(json_bytes=10), "json_bytes=10"),
        (Limits(tensors=5), "tensors=5"),
        (Limits(expanded_bytes=4000), "expanded_bytes=4000"),
        (Limits(opcodes=3), "opcodes=3"),
    ):
        with pytest.raises(LimitExceeded, match=said):
            open_checkpoint(path, limits)


def test_changed_bytes_of_a_member_end_in_a_format_error(tmp_path: Path) -> None:
    path = build(tmp_path / "model.zip")
    whole = path.read_bytes()

    def read_all() -> dict[str, bytes]:
        found = open_checkpoint(path)
        return {name: found.read(name).tobytes() for name in found.state}

    before = read_all()
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + struct.pack("B", whole[position] ^ 0x41) + whole[position + 1 :])
        with contextlib.suppress(FormatError):
            assert read_all() == before  # a byte of padding, or of metadata
        path.write_bytes(whole[:position])
        with pytest.raises(FormatError):
            read_all()


def test_objects_that_are_plain_values_call_nothing(tmp_path: Path) -> None:
    values: list[Any] = [{"a": np.zeros(3), "b": (1, 2.5, None)}, OrderedDict(a=1), np.float32(3), {1, 2}]
    data = {str(index): cloudpickled(pickle.dumps(value)) for index, value in enumerate(values)}
    found = open_checkpoint(build(tmp_path / "model.zip", data=data))
    assert [finding.code for finding in found.findings] == ["WK115"]
    assert "they call" not in found.findings[0].message
