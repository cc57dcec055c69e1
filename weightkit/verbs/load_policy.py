"""A policy that can act, from any file that convert recognises without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightkit.architectures import architecture_named, recognise
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.routes import native_names
from weightkit.core.checkpoint import Checkpoint
from weightkit.engine.wrappers import by_plain_name
from weightkit.errors import FormatError
from weightkit.formats import open_checkpoint
from weightkit.verbs.conversion import Conversion
from weightkit.verbs.plan_conversion import plan_conversion


def load_policy(path: str | Path, *, device: str = "cpu") -> Any:
    """The policy in ``path``, in eval mode, complete on the acting path.

    ``act(observation) -> (B, A)``, ``q_values(observation, action) -> (num_critics, B)`` (ValueError where the file
    holds no critic), ``cameras``, ``config``. Raises FormatError for a file of no known policy,
    PlanError where a tensor is not accounted for.
    """
    checkpoint = open_checkpoint(Path(path))
    recognition = recognise(checkpoint)
    if recognition is None:
        raise FormatError(
            f"{path}: no policy is recognised in its {len(checkpoint.state)} tensors",
            hint="convert it first: weightkit convert SRC --to LAYOUT",
        )
    return policy_of(checkpoint, recognition).to(device)


def policy_of(checkpoint: Checkpoint, recognition: Recognition, *, cast: bool = False) -> Any:
    """The policy that the checkpoint is recognised as, on the CPU, in eval mode. Raises as `load_policy`.

    ``cast``: with weights of any element type, which are used as float32.
    """
    from weightkit.torch_state import load_state

    conversion, has_critic = _into_net(checkpoint, recognition, ("*=cast:float32",) if cast else ())
    assert conversion.architecture is not None
    policy: Any = conversion.architecture.build(conversion.config, with_critic=has_critic)
    load_state(policy, dict(conversion.arrays()))
    return policy.eval()


def _into_net(checkpoint: Checkpoint, recognition: Recognition, adapt: tuple[str, ...]) -> tuple[Conversion, bool]:
    """The conversion into the net's own names, and whether that gives more than the acting path.

    A file that lacks any tensor that only training reads is converted without all of them. Raises PlanError.
    """
    architecture = architecture_named(recognition.architecture)
    wanted: dict[str, Any] = {"to": recognition.architecture, "recognition": recognition}
    wanted |= {"adapt": adapt, "allow_lossy": bool(adapt)}
    if recognition.config is None:
        return plan_conversion(
            checkpoint, to=recognition.architecture, recognition=recognition
        ), True  # which says why it cannot be
    native = architecture.target(recognition.config)
    name_of = native_names(architecture, recognition.layout, recognition.config)
    known = {checkpoint.state.canonical(name) for name in checkpoint.state} - set(_left_out(checkpoint))
    plain = by_plain_name(checkpoint.state)
    training = [name for name in native.state if name not in native.acting]
    sources = {name: name_of(native.state.canonical(name)) for name in training}
    found = {name: plain.get(source or "") for name, source in sources.items()}
    if all(source is not None and checkpoint.state.canonical(source) in known for source in found.values()):
        return plan_conversion(checkpoint, **wanted), True
    present = sorted({source for source in found.values() if source is not None})
    return plan_conversion(checkpoint, drop=present, allow_missing=training, **wanted), False


def _left_out(checkpoint: Checkpoint) -> list[str]:
    """Names that a conversion left out of the file on purpose, as its lineage says."""
    lineage = checkpoint.metadata.get("lineage")
    names = lineage.get("left_out") if isinstance(lineage, dict) else None
    return [str(name) for name in names] if isinstance(names, dict) else []
