"""The contracts of this door: what a net is, by arithmetic alone, and how a project names its tensors."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import nn

    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint
    from weightkit.core.group import Group
    from weightkit.core.plan import ConversionTarget
    from weightkit.core.rule import Mapping
    from weightkit.core.section import Section
    from weightkit.core.tensor import StateSpec, TensorSpec


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a policy looks at: all that is needed to make observations for it. Sizes are of a single frame.

    Images are ``(B, frames * channels, height, width)``, states ``(B, frames * state_dim)``, oldest frame first.
    """

    cameras: tuple[str, ...]
    channels: int
    height: int
    width: int
    frames: int
    state_dim: int
    action_dim: int
    environment_dim: int = 0
    time_dim: int = 0


@dataclass(frozen=True, slots=True)
class Conventions:
    """What a project's own code hands to the net and takes from it, in words: none of it is in the tensors.

    ``pixels`` is the range of the images that the project's net wants; "either" where it tells them apart by type.
    ``trap`` says where the project's own code hands its net something else than that, ``stock`` why its own code does
    not load such a policy as it is.
    """

    pixels: Literal["0..255", "0..1", "either", "none"]
    images: str
    state: str
    action: str
    trap: str = ""
    stock: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """A project's checkpoint folder. Paths are relative, with ``/``.

    ``weights``: a .safetensors file -> names in it, each name of the layout in one file. ``documents``: a .json file ->
    what it holds. ``statistics``: a .safetensors file -> name -> array as `weightkit.architectures.beside` keeps it.
    """

    weights: NameMap[str, tuple[str, ...]]
    documents: NameMap[str, object]
    statistics: NameMap[str, NameMap[str, object]] = field(default_factory=dict)


class Config(Protocol):
    """What makes one net of an architecture differ from another. A frozen dataclass with equality."""

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON values; ``type`` is the architecture's name."""


class Architecture(Protocol):
    """One folder in this door: ``<name>/architecture.py``. Nothing here imports torch before ``build``.

    Its own layout, the names and shapes of the net's state_dict, is called like the architecture.
    """

    name: str
    title: str

    def groups(self, config: Any) -> tuple[Group, ...]:
        """The groups that travel together, with their transfer; those that the net does not have may be among them."""

    def group_of(self, name: str) -> str:
        """The group that a tensor of any of its layouts belongs to."""

    def default_config(self) -> Any:
        """The configuration where nobody says anything: that of the devlogs."""

    def configure(self, config: Any, settings: NameMap[str, str]) -> Any:
        """``config`` with ``--set`` keys applied. Raises UsageError for a key or value that makes no sense."""

    def config_from_dict(self, section: Section) -> Any:
        """The configuration that ``to_dict`` wrote. Raises ConfigError with the address."""

    def config_from_train_config(self, root: Section) -> Any:
        """The configuration in a HIL-SERL style train_config.json. Raises ConfigError with the address."""

    def inputs(self, config: Any) -> Inputs:
        """What the net looks at."""

    def conventions(self, config: Any) -> Conventions:
        """What is handed to the net and taken from it."""

    def spec(self, config: Any) -> StateSpec:
        """The net's StateSpec, by arithmetic."""

    def target(self, config: Any) -> ConversionTarget:
        """What a conversion into this architecture's own layout must produce."""

    def acting_path(self, state: StateSpec) -> frozenset[str]:
        """The names that choosing an action reads, of tensors under the net's own names."""

    def build(self, config: Any, *, with_critic: bool = True) -> nn.Module:
        """The net with fresh initial values: a `Policy`."""


class Layout(Protocol):
    """How one project names an architecture's tensors: ``<architecture>/layouts/<layout>.py`` and its .toml.

    Every layout converts to and from the architecture's own one; between two others a conversion goes by way of that.
    """

    name: str
    architecture: str
    title: str
    options: NameMap[str, str]
    """``--set`` keys that are about the layout and not the net, with what each means."""

    def conventions(self, config: Any) -> Conventions:
        """What the project's code hands to the net and takes from it."""

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        """What the checkpoint is, None where it does not have this layout."""

    def mapping(self, config: Any, options: NameMap[str, str] | None = None) -> Mapping:
        """The rules from this layout to the architecture's own names: renamings, and drops of what the net lacks.

        Without ``options`` they read every spelling of the layout. With them they know the names that are written with
        these options and no others; read backwards they are the way out, so each name must come from one rule.
        """

    def fitted(self, config: Any) -> Any:
        """The configuration with which a net has this layout: ``config``, or one of the same function.

        Raises PlanError that says what of ``config`` this layout cannot express.
        """

    def extras(self, config: Any, options: NameMap[str, str]) -> NameMap[str, TensorSpec]:
        """Tensors of the layout that the net does not have, by their names: written as zeros.

        ``options`` are the layout's own settings, as typed. Raises UsageError for a value that makes no sense.
        """

    def folder(self, config: Any, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]) -> Folder:
        """How the project keeps such a policy in a folder; ``names`` is what is written.

        Raises UsageError where it keeps it in one file.
        """
