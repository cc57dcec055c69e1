"""The contract of an architecture: what a net is, by arithmetic alone, and which layouts name its tensors."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from weightkit.core.group import Group
from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget
from weightkit.core.report import Finding
from weightkit.core.rule import Fate, Mapping, Rule, Spelling
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec
from weightkit.errors import RuleError

if TYPE_CHECKING:
    from torch import nn

    from weightkit.core.checkpoint import Checkpoint


class Config(Protocol):
    """What makes one net of an architecture differ from another."""

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON values."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a file's tensors are.

    ``config`` is None where the tensors are recognised but cannot be used; ``findings`` says why.
    ``evidence`` are the sentences that speak for it, ``confidence`` says whether anything had to be assumed.
    """

    architecture: str
    layout: str
    title: str
    confidence: Literal["certain", "likely"]
    evidence: tuple[str, ...]
    config: Any = None
    findings: tuple[Finding, ...] = ()


class Architecture(Protocol):
    """One file or folder in this door. Nothing here imports torch before ``build``."""

    name: str
    groups: tuple[Group, ...]

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        """What the checkpoint is, None where it is not this architecture."""

    def default_config(self) -> Any:
        """The configuration where nobody says anything: that of the devlogs."""

    def configure(self, config: Any, settings: NameMap[str, str]) -> Any:
        """``config`` with ``--set`` keys applied. Raises UsageError for a key or value that makes no sense."""

    def config_from_train_config(self, root: Section) -> Any:
        """The configuration in a HIL-SERL style train_config.json. Raises ConfigError with the address."""

    def spec(self, config: Any) -> StateSpec:
        """The net's StateSpec, by arithmetic."""

    def target(self, config: Any) -> ConversionTarget:
        """What a conversion into this architecture's own layout must produce."""

    def group_of(self, name: str) -> str:
        """The group that a tensor of any of its layouts belongs to."""

    def acting_path(self, state: StateSpec) -> frozenset[str]:
        """The names that choosing an action reads."""

    def mapping_from(self, layout: str) -> Mapping:
        """The rules from ``layout`` to this architecture's own layout."""

    def build(self, config: Any, *, with_critic: bool = True) -> nn.Module:
        """The net with fresh initial values."""

    def probes(self, config: Any, *, batch: int = 2, seed: int = 0) -> list[dict[str, Any]]:
        """Observations (numpy) that the net can act on: random, black and white images, random states."""


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
