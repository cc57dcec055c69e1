"""A layout's mapping as a TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weightkit.core.names import parse_template
from weightkit.core.rule import Fate, Mapping, Rule, Spelling
from weightkit.errors import RuleError


def read_mapping(path: Path) -> Mapping:
    """The mapping in a TOML file. Raises RuleError that names the file and the rule."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        rules = tuple(_rule(item) for item in _tables(document, "rule"))
        spellings = tuple(
            Spelling(parse_template(item["name"]), parse_template(item["of"]), item["why"])
            for item in _tables(document, "alias")
        )
        return Mapping(
            document["name"],
            document["version"],
            document["source_layout"],
            document["target_layout"],
            rules,
            spellings,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RuleError(f"{path.name}: {error}") from None


def _tables(document: dict[str, Any], key: str) -> Sequence[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list):
        raise TypeError(f"{key!r} must be an array of tables, written [[{key}]]")
    return tables


def _rule(item: dict[str, Any]) -> Rule:
    return Rule(
        id=item["id"],
        source=parse_template(item["source"]),
        target=parse_template(item["target"]) if "target" in item else None,
        fate=Fate(item.get("fate", "map")),
        why=item.get("why", ""),
        overrides=tuple(item.get("overrides", ())),
    )
