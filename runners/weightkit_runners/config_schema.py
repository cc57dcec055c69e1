"""A JSON Schema of train_config.json for editors: every key that is read, with its kind, bounds and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightkit_runners.config import TRAINED_HERE, asked_keys
from weightkit_runners.config_keys import KNOWN_WITHOUT_EFFECT

SCHEMA_FILE = "train_config.schema.json"
_IDLE = "LeRobot and its forks write it; it changes nothing here"


def train_config_schema() -> dict[str, Any]:
    """The schema, from what the reader asks for: it cannot name a key that is not read, or miss one that is.

    Where a default depends on ``policy.type`` it is left out. Keys that are not named are allowed: they are warned of.
    """
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "weightkit train_config.json",
        "type": "object",
        "properties": {},
    }
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for kind in TRAINED_HERE:
        for path, each in asked_keys(kind).items():
            known = found.setdefault(path, dict(each))
            if known.get("default") != each.get("default"):
                known.pop("default", None)
            if "enum" in known:
                known["enum"] = sorted({*known["enum"], *_choices(each)})
    for path, each in sorted(found.items()):
        _place(schema, path).update(_nullable(each))
    for address in KNOWN_WITHOUT_EFFECT:
        keys = tuple(address.removeprefix("$.").split("."))
        if "*" not in address and keys not in found and not (place := _place(schema, keys)).get("properties"):
            place["description"] = _IDLE
    return schema


def _choices(each: Mapping[str, Any]) -> list[str]:
    found: list[str] = each.get("enum", [])
    return found


def _place(schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    place = schema
    for key in path:
        place = place.setdefault("properties", {}).setdefault(key, {})
    return place


def _nullable(each: dict[str, Any]) -> dict[str, Any]:
    """A key with a default may be null, which means the default."""
    if "default" not in each:
        return each
    if "enum" in each:
        return {**each, "enum": [*each["enum"], None]}
    return {**each, "type": [each["type"], "null"]}
