"""Shapes that differ, and the adapters that the user named for them."""

from __future__ import annotations

from collections.abc import Sequence

from weightkit.core.axes import FactoredAxis
from weightkit.core.dtype import DTYPES
from weightkit.core.plan import OpCall
from weightkit.core.report import Finding, Severity
from weightkit.core.rule import Adapter, Choices
from weightkit.core.tensor import TensorSpec
from weightkit.engine.matching import first_glob
from weightkit.errors import UsageError
from weightkit.shape_ops import ADAPTER_FORMS, ADAPTERS, ALWAYS, as_call

Axes = Sequence[FactoredAxis]
_OF_FRAMES = ("inflate", "take", "sum_blocks")
_LEAST_RANK_OF_A_GRID = 3
"""Of what is worth resampling: positions x features with a batch in front, or rows x columns x features."""


class Reconciler:
    """Finds the ops from what there is to what is wanted; what stands in the way goes into ``findings``."""

    def __init__(self, choices: Choices, findings: list[Finding]) -> None:
        self._choices = choices
        self._findings = findings
        self.always = any(adapter.kind in ALWAYS for adapter in choices.adapt)
        """Whether an adapter may apply although nothing differs."""

    def ops(
        self, source: TensorSpec, goal: str, wanted: TensorSpec, axes: Axes
    ) -> tuple[tuple[OpCall, ...], tuple[str, ...]]:
        """The ops from ``source`` to ``wanted`` and the adapters that asked for them; empty where there are none."""
        named = [adapter for adapter in self._choices.adapt if first_glob(goal, (adapter.pattern,))]
        shaping = list(dict.fromkeys(str(adapter) for adapter in named if adapter.kind != "cast"))
        reason = ""
        if len(shaping) > 1 and source.shape != wanted.shape:
            named, reason = [], f"{' and '.join(sorted(shaping))} are both named for it: name one"
        spec = source
        ops: list[OpCall] = []
        used: list[str] = []
        for adapter in named:
            same = spec.dtype == wanted.dtype if adapter.kind == "cast" else spec.shape == wanted.shape
            if same and adapter.kind not in ALWAYS:
                continue
            try:
                found = ADAPTERS[adapter.kind](spec, wanted, axes, adapter.choice)
                for op in found:
                    (spec,) = op.infer((spec,))
            except ValueError as error:
                reason = f"{adapter} does not fit: {error}"
                continue
            ops += map(as_call, found)
            used.append(str(adapter))
        if spec != wanted:
            why = f"; {reason}" if reason else ""
            code = "WK205" if reason else "WK204"
            message = f"the source has {source}, the target wants {wanted}{why}"
            self._error(code, goal, message, _choices_for(source, wanted, axes))
            return (), ()
        self.check_lossy(goal, ops, f"{source} -> {wanted} by ")
        return tuple(ops), tuple(used)

    def check_lossy(self, goal: str, ops: Sequence[OpCall], what: str = "") -> None:
        """Note every op that loses information, unless the user said that this may be."""
        for call in ops:
            if call.op_class == "LOSSY" and not self._choices.allow_lossy:
                message = f"{what}{call} loses information ({call.preserves})"
                self._error("WK208", goal, message, "if you mean it: --allow-lossy")

    def _error(self, code: str, subject: str, message: str, hint: str) -> None:
        self._findings.append(Finding(code, Severity.ERROR, subject, message, hint))


def _choices_for(source: TensorSpec, wanted: TensorSpec, axes: Axes) -> str:
    """Which adapters would fit, as the user would type them."""
    fitting = [f"cast:{wanted.dtype}"] if source.dtype != wanted.dtype else []
    shaped = TensorSpec(source.dtype, wanted.shape)
    for form in _forms(axes):
        kind, _, choice = form.partition(":")
        if kind == "interpolate" and len(wanted.shape) < _LEAST_RANK_OF_A_GRID:
            continue
        try:
            spec = source
            for op in ADAPTERS[kind](source, shaped, axes, choice):
                (spec,) = op.infer((spec,))
        except ValueError:
            continue
        if spec == shaped and source.shape != wanted.shape:
            fitting.append(form)
    frames = [form for form in fitting if form.partition(":")[0] in _OF_FRAMES]
    if frames:  # whole frames more or less: of what else has the right shape only longer frames can be meant
        casts = [form for form in fitting if form.startswith("cast:")]
        fitting = [*casts, *frames, *(form for form in fitting if form == "pad:block")]
    if fitting:
        return "choose how to reconcile it: " + ", or ".join(f"--adapt 'PATTERN={form}'" for form in fitting)
    return "no adapter fits: give the target the source's configuration, or --drop PATTERN and --allow-missing PATTERN"


def _forms(axes: Axes) -> list[str]:
    """The forms that can be tried as they stand, with the names of the factors that there are."""
    factors = dict.fromkeys(factor.name for axis in axes for block in axis.blocks for factor in block)
    forms: list[str] = []
    for form in ADAPTER_FORMS:
        if form.endswith(":FACTOR"):
            forms += [form.replace("FACTOR", name) for name in factors]
        elif form not in ("cast:DTYPE", "slice:A:B"):
            forms.append(form)
    return forms


def parse_adapter(text: str) -> Adapter:
    """``"PATTERN=KIND:CHOICE"`` as an Adapter. Raises UsageError that lists the kinds."""
    pattern, sign, kind = text.rpartition("=")
    name, _, choice = kind.partition(":")
    if not sign or not pattern or name not in ADAPTERS:
        raise UsageError(f"--adapt {text!r}: expected PATTERN=ADAPTER", hint=f"adapters: {', '.join(ADAPTER_FORMS)}")
    if name == "cast" and choice not in DTYPES:
        raise UsageError(f"--adapt {text!r}: there is no element type {choice!r}", hint=f"known: {', '.join(DTYPES)}")
    return Adapter(pattern, name, choice)
