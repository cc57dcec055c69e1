"""A draft mapping from a checkpoint to a layout or to what another file holds: a proposal, never applied by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.core.report import Finding, Report, Severity
from weightkit.engine._suggestion_draft import draft_mapping
from weightkit.engine.suggestion import Suggested, Suggestion, suggest_pairs
from weightkit.errors import ConfigError, UnsafeContent, UsageError
from weightkit.formats import open_checkpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from weightkit.architectures.base import Architecture
    from weightkit.core.checkpoint import Checkpoint
    from weightkit.core.tensor import StateSpec
    from weightkit.formats import Limits

MOST_BYTES = 1 << 30
"""So many bytes of each file are read at most, to compare contents; the smallest tensors first."""


def suggest(
    source: str | os.PathLike[str],
    *,
    to: str | None = None,
    like: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    settings: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    values: bool = True,
) -> Report:
    """Which tensor of ``source`` is which of the layout ``to``, or of the file ``like``, with the text of a draft.

    ``config`` (a train_config.json) and ``settings`` say what net ``to`` means, where the source is not recognised.
    With ``like`` and ``values``, tensors that names leave open are read, up to `MOST_BYTES` of each file: equal content
    decides. Exit code 0 with a draft, 1 where nothing at all could be paired, 4 where another loader would execute
    something in one of the files: then no tensor is read. Raises FormatError, ConfigError, UsageError.
    """
    if (to is None) == (like is None):
        raise UsageError("suggest needs one target", hint="give --to LAYOUT, or --like FILE")
    if like is not None and (config is not None or settings):
        raise UsageError("--config_path and --set say what --to means", hint="leave them out with --like FILE")
    checkpoint = open_checkpoint(source) if limits is None else open_checkpoint(source, limits)
    other: Checkpoint | None = None
    notes: list[Finding] = []
    if like is not None:
        other = open_checkpoint(like) if limits is None else open_checkpoint(like, limits)
        target, goal = other.state, Path(like).name
    else:
        assert to is not None
        (target, notes), goal = _spec_of(to, checkpoint, config, settings or {}), to
    unsafe = "unsafe" in (checkpoint.verdict, other.verdict if other else None)
    suggestion = suggest_pairs(checkpoint.state, target)
    read: dict[str, int] = {"source": 0, "target": 0}
    if values and other is not None and not unsafe:
        suggestion, read = _with_contents(suggestion, checkpoint, other)
    layouts = (_layout_of(checkpoint) or Path(source).stem, to or Path(goal).stem)
    name = f"{layouts[0]}-to-{layouts[1]}"
    facts: dict[str, object] = {
        "source": {"path": checkpoint.path, "format": checkpoint.format, "tensors": len(checkpoint.state.unique())},
        "target": {"layout": to, "path": other.path if other else None, "tensors": len(target.unique())},
        "counts": _counts(suggestion),
        "pairs": [_fact(pair) for pair in suggestion.pairs if pair.standing != "ambiguous"],
        "ambiguous": [_fact(pair) for pair in suggestion.standing("ambiguous")],
        "unmatched_source": list(suggestion.left_sources),
        "unmatched_target": list(suggestion.left_targets),
        "bytes_compared": read,
        "draft": draft_mapping(suggestion, checkpoint.state, target, name=name, layouts=layouts),
    }
    findings = [
        finding
        for each in (checkpoint, other)
        if each is not None
        for finding in each.findings
        if finding.severity is not Severity.INFO
    ]
    findings += [*notes, *_findings(suggestion)]
    return Report("suggest", tuple(findings), facts, UnsafeContent.exit_code if unsafe else int(not suggestion.pairs))


def _spec_of(
    layout: str, checkpoint: Checkpoint, config: str | os.PathLike[str] | None, settings: Mapping[str, str]
) -> tuple[StateSpec, list[Finding]]:
    """The tensors of ``layout``, of the net that the configuration or the recognised source describes; and a note where
    neither does."""
    from weightkit.architectures import architecture_of_layout
    from weightkit.architectures.routes import find_route

    architecture = architecture_of_layout(layout)
    chosen = _configuration(architecture, checkpoint, config)
    notes = []
    if chosen is None:
        chosen = architecture.default_config()
        message = f"nobody says what {layout!r} should look like here: its default configuration is taken"
        notes.append(Finding("WK404", Severity.WARNING, layout, message, "give --config_path train_config.json"))
    wanted = architecture.configure(chosen, settings) if settings else chosen
    route = find_route(architecture, architecture.name, layout, source_config=None, target_config=wanted, options={})
    return route.target.state, notes


def _configuration(architecture: Architecture, checkpoint: Checkpoint, config: str | os.PathLike[str] | None) -> Any:
    if config is not None:
        from weightkit.verbs.configure import architecture_of_config, read_train_config

        root = read_train_config(Path(config))
        stated = architecture_of_config(root)
        if stated.name != architecture.name:
            raise ConfigError(f"{root.origin}: it describes {stated.name!r}, the target is of {architecture.name!r}")
        return architecture.config_from_train_config(root)
    from weightkit.architectures import recognise

    known = recognise(checkpoint)
    return known.config if known is not None and known.architecture == architecture.name else None


def _layout_of(checkpoint: Checkpoint) -> str:
    from weightkit.architectures import recognise

    known = recognise(checkpoint)
    return "" if known is None else known.layout


def _with_contents(
    suggestion: Suggestion, checkpoint: Checkpoint, other: Checkpoint
) -> tuple[Suggestion, dict[str, int]]:
    """The suggestion again, with the contents of what names do not settle."""
    sources: set[str] = set()
    targets: set[str] = set()
    for pair in suggestion.pairs:
        if pair.standing != "sure" or "same name" not in pair.evidence:
            sources.add(pair.source)
            targets.update(name for name in (pair.target, *pair.candidates) if name)
    sources.update(suggestion.left_sources)
    targets.update(suggestion.left_targets)
    here, size_here = _digests(checkpoint, sources)
    there, size_there = _digests(other, targets)
    if here and there:
        suggestion = suggest_pairs(checkpoint.state, other.state, source_digests=here, target_digests=there)
    return suggestion, {"source": size_here, "target": size_there}


def _digests(checkpoint: Checkpoint, names: Iterable[str]) -> tuple[dict[str, str], int]:
    """Digests of tensors by first name, and the bytes read; none of a tensor whose elements are all equal."""
    from weightkit.digest import tensor_digest

    state = checkpoint.state
    wanted = sorted({state.canonical(name) for name in names}, key=lambda name: (state[name].nbytes, name))
    digests: dict[str, str] = {}
    total = 0
    for name in wanted:
        spec = state[name]
        if spec.numel < 2 or name in checkpoint.not_dense or spec.dtype.name == "complex32":
            continue
        if total + spec.nbytes > MOST_BYTES:
            break
        array = checkpoint.read(name)
        total += spec.nbytes
        if (array != array.reshape(-1)[0]).any():
            digests[name] = tensor_digest(array, dtype=spec.dtype.name)
    return digests, total


def _counts(suggestion: Suggestion) -> dict[str, int]:
    standings = {name: len(suggestion.standing(name)) for name in ("sure", "unsure", "ambiguous")}
    return {
        **standings,
        "unmatched_source": len(suggestion.left_sources),
        "unmatched_target": len(suggestion.left_targets),
    }


def _fact(pair: Suggested) -> dict[str, object]:
    return {
        "source": pair.source,
        "target": pair.target,
        "confidence": round(pair.confidence, 3),
        "standing": pair.standing,
        "evidence": list(pair.evidence),
        "candidates": list(pair.candidates),
        "adapters": list(pair.adapters),
    }


def _findings(suggestion: Suggestion) -> list[Finding]:
    """What stands in the way of using the draft as it is."""
    note = "no source tensor was found for it"
    findings = [Finding("WK202", Severity.WARNING, name, note) for name in suggestion.left_targets]
    note = "no target was found for it: drop it with a reason, or name its target"
    findings += [Finding("WK201", Severity.WARNING, name, note) for name in suggestion.left_sources]
    for pair in suggestion.standing("sure"):
        if pair.adapters:
            ways = " or ".join(f"--adapt '{pair.target}={way}'" for way in pair.adapters)
            findings.append(Finding("WK204", Severity.INFO, pair.target, f"{pair.source} needs an adapter", ways))
    return findings
