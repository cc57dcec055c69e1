"""TorchScript archives: their tensors are listed under their names, their code is neither compiled nor looked at."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch_reference import bits, check_equal, rezip
from weightkit.cli.main import main
from weightkit.formats import open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


class Net(nn.Module):
    """Parameters, buffers, submodules, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.rnn = nn.GRU(2, 2)
        self.register_buffer("kept", torch.arange(3, dtype=torch.int64))
        self.halves = nn.Parameter(torch.randn(2).half(), requires_grad=False)
        self.tied = self.body[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Uses some of it."""
        return self.body(x) + self.kept


MAKERS: dict[str, Callable[[nn.Module], Any]] = {
    "script": torch.jit.script,
    "trace": lambda net: torch.jit.trace(net, torch.ones(2, 2)),
}


def saved(kind: str, path: Path) -> Any:
    """The module as TorchScript in a file."""
    torch.manual_seed(1)
    made = MAKERS[kind](Net().eval())
    torch.jit.save(made, path)
    return made


@pytest.mark.parametrize("kind", MAKERS)
def test_tensors_have_the_names_and_bits_of_the_state_dict(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    made = saved(kind, path)
    expected = torch.jit.load(path).state_dict()
    assert list(expected) == list(made.state_dict())
    found = open_checkpoint(path)
    assert (found.format, found.root) == ("torch_zip", "")
    check_equal(found, "", expected)
    assert found.state.aliases == {"body.0.weight": "tied"}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_code_is_left_alone_and_that_is_said(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.pt"
    saved(kind, path)
    found = open_checkpoint(path)
    assert found.verdict == "opaque"
    (said,) = [finding for finding in found.findings if finding.code == "WK115"]
    assert "TorchScript code" in said.message
    assert {finding.code for finding in found.findings} == {"WK104", "WK115"}
    main(["inspect", str(path)])
    assert "WK115" in capsys.readouterr().out


def test_code_that_cannot_be_compiled_changes_nothing(tmp_path: Path) -> None:
    """torch compiles it at once; nothing of it is read here."""
    path = tmp_path / "policy.pt"
    made = saved("script", path)
    rezip(path, lambda name, content: b"import os; os.abort(" if name.startswith("code/") else content)
    with pytest.raises(RuntimeError):
        torch.jit.load(path)
    found = open_checkpoint(path)
    assert found.verdict == "opaque"
    check_equal(found, "", made.state_dict())


def test_a_fresh_process_reads_it_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    made = saved("script", path)
    code = (
        "import builtins, sys; from weightkit.formats import open_checkpoint\n"
        "import numpy, ml_dtypes; seen = []; open_checkpoint(sys.argv[1])  # whatever is imported is imported now\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event in ('compile', 'exec') else None)\n"
        "found = open_checkpoint(sys.argv[1]); arrays = {name: found.read(name) for name in found.state}\n"
        "print(len(arrays), 'torch' in sys.modules, seen.count('compile'))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(len(made.state_dict())), "False", "0"]


def test_a_frozen_module_has_constants_and_no_names(tmp_path: Path) -> None:
    """torch.jit.freeze makes constants of the parameters: its state_dict() is empty."""
    path = tmp_path / "frozen.pt"
    frozen = torch.jit.freeze(torch.jit.script(Net().eval()))
    torch.jit.save(frozen, path)
    found = open_checkpoint(path)
    assert list(found.state) == list(frozen.state_dict()) == []
    assert found.verdict == "opaque"
    assert "WK115" in {finding.code for finding in found.findings}


def test_a_dtype_that_only_a_buffer_has_is_kept(tmp_path: Path) -> None:
    names = ("float64", "bfloat16", "int8", "uint8", "bool", "complex64")

    class Buffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.register_buffer(f"of_{name}", torch.ones(2, 3, dtype=getattr(torch, name)).t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = tmp_path / "a.pt"
    made = torch.jit.trace(Buffers(), torch.ones(1))
    torch.jit.save(made, path)
    found = open_checkpoint(path)
    check_equal(found, "", torch.jit.load(path).state_dict())
    assert all(found.read(name).tobytes() == bits(tensor) for name, tensor in made.state_dict().items())


def test_extra_files_are_no_tensors_and_their_pickles_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    made = torch.jit.script(Net().eval())
    torch.jit.save(made, path, _extra_files={"notes.txt": b"trained on Tuesday"})
    assert open_checkpoint(path).verdict == "opaque"
    torch.jit.save(made, path, _extra_files={"hook.pkl": b"cos\nsystem\n(X\x04\x00\x00\x00truetR."})
    found = open_checkpoint(path)
    assert found.verdict == "unsafe"
    assert list(found.state) == list(made.state_dict())


def test_a_payload_where_torchscript_keeps_its_constants_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    saved("script", path)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert any(name.endswith("/constants.pkl") for name in archive.namelist())
    payload = b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR."
    rezip(path, lambda name, content: payload if name == "constants.pkl" else content)
    found = open_checkpoint(path)
    assert found.verdict == "unsafe"
    assert any("os.system" in finding.message for finding in found.findings if finding.code == "WK103")
