"""The one bridge between an nn.Module and the core types."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from weightkit.core.dtype import DType, dtype_named
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.errors import SyncError

if TYPE_CHECKING:
    import numpy as np


def dtype_of(tensor: Tensor) -> DType:
    """The core name of a tensor's element type."""
    return dtype_named(str(tensor.dtype).removeprefix("torch."))


def spec_of(tensor: Tensor) -> TensorSpec:
    """Element type and shape of a tensor."""
    return TensorSpec(dtype_of(tensor), tuple(tensor.shape))


def canonical_name(name: str) -> str:
    """``name`` without the segments that torch.compile and DataParallel put in."""
    segments = [s for s in name.split(".") if s != "_orig_mod"]
    while len(segments) > 1 and segments[0] == "module":
        segments = segments[1:]
    return ".".join(segments)


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and persistent buffer under its canonical name, aliases included, in state_dict order."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            yield canonical_name(name), tensor


def storage_identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two tensors exactly where they are the same view of one storage."""
    if tensor.numel() == 0 or tensor.is_meta or not Tensor.data_ptr(tensor):
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def state_spec(module: nn.Module) -> StateSpec:
    """The StateSpec of a module: equals its ``state_dict()``; names that share one tensor are aliases of the first."""
    tensors: dict[str, TensorSpec] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in named_tensors(module):
        tensors[name] = spec_of(tensor)
        leader = first.setdefault(storage_identity(tensor), name)
        if leader != name:
            aliases[name] = leader
    return StateSpec(tensors, aliases)


def load_state(module: nn.Module, arrays: Mapping[str, np.ndarray], *, leave: Collection[str] = frozenset()) -> None:
    """Put ``arrays`` into the module, all or none; only the names in ``leave`` may keep their values.

    Raises SyncError, naming them, for missing, extra or misshapen names.
    """
    spec = state_spec(module)
    own = dict(named_tensors(module))
    missing = [name for name in spec.unique() if name not in arrays and name not in leave]
    extra = [name for name in arrays if name not in own]
    wrong = [
        f"{name}: {list(arrays[name].shape)} for {list(own[name].shape)}"
        for name in arrays
        if name in own and tuple(arrays[name].shape) != tuple(own[name].shape)
    ]
    if missing or extra or wrong:
        raise SyncError(
            "the weights do not fit the policy, nothing was loaded"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(extra)}" if extra else "")
            + (f"; other shape: {'; '.join(wrong)}" if wrong else "")
        )
    with torch.no_grad():
        for name in arrays:
            own[name].copy_(as_tensor(arrays[name]))


def as_tensor(array: np.ndarray) -> Tensor:
    """The tensor of a numpy array; bfloat16 and float8 arrays (ml_dtypes) too, which torch does not take itself."""
    name = array.dtype.name
    if name in {"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}:
        raw = torch.from_numpy(array.view("uint8" if array.itemsize == 1 else "int16").copy())
        return raw.view(getattr(torch, name))
    return torch.from_numpy(array)


def as_array(tensor: Tensor) -> np.ndarray:
    """The numpy array of a tensor, on the CPU; bfloat16 and float8 through ml_dtypes."""
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        raw: np.ndarray = tensor.view(torch.int16 if tensor.element_size() == 2 else torch.uint8).numpy()
        return raw.view(getattr(ml_dtypes, name))
    array: np.ndarray = tensor.numpy()
    return array
