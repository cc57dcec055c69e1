"""The way from one layout of an architecture to another: what must come out, and how names change."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as NameMap
from dataclasses import dataclass, replace
from typing import Any

from weightkit.architectures import layout_named
from weightkit.architectures.base import Architecture, Conventions, Inputs
from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Fate, Mapping, identity_mapping
from weightkit.engine.matching import TemplateIndex
from weightkit.engine.turning import NameOf, backwards, joined, layout_target, same_name

_ZEROS = "layout {!r} has it and the net does not: zeros"


@dataclass(frozen=True, slots=True)
class Route:
    """``target`` is what must come out, for the net that ``config`` describes; ``mapping`` leads there.

    ``inputs`` is what that net looks at, frames and channels apart where the layout counts them as one.
    """

    target: ConversionTarget
    mapping: Mapping
    config: Any
    inputs: Inputs


def find_route(
    architecture: Architecture,
    source_layout: str,
    target_layout: str,
    *,
    source_config: Any,
    target_config: Any,
    options: NameMap[str, str],
) -> Route:
    """The way from ``source_layout`` to ``target_layout``.

    ``source_config`` describes the net of the source, None where that is not known. ``options`` are settings of the
    target layout. Raises PlanError for a net that the target layout cannot express, UsageError for an option.
    """
    source, layout = layout_named(source_layout), layout_named(target_layout)
    config = target_config if layout is None else layout.fitted(target_config)
    inputs = architecture.inputs(target_config)
    native = replace(architecture.target(config), axes=architecture.target(target_config).axes)
    known = config if source_config is None else source_config
    there = architecture.target(known)
    mapping = identity_mapping(architecture.name) if source is None else source.mapping(known)
    if layout is None and there.state.aliases == native.state.aliases:
        return Route(native, mapping, config, inputs)
    source_name: NameOf = same_name if source is None else backwards(mapping, there.lists)
    drops = _drops(mapping, source_layout)
    if layout is None:
        rules = joined(drops, there.state, source_name, native, native.state, same_name, {})
        return Route(native, rules, config, inputs)
    back = layout.mapping(config, options)
    extras = layout.extras(config, options)
    target = layout_target(native, back, extras, target_layout)
    target_name = backwards(back, native.lists)
    reasons = _reasons(back, extras, target_layout)
    rules = joined(drops, there.state, source_name, target, native.state, target_name, reasons)
    return Route(target, rules, config, inputs)


def native_names(architecture: Architecture, layout: str, config: Any) -> NameOf:
    """What gives a tensor of the net its name in ``layout``."""
    found = layout_named(layout)
    return same_name if found is None else backwards(found.mapping(config), architecture.target(config).lists)


def groups_by_name(architecture: Architecture, layout: str, config: Any) -> Callable[[str], str]:
    """What gives the group of a tensor of ``layout``: that of the net's own tensor, whatever the project calls it."""
    native = architecture.target(config)
    name_of = native_names(architecture, layout, config)
    groups = {name_of(name): architecture.group_of(name) for name in native.state}
    return lambda name: groups.get(name) or architecture.group_of(name)


def conventions_of(architecture: Architecture, layout: str, config: Any) -> Conventions:
    """What the project behind ``layout`` hands to the net and takes from it."""
    found = layout_named(layout)
    return architecture.conventions(config) if found is None else found.conventions(config)


def _drops(mapping: Mapping, layout: str) -> Mapping:
    """The mapping without its renamings: the identity of the net's own layout has none to keep."""
    rules = tuple(rule for rule in mapping.rules if rule.fate is Fate.DROP)
    return replace(mapping, rules=rules, source_layout=layout)


def _reasons(mapping: Mapping, extras: NameMap[str, object], layout: str) -> dict[str, str]:
    """Why each tensor that the net does not have starts as zeros: what the mapping says when it drops it."""
    drops = [(template, rule) for rule in mapping.rules if rule.fate is Fate.DROP for template in rule.sources]
    index = TemplateIndex(drops, mapping.lists)
    found = {}
    for name in extras:
        hits = index.find(name)
        found[name] = f"zeros: {hits[0][0].why}" if hits else _ZEROS.format(layout)
    return found
