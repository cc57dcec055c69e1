"""What a pickle would build, as inert records. They compare by identity and are never hashed by content.

Plain classes with slots: a checkpoint of 100,000 tensors has a million of them, and building one must stay cheap.
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    How = Literal["REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"]
    Pair = tuple[object, object]

# Python 2's names as its unpickler maps them, where numpy 2 keeps what numpy 1 had elsewhere, and torch's own mapping.
_MODULES = {
    **IMPORT_MAPPING,
    "Tix": "tkinter.tix",  # which Python 3.13 maps no longer
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "torch.tensor": "torch._tensor",
}


class Ref:
    """A class or function by name; ``offset`` is the byte at which it is named. Nothing is imported.

    ``path`` is ``module.name`` in its current spelling; ``callable_as_data`` says whether calling it is data
    without a further look: 2 with any arguments, 1 with none, 0 not.
    """

    __slots__ = ("callable_as_data", "module", "name", "offset", "path")

    def __init__(self, module: str, name: str, offset: int) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        mapped = NAME_MAPPING.get((module, name))
        self.path = ".".join(mapped) if mapped else f"{_MODULES.get(module, module)}.{name}"
        self.callable_as_data = 0


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


class Prefix:
    """The first ``length`` items of a list or pairs of a dict, as they were when a call took them as its argument.

    A stream may go on filling the list; what has been built of it stays as it is.
    """

    __slots__ = ("length", "of")

    def __init__(self, of: list[object] | Dict) -> None:
        self.of = of
        self.length = len(of.pairs if isinstance(of, Dict) else of)

    @property
    def is_dict(self) -> bool:
        """Whether it is the prefix of a dict."""
        return isinstance(self.of, Dict)

    def items(self) -> list[object]:
        """The items; pairs as tuples where it is a dict's prefix."""
        return list((self.of.pairs if isinstance(self.of, Dict) else self.of)[: self.length])


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
