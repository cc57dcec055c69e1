"""A typed look at a JSON object that knows its address and which keys were asked for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weightkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Section:
    """One object of a configuration file, ``origin @ address``. Asking for a key marks it as used.

    By the keys that lead there, ``defaults`` remembers what was taken where the file says nothing, ``asked`` what was
    expected, as JSON Schema. Every getter raises ConfigError with the address, what was expected and what was found.
    """

    values: Mapping[str, object]
    origin: str
    address: str = "$"
    used: set[str] = field(default_factory=set)
    path: tuple[str, ...] = ()
    defaults: dict[tuple[str, ...], object] = field(default_factory=dict)
    asked: dict[tuple[str, ...], dict[str, object]] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """``origin @ $.policy.key``, for messages."""
        return f"{self.origin} @ {self.address}.{key}"

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def raw(self, key: str) -> object:
        """The value as it stands, None where it is missing; marks it as used."""
        self.used.add(f"{self.address}.{key}")
        return self.values.get(key)

    def section(self, key: str) -> Section:
        """The object called ``key``; an empty one where it is missing or null."""
        value = self.values.get(key)
        if not value:
            self.raw(key)  # null and {} have no keys of their own that could be asked for
            value = {} if value is None else value
        if not isinstance(value, dict):
            raise self.wrong(key, "an object", value)
        return Section(
            value, self.origin, f"{self.address}.{key}", self.used, (*self.path, key), self.defaults, self.asked
        )

    def integer(self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        """A whole number from ``minimum`` to ``maximum``; ``default`` where the key is missing or null."""
        value = self._value(key, default, "a whole number", {"type": "integer", "minimum": minimum, "maximum": maximum})
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number", value)
        if value < minimum:
            raise self.wrong(key, f"a whole number of at least {minimum}", value)
        if value > maximum:
            raise self.wrong(key, f"a whole number up to {maximum}", value)
        return value

    def number(
        self, key: str, default: float | None = None, *, minimum: float | None = None, maximum: float = 1e18
    ) -> float:
        """A number within the bounds; ``default`` where the key is missing or null."""
        bounds = {} if minimum is None else {"minimum": minimum}
        value = self._value(key, default, "a number", {"type": "number", **bounds})
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, "a number", value)
        if minimum is not None and value < minimum:
            raise self.wrong(key, f"a number of at least {minimum:g}", value)
        if not -1e18 <= value <= maximum:
            raise self.wrong(key, f"a number up to {maximum:g}", value)
        return float(value)

    def text(self, key: str, default: str | None = None, *, choices: tuple[str, ...] = ()) -> str:
        """A string, one of ``choices`` if any; ``default`` where the key is missing or null."""
        value = self._value(key, default, "a string", {"enum": list(choices)} if choices else {"type": "string"})
        if not isinstance(value, str):
            raise self.wrong(key, "a string", value)
        if choices and value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}", value)
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """true or false; ``default`` where the key is missing or null."""
        value = self._value(key, default, "true or false", {"type": "boolean"})
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of strings; ``default`` where the key is missing or null."""
        value = self._value(key, default, "a list of strings", {"type": "array", "items": {"type": "string"}})
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of strings", value)
        return tuple(value)

    def sizes(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of whole numbers of at least 1; ``default`` where the key is missing or null."""
        items = {"type": "integer", "minimum": 1}
        value = self._value(key, default, "a list of whole numbers", {"type": "array", "items": items})
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, int) and not isinstance(item, bool) and 1 <= item < 2**31 for item in value
        ):
            raise self.wrong(key, "a list of whole numbers of at least 1", value)
        return tuple(value)

    def resolved(self) -> dict[str, object]:
        """The object's values with the defaults that were taken filled in, as JSON values."""
        found: dict[str, object] = copy.deepcopy(dict(self.values))
        for (*parents, key), default in self.defaults.items():
            place: Any = found
            for parent in parents[len(self.path) :]:
                place[parent] = place.get(parent) or {}
                place = place[parent]
            place[key] = _plain(default)
        return found

    def wrong(self, key: str, expected: str, found: object) -> ConfigError:
        """The error for a value that is not what it should be."""
        huge = isinstance(found, int) and abs(found) > 10**18
        shown = "a number of that many digits" if huge else repr(found)
        return ConfigError(f"{self.where(key)}: expected {expected}, found {shown[:200]}")

    def _at(self, key: str) -> tuple[str, ...]:
        return (*self.path, key)

    def _value(self, key: str, default: object, expected: str, schema: dict[str, object]) -> object:
        value = self.raw(key)
        self.asked[self._at(key)] = schema if default is None else {**schema, "default": _plain(default)}
        if value is None:
            if default is None:
                raise ConfigError(f"{self.where(key)}: expected {expected}, found nothing")
            self.defaults[self._at(key)] = default
            return default
        return value


def _plain(default: object) -> object:
    return list(default) if isinstance(default, tuple) else default
