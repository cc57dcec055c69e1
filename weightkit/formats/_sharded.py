"""A checkpoint in shards: an index that says which tensor lies in which file beside it.

Source: https://huggingface.co/docs/safetensors/index, transformers' ``*.index.json``.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._folder import named_file, read_json_object
from weightkit.formats._joined import Part, below, join, whole_name
from weightkit.formats._source import Source
from weightkit.formats._weights import open_weights
from weightkit.formats.base import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightkit.formats._source import PRead

INDEX_ENDING = ".index.json"
MAP_KEY, METADATA_KEY = "weight_map", "metadata"


def open_sharded(index: Source, limits: Limits, *, path: str, name: str) -> Checkpoint:
    """The checkpoint whose index is ``index``, for the format called ``name``; its shards lie beside the index.

    Raises FormatError. Every tensor lies in exactly the shard that the index names, and no other tensor lies there.
    """
    document = read_json_object(index, limits)
    weight_map = _weight_map(index, document.get(MAP_KEY))
    about = document.get(METADATA_KEY, {})
    if not isinstance(about, dict):
        raise CorruptFile(f"{index.shown}: its {METADATA_KEY} is no JSON object")
    if len(weight_map) > limits.tensors:
        raise limits.exceeded("tensors", where=index.shown, found=f"{len(weight_map)} tensors")
    folder = os.path.dirname(index.path)
    listed: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        listed.setdefault(shard, set()).add(tensor)
    _check_case(index, listed)
    parts: list[Part] = []
    texts: dict[str, object] = {}
    taken, tensors = 0, 0
    deadline = time.monotonic() + limits.wall_s
    for shard, expected in listed.items():
        source = _Metered.of(named_file(folder, shard, said_by=index.shown))
        checkpoint = open_weights(source, limits, name=name)
        taken += source.taken
        tensors += len(checkpoint.state)
        if taken > limits.header_bytes:
            found = f"{taken} bytes of headers in its shards together"
            raise limits.exceeded("header_bytes", where=index.shown, found=found)
        if tensors > limits.tensors:
            raise limits.exceeded("tensors", where=index.shown, found=f"{tensors} tensors in its shards together")
        if time.monotonic() > deadline:
            raise limits.exceeded("wall_s", where=index.shown, found=f"{len(parts) + 1} shards took too long")
        _check_content(index, source.shown, checkpoint, expected, weight_map)
        parts.append(Part(source.shown, checkpoint, below("")))
        if checkpoint.metadata:
            texts[shard] = dict(checkpoint.metadata)
    metadata = {**about, **({"shards": texts} if texts else {})}
    joined = join(parts, path=path, shown=index.shown, format=name, metadata=metadata, limits=limits, order=weight_map)
    return _with_total(joined, index, about.get("total_size"))


def _weight_map(index: Source, found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        raise CorruptFile(
            f"{index.shown}: expected the object {MAP_KEY!r}, which says in which file each tensor lies",
            hint="if it is no index of a sharded checkpoint, name the file with the weights",
        )
    for tensor, shard in found.items():
        if not isinstance(shard, str):
            raise CorruptFile(
                f"{index.shown}: {MAP_KEY} sends {printable(repr(tensor))} to {printable(repr(shard))}, "
                "expected the name of a file"
            )
    if not found:
        raise CorruptFile(f"{index.shown}: its {MAP_KEY} lists no tensor")
    return found


def _check_case(index: Source, shards: Mapping[str, object]) -> None:
    """Two names that some file systems take for one file are refused: what is read must not depend on the machine."""
    seen: dict[str, str] = {}
    for shard in shards:
        other = seen.setdefault(shard.casefold(), shard)
        if other != shard:
            raise CorruptFile(
                f"{index.shown}: the shards {printable(repr(other))} and {printable(repr(shard))} differ only in case"
            )


def _check_content(
    index: Source, shard: str, checkpoint: Checkpoint, expected: set[str], weight_map: Mapping[str, str]
) -> None:
    """The shard holds exactly the tensors that the index says lie in it."""
    aliases = checkpoint.state.aliases
    found = {whole_name(checkpoint, name): name for name in checkpoint.state}
    for whole, name in found.items():
        if whole in expected:
            continue
        if name in aliases and checkpoint.verdict is None and whole not in weight_map:
            continue  # a second name in the metadata of a safetensors shard is no tensor of its own
        said = f"says it lies in {printable(repr(weight_map[whole]))}" if whole in weight_map else "does not list it"
        raise CorruptFile(
            f"{shard}: holds the tensor {printable(whole)!r}, {index.shown} {said}",
            hint="the index and the shards are not of one checkpoint: copy all of them again",
        )
    missing = expected - found.keys()
    if missing:
        raise CorruptFile(
            f"{shard}: {index.shown} lists {len(expected)} tensors in it, {len(missing)} are not in it: "
            f"{printable(min(missing))!r}{' and others' if len(missing) > 1 else ''}",
            hint="the index and the shards are not of one checkpoint: copy all of them again",
        )


def _with_total(checkpoint: Checkpoint, index: Source, total: object) -> Checkpoint:
    """The checkpoint, with a finding where the index's total is not the shards': writers count shared tensors oddly."""
    state = checkpoint.state
    sizes = {state.nbytes, sum(spec.nbytes for spec in state.tensors.values())}
    if type(total) is not int or total in sizes:
        return checkpoint
    message = f"{index.shown}: total_size is {total}, the tensors in the shards have {state.nbytes} bytes"
    finding = Finding("WK102", Severity.WARNING, "total_size", message, "compare the shards with where they came from")
    return checkpoint.replace(findings=(finding, *checkpoint.findings))


class _Metered(Source):
    """A file that counts how many of its bytes were read, so that limits hold for all shards together."""

    __slots__ = ("taken",)

    taken: int

    @classmethod
    def of(cls, source: Source) -> _Metered:
        """``source`` with a meter."""
        made = cls(source.path, source.shown, source.size, identity=source._identity)
        made.taken = 0
        return made

    @contextmanager
    def opened(self) -> Iterator[PRead]:
        """As for any source, counted."""
        with super().opened() as pread:

            def counted(offset: int, length: int) -> bytes:
                self.taken += length
                return pread(offset, length)

            yield counted

    def read(self, offset: int, length: int) -> bytearray:
        """As for any source, counted."""
        self.taken += length
        return super().read(offset, length)
