"""A pretrained ResNet-10 from a local file into the vision backbones of a SAC policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.spec import sac_spec
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec
from weightkit.engine.planning import make_plan
from weightkit.errors import PlanError
from weightkit.mapping_file import read_mapping

if TYPE_CHECKING:
    import numpy as np

    from weightkit.nets.sac import SACPolicy

_EARLIEST = "encoder.stages.0.conv1.weight"
_BACKBONE = "encoder.backbone."


def backbone_plan(state: StateSpec, config: SACConfig) -> Plan:
    """How a ResNet-10's tensors become those of ``config``'s backbone.

    Raises PlanError where they do not fit, or where the file is of the form with another padding than ``config``'s.
    """
    early = _EARLIEST in state
    if config.vision_encoder != ("resnet10_symmetric" if early else "resnet10"):
        wanted = "resnet10_symmetric" if early else "resnet10"
        message = f"the file holds a {wanted!r}, the policy's vision_encoder is {config.vision_encoder!r}"
        finding = Finding("WK202", Severity.ERROR, "vision_encoder", message)
        report = Report("plan", (finding,), exit_code=1)
        raise PlanError(message, report=report, hint=f"--set vision_encoder={wanted}")
    native = {name: spec for name, spec in sac_spec(config).tensors.items() if name.startswith(_BACKBONE)}
    goal = StateSpec({name.removeprefix(_BACKBONE): spec for name, spec in native.items()})
    return make_plan(
        state, ConversionTarget("sac-backbone", goal), read_mapping(Path(__file__).with_name("resnet10.toml"))
    )


def backbone_arrays(checkpoint: Checkpoint, config: SACConfig) -> dict[str, np.ndarray]:
    """The backbone's tensors by their names below ``encoder.backbone``. Raises PlanError, FormatError."""
    steps = backbone_plan(checkpoint.state, config).steps
    return {step.targets[0]: checkpoint.read(step.sources[0]) for step in steps}


def load_backbone(policy: SACPolicy, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Put a ResNet-10 into every vision backbone that ``policy`` has, all or none; the names that were filled.

    Whether they are frozen stays as the policy was built. Raises PlanError, FormatError.
    """
    from weightkit.torch_state import load_state

    arrays = backbone_arrays(checkpoint, policy.config)
    filled: list[str] = []
    for name in ("encoder", "critic_encoder", "critic_target_encoder"):
        encoder = getattr(policy, name)
        if encoder is not None:
            load_state(encoder.backbone, arrays)
            filled += [f"{name}.backbone.{each}" for each in arrays]
    return tuple(filled)
