"""Planning works on names, shapes and dtypes: it loads neither numpy nor torch, nor does any op's infer."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Adapter, Choices, Mapping, Rule, RuleOp, renaming
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine import (
    forecast, generalisation, inversion, joining, lint, matching, overlap, planning, reconciling, saved_plan,
    suggestion, wrappers,
)
from weightkit.shape_ops import OP_KINDS, OPS, op_of
from weightkit.core.jsonio import canonical_json

T = parse_template
rules = (
    renaming("same", T("a.{p:name}"), T("b.{p:name}")),
    Rule("qkv", (T("q"), T("k")), (T("qk"),), (RuleOp("concat", {"axis": 0}), RuleOp("transpose"))),
    Rule("moe", (T("e.{i}"),), (T("e"),), (RuleOp("stack", {"axis": 0}, "i"), RuleOp("cast", {"to": "float64"}))),
)
source = StateSpec({
    "a.w": spec("float32", 2, 3), "q": spec("float32", 2, 3), "k": spec("float32", 1, 3),
    "e.0": spec("float32", 2), "e.1": spec("float32", 2),
})
target = StateSpec({"b.w": spec("float32", 2, 5), "qk": spec("float32", 3, 3), "e": spec("float64", 2, 2)})
mapping = Mapping("m", 1, "a", "b", rules)
choices = Choices(adapt=(Adapter("b.w", "pad", "end"),))
plan = planning.make_plan(source, ConversionTarget("b", target), mapping, choices)
assert saved_plan.read_plan(canonical_json(plan.to_dict()), origin="here").digest == plan.digest
assert inversion.invert_plan(plan).steps
assert forecast.peak_bytes(plan) > 0
assert not lint.lint(mapping)
for step in plan.steps:
    specs = step.source_specs
    for call in step.ops:
        specs = op_of(call).infer(specs)
    assert specs == step.target_specs
heavy = {"numpy", "torch", "ml_dtypes"} & set(sys.modules)
sys.exit(f"planning loaded {heavy}" if heavy else 0)
"""


def test_planning_and_infer_load_neither_numpy_nor_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
