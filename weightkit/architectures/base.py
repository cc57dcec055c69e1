"""The contract of an architecture: what a net is, by arithmetic alone, and which layouts name its tensors."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint
    from weightkit.core.group import Group
    from weightkit.core.plan import ConversionTarget
    from weightkit.core.rule import Mapping
    from weightkit.core.section import Section
    from weightkit.core.tensor import StateSpec


class Config(Protocol):
    """What makes one net of an architecture differ from another."""

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON values."""


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
