"""A policy that can act, from any file that convert recognises without a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.errors import FormatError
from weightkit.verbs.convert import Conversion, plan_conversion

if TYPE_CHECKING:
    from weightkit.nets.drqv2 import DrQV2Policy


def load_policy(path: str | Path, *, device: str = "cpu") -> DrQV2Policy:
    """The policy in ``path``, in eval mode, complete on the acting path.

    ``act(observation) -> (B, A)``, ``q_values(observation, action) -> (num_critics, B)`` (ValueError where the file
    holds no critic), ``cameras``, ``config``. Raises FormatError for a file that is of no known policy or lacks
    a tensor on the acting path, PlanError where a tensor is not accounted for.
    """
    from weightkit.architectures import recognise
    from weightkit.formats import open_checkpoint

    checkpoint = open_checkpoint(Path(path))
    recognition = recognise(checkpoint)
    if recognition is None:
        raise FormatError(
            f"{path}: no policy is recognised in its {len(checkpoint.state)} tensors",
            hint="convert it first: weightkit convert SRC --to LAYOUT",
        )
    from weightkit.architectures import architecture_named

    critics = [name for name in checkpoint.state if name.startswith(("critic.", "critic_target."))]
    missing = ["critic.*", "critic_target.*"] if not critics else []
    conversion = plan_conversion(path, to=architecture_named(recognition.architecture).name, allow_missing=missing)
    policy: DrQV2Policy = policy_from(conversion, device=device)
    return policy


def policy_from(conversion: Conversion, *, device: str = "cpu") -> Any:
    """The net of a planned conversion with its weights; without critics where the file has none."""
    from weightkit.torch_state import load_state

    assert conversion.architecture is not None
    plan = conversion.plan
    group_of = conversion.architecture.group_of
    complete = {group_of(step.target) for step in plan.steps} - {group_of(name) for name in plan.left_out}
    if plan.left_out and any(name in conversion.target.acting for name in plan.left_out):
        gone = sorted(set(plan.left_out) & conversion.target.acting)
        raise FormatError(f"{conversion.source.path}: {gone[0]} is missing, and choosing an action reads it")
    policy = conversion.architecture.build(conversion.config, with_critic={"critic", "critic_target"} <= complete)
    own = conversion.target.state.only(name for name in dict(policy.state_dict()))
    load_state(policy, {name: array for name, array in conversion.arrays() if name in own})
    return policy.to(device).eval()
