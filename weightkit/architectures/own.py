"""Files that weightkit wrote: what they are stands beside their tensors, in whatever layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightkit.architectures import architecture_name_of, architecture_named, is_layout, layout_named
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.section import Section
from weightkit.errors import ConfigError

CONFIG, POLICY, BESIDE = "config", "policy", "beside"
"""Keys of a file's metadata. ``config``: the configuration of a file in the architecture's own layout; ``policy``: the
layout of any other, with the configuration and the layout's options; ``beside``: what goes along with the policy."""


def own_metadata(
    config: Mapping[str, object] | None, layout: str, options: Mapping[str, str], beside: Mapping[str, object]
) -> dict[str, object]:
    """What is written beside the tensors so that `recognise_own` knows them again."""
    if config is None:
        return {}
    found: dict[str, object] = {BESIDE: dict(beside)} if beside else {}
    if layout == config.get("type"):
        return {CONFIG: dict(config), **found}
    return {POLICY: {"layout": layout, "options": dict(options), "config": dict(config)}, **found}


def recognise_own(checkpoint: Checkpoint) -> Recognition | None:
    """What weightkit says of a file that it wrote, None where it wrote no policy."""
    document = checkpoint.metadata.get(POLICY)
    where = f"$.{POLICY}.{CONFIG}"
    if not isinstance(document, dict):
        document = {"config": checkpoint.metadata.get(CONFIG)}
        where = f"$.{CONFIG}"
    values = document.get("config")
    name = values.get("type") if isinstance(values, dict) else None
    layout = document.get("layout", name)
    if not isinstance(values, dict) or "input_features" in values:  # a copy of LeRobot's own, which says what it is
        return None
    if not isinstance(name, str) or not is_layout(str(layout)):
        return None
    if architecture_name_of(str(layout)) != name:
        return None
    architecture = architecture_named(str(name))
    config: Any = None
    findings: tuple[Finding, ...] = ()
    try:
        config = architecture.config_from_dict(Section(values, checkpoint.path, where))
    except ConfigError as error:
        findings = (Finding("WK107", Severity.ERROR, "config", error.message, "give --config_path train_config.json"),)
    found = layout_named(str(layout))
    evidence = f"its metadata holds the configuration of a {name} policy, written by weightkit"
    options, beside = document.get("options"), checkpoint.metadata.get(BESIDE)
    return Recognition(
        str(name),
        str(layout),
        found.title if found is not None else architecture.title,
        "certain",
        (evidence,),
        config,
        findings,
        {str(k): str(v) for k, v in options.items()} if isinstance(options, dict) else {},
        beside if isinstance(beside, dict) else {},
    )
