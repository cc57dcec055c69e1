"""A converted policy as a folder: weightkit's own, or as the project of its layout keeps it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from weightkit.architectures import architecture_of_layout, is_layout, layout_named
from weightkit.architectures.base import Folder
from weightkit.architectures.beside import array_of_json
from weightkit.atomic_file import write_atomically
from weightkit.core.dtype import dtype_named
from weightkit.core.jsonio import parse_json, readable_json
from weightkit.core.plan import Plan
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.digest import file_digest
from weightkit.errors import CorruptFile, UsageError
from weightkit.formats import writer_for
from weightkit.formats.weightkit_dir import CONFIG, VERSION, VERSION_KEY, WEIGHTS
from weightkit.formats.weightkit_dir import is_ours as is_own_folder
from weightkit.verbs.conversion import written_layout

if TYPE_CHECKING:
    import numpy as np

PLAN, REPORT = "plan.json", "report.json"
_MOST_REPORT_BYTES = 1 << 30

WriteWeights = Callable[[Path, "tuple[str, ...]"], Callable[[BinaryIO], None]]
"""What writes those of the converted tensors that are named, to a file of that name."""


def folder_of(plan: Plan, options: Mapping[str, str], beside: Mapping[str, object]) -> Folder:
    """What the folder of a converted policy holds. Raises UsageError where the layout's project has no such folder."""
    names = tuple(plan.produced.unique())
    if plan.config is None or not is_layout(written_layout(plan)):
        raise UsageError(
            "a directory holds a policy's config.json, and this file is of no known policy",
            hint="give a name that ends in .safetensors, .pt or .npz",
        )
    layout = layout_named(written_layout(plan))
    if layout is None:
        return Folder({WEIGHTS: names}, {CONFIG: {VERSION_KEY: VERSION, **plan.config}})
    architecture = architecture_of_layout(plan.target_layout)
    config = architecture.config_from_dict(Section(plan.config, "the plan", "$.config"))
    folder = layout.folder(config, plan.produced, options, beside)
    kept = [name for names in folder.weights.values() for name in names]
    if sorted(kept) != sorted(names):
        raise AssertionError(f"layout {layout.name!r} does not keep every tensor once: {set(kept) ^ set(names)}")
    return folder


def fill_folder(
    place: Path,
    folder: Folder,
    write_weights: WriteWeights,
    *,
    plan: Plan,
    report: Callable[[Mapping[str, str]], Mapping[str, object]],
) -> None:
    """Write everything into the new folder ``place``, last what ``report`` gives of the other files' digests."""
    for name, tensors in folder.weights.items():
        _write(place, name, write_weights(place / name, tensors))
    for name, arrays in folder.statistics.items():
        _write(place, name, _statistics_writer(place / name, arrays))
    for name, document in folder.documents.items():
        _write(place, name, _writer(readable_json(document)))
    _write(place, PLAN, _writer(readable_json(plan.to_dict())))
    written = (*folder.weights, *folder.statistics, *folder.documents, PLAN)
    _write(place, REPORT, _writer(readable_json(report({name: file_digest(place / name) for name in written}))))


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether weightkit wrote the folder and nobody changed anything in it: only then may it be replaced."""
    if is_own_folder(path):
        return True
    try:
        report = Path(path) / REPORT
        if report.is_symlink() or report.stat().st_size > _MOST_REPORT_BYTES:
            return False
        document: Any = parse_json(report.read_bytes(), origin=REPORT)
        listed: Any = document["files"] if document["verb"] == "convert" else {}
        found = _plain_files(Path(path))
        return found == {REPORT, *listed} and all(file_digest(Path(path) / name) == listed[name] for name in listed)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _plain_files(folder: Path) -> set[str]:
    """The files below ``folder``, relative to it. Raises ValueError for a link, a device or an empty folder."""
    found: set[str] = set()
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(here, name)).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise ValueError(f"{name} is no plain file")
        if not folders and not names:
            raise ValueError(f"{here} is empty")
        found |= {os.path.relpath(os.path.join(here, name), folder).replace(os.sep, "/") for name in names}
    return found


def _write(place: Path, name: str, write: Callable[[BinaryIO], None]) -> None:
    path = place / name
    if path.resolve().parent != place.resolve():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def _writer(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _statistics_writer(path: Path, arrays: Mapping[str, object]) -> Callable[[BinaryIO], None]:
    try:
        found = {name: array_of_json(value) for name, value in arrays.items()}
    except ValueError as error:
        raise CorruptFile(
            f"{printable(path.name)}: the statistics that go along with the policy make no sense: {error}",
            hint="leave them out where the layout has a setting for it: --set processors=false",
        ) from None
    spec = StateSpec({name: TensorSpec(dtype_named(array.dtype.name), array.shape) for name, array in found.items()})

    def write(file: BinaryIO) -> None:
        pairs: Iterable[tuple[str, np.ndarray]] = ((name, found[name]) for name in spec)
        writer_for(path)(file, pairs, spec=spec, metadata={})

    return write
