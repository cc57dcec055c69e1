"""What torch reads from a file is what is read here, or the file is refused: never another tensor, never fewer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus.differentials import archives, streams
from torch_reference import bits, key_text
from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import CorruptFile, NotDenseError, UnsafeContent
from weightkit.formats import open_checkpoint

FILES = {f"{kind}-{name}": content for kind, made in (("archive", archives()), ("stream", streams()))
         for name, content in made}  # fmt: skip


def everything_in(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, torch.Tensor]]:
    """Every tensor that torch has made, whatever container holds it, by its dotted path; a name may come twice."""
    if isinstance(value, torch.Tensor):
        return [(".".join(path) or "tensor", value)]
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        items = enumerate(value)
    return [found for key, held in items for found in everything_in(held, (*path, key_text(key)))]


def as_torch_reads(path: Path) -> Any:
    """What torch makes of the file, its error where it refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, weights_only=False)
        except Exception as error:
            return error


def read_here(path: Path) -> Checkpoint | None:
    """The checkpoint, None where it is refused or a loader is warned off."""
    try:
        found = open_checkpoint(path)
    except (CorruptFile, UnsafeContent):
        return None
    return None if found.verdict == "unsafe" else found


def same(found: Checkpoint, name: str, tensor: torch.Tensor) -> bool:
    """Whether shape, element type and bits are torch's; of what is only listed here, the bits are not asked for."""
    spec = found.state[name]
    if (spec.dtype.name, spec.shape) != (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)):
        return False
    try:
        array = found.read(name)
    except NotDenseError:
        return True
    return np.asarray(array).tobytes() == bits(tensor)


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_or_read_as_torch_reads_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(FILES[name])
    found = read_here(path)
    if found is None:
        return
    torchs = as_torch_reads(path)
    if isinstance(torchs, Exception):
        assert not found.state, f"torch refuses it ({torchs}) and here it is a checkpoint: {dict(found.state)}"
        return
    tensors = everything_in(torchs)
    assert sorted(name for name, _ in tensors) == sorted(found.state)
    for name, tensor in tensors:
        assert same(found, name, tensor), (found.state[name], tensor)


@pytest.mark.parametrize("name", ["archive-memo-again", "archive-neg-is-True", "stream-two-views", "stream-view-twice"])
def test_what_has_one_meaning_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(FILES[name])
    found = read_here(path)
    assert found is not None
    assert len(found.state) == len(everything_in(as_torch_reads(path))) > 0
