"""Five gigabytes are converted under one gigabyte of address space, with the memory that the plan forecast."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from weightkit.formats import open_checkpoint

CONVERTER = Path(__file__).with_name("large_conversion.py")
ROWS, COLUMNS, LAYERS = 4_000, 8_000, 41  # 128 MB a tensor, 5.0 GB
MAPPING = """
name = "large"
version = 1
source_layout = "a"
target_layout = "b"
[[rule]]
id = "weights"
source = "layers.{i}.weight"
target = "blocks.{i}.kernel"
[[rule]]
id = "turned"
source = "head.weight"
target = "head.kernel"
ops = [{op = "transpose"}]
[[rule]]
id = "joined"
sources = ["q.weight", "k.weight"]
target = "qk"
ops = [{op = "concat", axis = 0}]
"""


def sparse(path: Path) -> None:
    """A safetensors file whose elements are a hole."""
    shapes = {f"layers.{number}.weight": (ROWS, COLUMNS) for number in range(LAYERS - 2)}
    shapes |= {"head.weight": (ROWS // 2, COLUMNS), "q.weight": (ROWS // 2, COLUMNS), "k.weight": (ROWS // 4, COLUMNS)}
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_gigabytes_under_one_with_the_memory_that_was_forecast(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < 8 << 30:
        pytest.skip("needs 8 GB of disk")
    sparse(tmp_path / "large.safetensors")
    (tmp_path / "m.toml").write_text(MAPPING, encoding="utf-8")
    out = tmp_path / "out.safetensors"
    try:
        command = [sys.executable, str(CONVERTER), str(tmp_path / "large.safetensors"), str(tmp_path / "m.toml")]
        done = subprocess.run([*command, str(out), str(1 << 30)], capture_output=True, text=True, timeout=590)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert out.stat().st_size > 5e9
        assert told["class"] == "BIJ"
        assert told["forecast"] == pytest.approx(told["peak"], rel=0.1)
        made = open_checkpoint(out)
        assert made.state["head.kernel"].shape == (COLUMNS, ROWS // 2)
        assert made.state["qk"].shape == (ROWS // 2 + ROWS // 4, COLUMNS)
    finally:
        out.unlink(missing_ok=True)
