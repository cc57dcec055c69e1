"""What is no checkpoint is refused in one clear sentence."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import torch

from weightkit.errors import CorruptFile, FormatError, UnknownFormat, UnsafeContent, UsageError
from weightkit.formats import FORMATS, detect, format_named, open_checkpoint, writer_for


def test_the_table_names_every_format() -> None:
    assert [format_named(name).name for name in FORMATS] == list(FORMATS)
    with pytest.raises(UsageError, match="onnx"):
        format_named("onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, world\n", "text"),
        (b"\x00\x01\x02\x03" * 10, "first bytes are 00 01 02 03"),
    ],
)
def test_a_file_that_no_format_recognises_says_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(UnknownFormat, match=said):
        open_checkpoint(path)


def test_a_tar_of_the_oldest_torch_says_how_to_get_rid_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    with pytest.raises(UnknownFormat, match=r"a tar archive.*0\.1\.10") as error:
        open_checkpoint(path)
    assert "save it again" in error.value.hint


def test_plain_text_that_would_run_when_it_is_unpickled_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafeContent, match=r"os\.system"):
        open_checkpoint(path)


def test_a_missing_file_and_a_plain_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        open_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(UnknownFormat, match="a folder"):
        open_checkpoint(tmp_path)
    with pytest.raises(FormatError):
        open_checkpoint("a\0b")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(FormatError, match="pipe"):
        open_checkpoint(tmp_path / "a.pt")


def test_a_truncated_archive_says_that_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match="cut short"):
        open_checkpoint(path)


def test_an_archive_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    from weightkit.formats._zip_writer import ZipWriter

    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        writer = ZipWriter(file)
        writer.add("readme", b"")
        writer.finish()
    with pytest.raises(CorruptFile, match=r"0 data\.pkl"):
        open_checkpoint(path)


def test_a_path_with_escapes_reaches_the_message_as_text(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as error:
        open_checkpoint(tmp_path / "a\x1b]0;x\x07.pt")
    assert error.value.message.isprintable()


def test_the_format_is_seen_in_the_bytes_and_not_in_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({"a": torch.ones(1)}, path)
    assert detect(path).name == "torch_zip"


def test_the_ending_says_what_is_written() -> None:
    assert writer_for("a.PT") is format_named("torch_zip").write
    assert writer_for("a.npz") is format_named("npz").write
    assert writer_for(Path("a.safetensors")) is format_named("safetensors").write
    with pytest.raises(UsageError, match="ending"):
        writer_for("a.onnx")
