"""``model.safetensors.index.json``, ``pytorch_model.bin.index.json``: a checkpoint in shards, named by its index."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.formats._sharded import INDEX_ENDING, MAP_KEY, open_sharded
from weightkit.formats._source import Source
from weightkit.formats.base import Format, Limits


def detect(path: str, head: bytes) -> bool:
    """A JSON file that is called an index, or begins with the map of one."""
    if not head.lstrip().startswith(b"{"):
        return False
    return path.lower().endswith(INDEX_ENDING) or f'"{MAP_KEY}"'.encode() in head


def open_sharded_index(path: str, limits: Limits) -> Checkpoint:
    """The tensors of all shards that the index lists. Raises FormatError."""
    return open_sharded(Source.at(path), limits, path=path, name=FORMAT.name)


FORMAT = Format(
    name="sharded_index",
    description="the index of a checkpoint in shards, safetensors or torch, each tensor in the shard it names",
    endings=(INDEX_ENDING,),
    detect=detect,
    open=open_sharded_index,
    judges=False,
)
