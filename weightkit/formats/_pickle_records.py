"""What a pickle would build, as inert records. They compare by identity and are never hashed by content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

How = Literal["REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"]

# Python 2 names, and the place where numpy 2 keeps what numpy 1 had elsewhere.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}


@dataclass(slots=True, eq=False)
class Ref:
    """A class or function by name; ``offset`` is the byte at which it is named. Nothing is imported.

    ``path`` is ``module.name`` in its current spelling.
    """

    module: str
    name: str
    offset: int
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = f"{_RENAMED.get(self.module, self.module)}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """A call that another loader would make, and what it would then put into the result."""

    how: How
    target: object
    arguments: object
    keywords: object
    offset: int
    pairs: list[tuple[object, object]] = field(default_factory=list)
    appended: list[object] = field(default_factory=list)
    states: list[object] = field(default_factory=list)

    @property
    def path(self) -> str:
        """``module.name`` of what is called, "" where that is computed."""
        return self.target.path if isinstance(self.target, Ref) else ""


@dataclass(slots=True, eq=False)
class Dict:
    """A dict as the list of its pairs, in the order in which they were stored, doubles included."""

    pairs: list[tuple[object, object]] = field(default_factory=list)
    states: list[object] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Set:
    """A set or frozenset as the list of its members."""

    members: list[object] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle; torch's storages are referred to so."""

    key: object
    offset: int


@dataclass(slots=True, eq=False)
class BigInt:
    """A number too long to be worth building."""

    size: int
