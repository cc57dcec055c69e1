"""What one file of the corpus is: its bytes, whether it is good, hostile or live, and what must be said about it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

Kind = Literal["live", "hostile", "good"]
Loader = Literal["torch", "numpy", "sb3"]
Content = bytes | Callable[[], bytes]

OK, MALFORMED, UNSAFE, LIMIT = 0, 3, 4, 5
REFUSED = (MALFORMED, LIMIT)

# What payloads do, and all that they do: leave something whose name starts so in the working directory.
MARK = "ran"
SHELL = f"touch {MARK}"
CODE = f"open('{MARK}','w').close()"
EXPRESSION = f"open('{MARK}','w')"
# Files beside a payload that needs one: a module, torch.hub's configuration, a file to copy.
MODULE = {"evil.py": CODE.encode()}


@dataclass(frozen=True)
class Case:
    """One file. ``live``: loading it with a trusting loader leaves the mark. ``hostile``: no payload, but no good
    file either. ``good``: must be read whole.

    ``named``: at least one of these stands in a finding. ``exits``: what ``inspect`` may answer. ``beside``: files in
    the working directory of the trusting loader. ``needs``: a module without which the payload cannot run.
    ``members``: the case is a folder of these files.
    """

    name: str
    filename: str
    content: Content = field(repr=False)
    kind: Kind = "hostile"
    named: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()
    loader: Loader = "torch"
    beside: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    needs: str = ""
    members: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    expected: Callable[[Path], Mapping[str, Any]] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.name

    def write(self, folder: Path) -> Path:
        """The file in ``folder``; with ``members`` it is a folder of these files."""
        path = folder / self.filename
        if self.members:
            for name, held in self.members.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(held)
            return path
        content = self.content if isinstance(self.content, bytes) else self.content()
        path.write_bytes(content)
        return path


def can_run(needs: str) -> bool:
    """Whether the module is there. Only its finders are asked: packages on the way are not imported."""
    if not needs:
        return True
    top, *rest = needs.split(".")
    spec = importlib.util.find_spec(top)
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return False
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec is not None


def live(
    name: str, filename: str, content: Content, *named: str, exits: tuple[int, ...] = (UNSAFE,), **rest: Any
) -> Case:
    """A file with a payload that runs."""
    return Case(name, filename, content, "live", named, exits, **rest)


def hostile(name: str, filename: str, content: Content, *exits: int, **rest: Any) -> Case:
    """A file without a payload that must be refused, or must at least do no harm."""
    return Case(name, filename, content, "hostile", exits=exits or REFUSED, **rest)
