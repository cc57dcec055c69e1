"""The door for ways to reconcile shapes: one file per family, these tables, ``base.py`` the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from weightkit.core.plan import OpCall
from weightkit.shape_ops.base import AdapterKind, OpKind, ShapeOp, as_call
from weightkit.shape_ops.cast import Cast, CastBack, cast, cast_of
from weightkit.shape_ops.copies import Copy, Same, copy_of, same_of
from weightkit.shape_ops.fill import Fill, Unfill
from weightkit.shape_ops.inflate import (
    DeflateMean,
    DeflateNewest,
    InflateMean,
    InflateNewest,
    inflate,
    inflate_mean_of,
    inflate_newest_of,
)
from weightkit.shape_ops.interpolate import Interpolate, interpolate, interpolate_of
from weightkit.shape_ops.join import Concat, Split, Stack, Unstack, concat_of, split_of, stack_of, unstack_of
from weightkit.shape_ops.literals import Literals
from weightkit.shape_ops.pad import Pad, Unpad, pad, pad_of
from weightkit.shape_ops.rearrange import (
    AxisView,
    Permute,
    ReorderBlocks,
    Reshape,
    axis_view_of,
    permute_of,
    reorder_blocks_of,
    reshape_of,
    transpose,
    transpose_of,
)
from weightkit.shape_ops.sum_blocks import SumBlocks, sum_blocks, sum_blocks_of
from weightkit.shape_ops.take import Shrink, Slice, TakeNewest, shrink_of, slice_entries, slice_of, take, take_newest_of

OPS: dict[str, type[Any]] = {
    "permute": Permute,
    "axis_view": AxisView,
    "reorder_blocks": ReorderBlocks,
    "reshape": Reshape,
    "concat": Concat,
    "split": Split,
    "stack": Stack,
    "unstack": Unstack,
    "copy": Copy,
    "same": Same,
    "pad": Pad,
    "unpad": Unpad,
    "inflate:newest": InflateNewest,
    "deflate:newest": DeflateNewest,
    "inflate:mean": InflateMean,
    "deflate:mean": DeflateMean,
    "cast": Cast,
    "cast:back": CastBack,
    "fill": Fill,
    "unfill": Unfill,
    "slice": Slice,
    "shrink": Shrink,
    "take:newest": TakeNewest,
    "sum_blocks": SumBlocks,
    "interpolate": Interpolate,
}
"""Name of an op in a plan -> the op; its parameters are its fields. An op that takes another back has that op's."""

OP_KINDS: dict[str, OpKind] = {
    "permute": permute_of,
    "transpose": transpose_of,
    "axis_view": axis_view_of,
    "reorder_blocks": reorder_blocks_of,
    "reshape": reshape_of,
    "concat": concat_of,
    "split": split_of,
    "stack": stack_of,
    "unstack": unstack_of,
    "copy": copy_of,
    "same": same_of,
    "pad": pad_of,
    "inflate:newest": inflate_newest_of,
    "inflate:mean": inflate_mean_of,
    "cast": cast_of,
    "slice": slice_of,
    "shrink": shrink_of,
    "take:newest": take_newest_of,
    "sum_blocks": sum_blocks_of,
    "interpolate": interpolate_of,
}
"""What a rule of a mapping file can say -> what makes an op of it."""

JOINS = frozenset({"concat", "stack", "same"})
"""The kinds that make one tensor of several."""

PARTS = frozenset({"split", "unstack", "copy"})
"""The kinds that make several tensors of one."""

ADAPTERS: dict[str, AdapterKind] = {
    "inflate": inflate,
    "pad": pad,
    "slice": slice_entries,
    "take": take,
    "sum_blocks": sum_blocks,
    "cast": cast,
    "transpose": transpose,
    "interpolate": interpolate,
}
"""Adapter kind -> what finds its ops. ``--adapt PATTERN=KIND:CHOICE`` names one."""

ADAPTER_FORMS: tuple[str, ...] = (
    "inflate:newest",
    "inflate:mean",
    "pad:end",
    "pad:block",
    "pad:FACTOR",
    "slice:first",
    "slice:last",
    "slice:A:B",
    "slice:FACTOR",
    "take:newest",
    "sum_blocks",
    "cast:DTYPE",
    "transpose",
    "interpolate:linear",
    "interpolate:nearest",
)
"""What a user can type after ``--adapt PATTERN=``."""

ALWAYS = frozenset({"transpose"})
"""The adapter kinds that apply where the shapes agree already, too: no shape could say that they are needed."""


def op_of(call: OpCall) -> ShapeOp:
    """The op that a plan's line stands for. Raises ValueError, in words, for what is no op: users write plans too."""
    name, params = call.name, call.params
    if not isinstance(name, str) or name not in OPS:
        raise ValueError(f"unknown op {repr(name)[:60]}; known: {', '.join(OPS)}")
    if not isinstance(params, Mapping):
        raise ValueError(f"{name}: its parameters must be an object of names and values")
    wanted = fields(OPS[name])
    given = Literals(name, params, tuple(each.name for each in wanted))
    read = {"int": given.integer, "str": given.text, "float": given.real, "tuple[int, ...]": given.integers}
    op: ShapeOp = OPS[name](**{each.name: read[str(each.type)](each.name) for each in wanted})
    return op


__all__ = [
    "ADAPTERS",
    "ADAPTER_FORMS",
    "ALWAYS",
    "JOINS",
    "OPS",
    "OP_KINDS",
    "PARTS",
    "AdapterKind",
    "OpKind",
    "ShapeOp",
    "as_call",
    "op_of",
]
