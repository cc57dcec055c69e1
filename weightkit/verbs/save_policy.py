"""A live policy as a folder that weightkit reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.core.jsonio import canonical_json
from weightkit.formats import writer_for
from weightkit.formats.weightkit_dir import CONFIG, VERSION, VERSION_KEY, WEIGHTS, is_ours

if TYPE_CHECKING:
    from torch import nn


def save_policy_directory(
    policy: nn.Module, config: Any, path: str | Path, *, facts: Mapping[str, object] | None = None, force: bool = False
) -> None:
    """Write ``policy`` with its configuration to the folder ``path``, whole or not at all.

    ``facts`` (JSON values) go into the file's metadata. Raises WriteError.
    """
    from weightkit import __version__
    from weightkit.torch_state import as_array, named_tensors, state_spec

    spec = state_spec(policy)
    tensors = dict(named_tensors(policy))
    metadata = {"weightkit_version": __version__, "config": config.to_dict(), **(facts or {})}

    def write_weights(file: BinaryIO) -> None:
        arrays = ((name, as_array(tensors[name])) for name in spec.unique())
        writer_for(WEIGHTS)(file, arrays, spec=spec, metadata=metadata)

    def write_config(file: BinaryIO) -> None:
        file.write(canonical_json({VERSION_KEY: VERSION, **config.to_dict()}))

    def fill(folder: Path) -> None:
        write_atomically(folder / WEIGHTS, write_weights)
        write_atomically(folder / CONFIG, write_config)

    write_directory_atomically(Path(path), fill, force=force, is_ours=is_ours)
