"""What a pickle would build, as inert records. They compare by identity and are never hashed by content.

Plain classes with slots: a checkpoint of 100,000 tensors has a million of them, and building one must stay cheap.
"""

from __future__ import annotations

from typing import Literal

How = Literal["REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"]
Pair = tuple[object, object]

# Python 2 names, and the place where numpy 2 keeps what numpy 1 had elsewhere.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}


class Ref:
    """A class or function by name; ``offset`` is the byte at which it is named. Nothing is imported.

    ``path`` is ``module.name`` in its current spelling; ``callable_as_data`` says that calling it with positional
    arguments is listed as data.
    """

    __slots__ = ("callable_as_data", "module", "name", "offset", "path")

    def __init__(self, module: str, name: str, offset: int) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        self.path = f"{_RENAMED.get(module, module)}.{name}"
        self.callable_as_data = False


class Call:
    """A call that another loader would make, and what it would then put into the result."""

    __slots__ = ("appended", "arguments", "how", "keywords", "offset", "pairs", "states", "target")

    def __init__(self, how: How, target: object, arguments: object, keywords: object, offset: int) -> None:
        self.how = how
        self.target = target
        self.arguments = arguments
        self.keywords = keywords
        self.offset = offset
        self.pairs: list[Pair] | tuple[()] = ()
        self.appended: list[object] | tuple[()] = ()
        self.states: list[object] | tuple[()] = ()

    @property
    def path(self) -> str:
        """``module.name`` of what is called, "" where that is computed."""
        return self.target.path if isinstance(self.target, Ref) else ""


class Dict:
    """A dict as the list of its pairs, in the order in which they were stored, doubles included."""

    __slots__ = ("pairs", "states")

    def __init__(self, pairs: list[Pair] | None = None) -> None:
        self.pairs: list[Pair] = [] if pairs is None else pairs
        self.states: list[object] | tuple[()] = ()


class Set:
    """A set or frozenset as the list of its members."""

    __slots__ = ("members",)

    def __init__(self, members: list[object] | None = None) -> None:
        self.members: list[object] = [] if members is None else members


class Persistent:
    """A reference to something outside the pickle; torch's storages are referred to so."""

    __slots__ = ("key", "offset")

    def __init__(self, key: object, offset: int) -> None:
        self.key = key
        self.offset = offset


class BigInt:
    """A number too long to be worth building; ``size`` in bits or digits."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size
