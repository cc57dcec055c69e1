"""Conversions for the page: plain ones, mixed ones, refused ones, very many tensors, and names that are attacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Adapter, Choices, identity_mapping
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.planning import make_plan
from weightkit.engine.statistics import histogram
from weightkit.errors import PlanError
from weightkit.reporting.page import convert_page

HOSTILE = "</script><img src=x onerror=alert(1)>\u202egnp.\x1b[31m'\"&{{7*7}}"


def state(**shapes: tuple[int, ...]) -> StateSpec:
    return StateSpec({name.replace("__", "."): spec("float32", *shape) for name, shape in shapes.items()})


def plan_of(source: StateSpec, target: StateSpec, **choices: Any) -> Plan:
    return make_plan(source, ConversionTarget("net", target), identity_mapping("net"), Choices(**choices))


def facts_of(plan: Plan, **more: Any) -> dict[str, Any]:
    """What a convert Report has of a plan that was carried out."""
    rows = [
        {
            "target": name, "sources": list(step.sources), "ops": [str(op) for op in step.ops], "class": step.op_class,
            "rule": step.rule, "digest": f"{place:032x}", "source_digests": [f"{place:032x}" for _ in step.sources],
        }
        for place, step in enumerate(plan.steps)
        for name in step.targets
    ]  # fmt: skip
    return {
        "path": "a.pt", "out": "b.pt", "plan": None, "target_layout": "net", "source_tensors": len(plan.source),
        "target_tensors": len(plan.target), "used": sum(len(step.sources) for step in plan.steps), "rows": rows,
        "second_names": dict(plan.second_names), "dropped": dict(plan.dropped), "left_out": dict(plan.left_out),
        "repeated": dict(plan.repeated), "plan_digest": "d" * 64, "config": None, "class": plan.op_class,
        "strictness": plan.strictness, **more,
    }  # fmt: skip


def page_of(plan: Plan, *findings: Finding, arrays: Any = None, command: str = "", **facts: Any) -> bytes:
    histograms = {name: histogram(array) for name, array in (arrays or {}).items()}
    report = Report("convert", findings, facts_of(plan, **facts))
    return convert_page(report, plan=plan, histograms=histograms, command=command)


def refused(source: StateSpec, target: StateSpec, **choices: Any) -> tuple[Report, Plan | None]:
    """The Report of a plan that does not hold, and the plan as far as it came."""
    try:
        plan_of(source, target, **choices)
    except PlanError as error:
        facts = {"path": "a.pt", "out": None, "target_layout": "net", "message": error.message}
        return Report("convert", error.report.findings, facts, 1), error.attempt
    raise AssertionError("the plan holds")


SOURCE = state(
    encoder__w=(4, 3), encoder__b=(4,), actor__w=(2, 4), actor__b=(2,), critic__w=(1, 4), critic__b=(1,), old=(9,)
)
MIXED_TARGET = state(
    encoder__w=(4, 9), encoder__b=(4,), actor__w=(2, 4), actor__b=(2,), critic__w=(1, 4), critic__b=(1,), new=(5,)
)
MIXED = plan_of(
    SOURCE,
    MIXED_TARGET,
    adapt=(Adapter("encoder.w", "pad", "end"),),
    drop=("old",),
    allow_missing=("new",),
)
PLAIN = plan_of(state(a__w=(2, 3), b__w=(4,)), state(a__w=(2, 3), b__w=(4,)))


def mixed_page() -> bytes:
    """A conversion in which something is adapted, dropped and left out."""
    generator = np.random.default_rng(1)
    return page_of(
        MIXED, arrays={name: generator.normal(size=found.shape) for name, found in MIXED.target.tensors.items()}
    )


def refused_page() -> bytes:
    """The same without the choices that it needs."""
    report, attempt = refused(SOURCE, MIXED_TARGET)
    return convert_page(report, plan=attempt)


def large_page(count: int = 2000) -> bytes:
    """Very many tensors, of which one is dropped."""
    shapes = {f"model.layers.{n // 20}.part{n % 20}.weight": (64, 8) for n in range(count)}
    plan = plan_of(state(**shapes, extra=(3,)), state(**shapes), drop=("extra",))
    return page_of(plan, arrays={"model.layers.0.part0.weight": np.linspace(-1, 1, 512)})


def hostile_page() -> bytes:
    """Everything that may come from a file is an attack."""
    source = StateSpec({HOSTILE: spec("float32", 2), HOSTILE * 30: spec("float32", 3), "ok": spec("float32")})
    target = StateSpec({name: found for name, found in source.tensors.items() if name != "ok"})
    plan = plan_of(source, target, drop=("ok",))
    keys = ("path", "out", "target_layout", "source_layout", "mapping", "architecture")
    facts: Any = dict.fromkeys(keys, HOSTILE)
    check = {
        "verdict": "equal", "why": HOSTILE, "domain": HOSTILE, "probes": 3, "atol": 1e-5, "outputs": {HOSTILE: 0.0},
        "controls": {HOSTILE: 1.0},
    }  # fmt: skip
    finding = Finding("WK207", Severity.INFO, HOSTILE, HOSTILE, HOSTILE)
    return page_of(
        plan, finding, command=HOSTILE.replace("\x1b", "").replace("\u202e", ""), config={HOSTILE: [HOSTILE]},
        carried=[HOSTILE], not_carried=[HOSTILE], function_check=check, **facts,
    )  # fmt: skip
