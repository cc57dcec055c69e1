"""A file whose names hold what torch.compile, DataParallel and their like put there, seen without it."""

from __future__ import annotations

from dataclasses import replace

from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.tensor import StateSpec
from weightkit.engine.wrappers import by_plain_name, unwrapped


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint under the names that the modules have by themselves.

    None where it is under those already, and where two names would be one.
    """
    state = checkpoint.state
    stored = by_plain_name(state)
    if len(stored) != len(state) or stored.keys() == state.keys():
        return None
    return Checkpoint(
        checkpoint.path,
        checkpoint.format,
        checkpoint.root,
        StateSpec(
            {name: state[of] for name, of in stored.items()},
            {unwrapped(alias): unwrapped(of) for alias, of in state.aliases.items()},
        ),
        checkpoint.metadata,
        lambda name: checkpoint.read(stored[name]),
        checkpoint.verdict,
        checkpoint.findings,
        {unwrapped(name): why for name, why in checkpoint.not_dense.items()},
    )


def said_so(found: Recognition, checkpoint: Checkpoint) -> Recognition:
    """The recognition with a sentence of evidence about the names that were looked through."""
    wrapped = [name for name in checkpoint.state if unwrapped(name) != name]
    sentence = f"{len(wrapped)} names without what a wrapper put into them: {wrapped[0]} is {unwrapped(wrapped[0])}"
    return replace(found, evidence=(*found.evidence, sentence))
