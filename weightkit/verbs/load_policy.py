"""A policy that can act, from any file that convert recognises without a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.architectures import recognise
from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import FormatError
from weightkit.formats import open_checkpoint
from weightkit.verbs.conversion import plan_conversion

if TYPE_CHECKING:
    from weightkit.nets.drqv2 import DrQV2Policy

CRITICS = ("critic.", "critic_target.")
"""Where the critics' tensors start, in every layout. A file without them, or from which some were left out on purpose,
holds the acting path only."""


def load_policy(path: str | Path, *, device: str = "cpu") -> DrQV2Policy:
    """The policy in ``path``, in eval mode, complete on the acting path.

    ``act(observation) -> (B, A)``, ``q_values(observation, action) -> (num_critics, B)`` (ValueError where the file
    holds no critic), ``cameras``, ``config``. Raises FormatError for a file of no known policy,
    PlanError where a tensor is not accounted for.
    """
    from weightkit.torch_state import load_state

    checkpoint = open_checkpoint(Path(path))
    recognition = recognise(checkpoint)
    if recognition is None:
        raise FormatError(
            f"{path}: no policy is recognised in its {len(checkpoint.state)} tensors",
            hint="convert it first: weightkit convert SRC --to LAYOUT",
        )
    left_out = [name for name in _left_out(checkpoint) if name.startswith(CRITICS)]
    present = [name for name in checkpoint.state if name.startswith(CRITICS)]
    has_critic = bool(present) and not left_out
    conversion = plan_conversion(
        checkpoint,
        to=recognition.architecture,
        drop=present if not has_critic else (),
        allow_missing=[f"{critic}*" for critic in CRITICS] if not has_critic else (),
    )
    assert conversion.architecture is not None
    policy: Any = conversion.architecture.build(conversion.config, with_critic=has_critic)
    load_state(policy, dict(conversion.arrays()))
    ready: DrQV2Policy = policy.to(device).eval()
    return ready


def _left_out(checkpoint: Checkpoint) -> list[str]:
    """Names that a conversion left out of the file on purpose, as its lineage says."""
    lineage = checkpoint.metadata.get("lineage")
    names = lineage.get("left_out") if isinstance(lineage, dict) else None
    return [str(name) for name in names] if isinstance(names, dict) else []
