"""The door for ways to reconcile shapes: one file each, this table, ``base.py`` the contract."""

from __future__ import annotations

from collections.abc import Callable

from weightkit.core.plan import OpCall
from weightkit.shape_ops.base import AdapterKind, ShapeOp, as_call
from weightkit.shape_ops.cast import Cast, cast
from weightkit.shape_ops.inflate import InflateMean, InflateNewest, inflate
from weightkit.shape_ops.take import TakeNewest, take

OPS: dict[str, Callable[..., ShapeOp]] = {op.name: op for op in (InflateNewest, InflateMean, TakeNewest, Cast)}
"""Name of an op in a plan -> the op; its parameters are the constructor's arguments."""

ADAPTERS: dict[str, AdapterKind] = {"inflate": inflate, "take": take, "cast": cast}
"""Adapter kind -> what finds its op. ``--adapt PATTERN=KIND:CHOICE`` names one."""

ADAPTER_FORMS: tuple[str, ...] = ("inflate:newest", "inflate:mean", "take:newest", "cast:DTYPE")
"""What a user can type after ``--adapt PATTERN=``."""


def op_of(call: OpCall) -> ShapeOp:
    """The op that a plan's line stands for."""
    return OPS[call.name](**call.params)


__all__ = ["ADAPTERS", "ADAPTER_FORMS", "OPS", "AdapterKind", "ShapeOp", "as_call", "op_of"]
