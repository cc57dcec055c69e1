"""Frozen values with named fields, for what every call of the command line needs.

They are what a frozen dataclass is. The module of that name imports inspect, ast and tokenize, which together take as
long as reading a checkpoint of a thousand tensors; everything that is not loaded on that path uses dataclasses.

For the same reason nothing on that path imports typing, collections, contextlib, enum, functools, re or importlib,
which together take a quarter of what ``weightkit inspect`` takes: a module has a TYPE_CHECKING of its own, which type
checkers know, and what only they need stands below it.
"""

from __future__ import annotations

__all__ = ["MappingProxyType", "Record"]
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import MappingProxyType
    from typing import Any, ClassVar, TypeVar

    from typing_extensions import dataclass_transform

    Self = TypeVar("Self", bound="Record")
else:
    MappingProxyType = type(type.__dict__)  # as types has it

    def dataclass_transform(**_: object) -> object:
        """Tells type checkers that a subclass's annotations are its fields; does nothing."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """A subclass's annotations are its fields, in order; what stands behind them is their default.

    ``__post_init__`` may check them. Equal fields make equal records of the same class; hashing hashes the fields.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(name for name in vars(cls).get("__annotations__", {}) if not name.startswith("_"))

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._fields
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields, got {len(values)} values")
        for name, value in zip(fields, values, strict=False):
            if name in named:
                raise TypeError(f"{type(self).__name__} got {name!r} twice")
            named[name] = value
        if len(named) != len(fields):
            for name in fields:
                if name not in named:
                    if not hasattr(type(self), name):
                        raise TypeError(f"{type(self).__name__} needs {name!r}")
                    named[name] = getattr(type(self), name)
        if len(named) != len(fields):
            unknown = next(name for name in named if name not in fields)
            raise TypeError(f"{type(self).__name__} has no field {unknown!r}")
        self.__dict__.update(named)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Called when all fields are there."""

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, in order."""
        return {name: self.__dict__[name] for name in self._fields}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return other.__class__ is self.__class__ and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._fields))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items() if not callable(value))
        return f"{type(self).__name__}({shown})"
