"""What a checkpoint file holds, without executing anything in it."""

from __future__ import annotations

from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable
from weightkit.errors import UnsafeContent, UsageError
from weightkit.formats import open_checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any

    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint
    from weightkit.core.tensor import StateSpec
    from weightkit.formats import Limits

FAIL_ON = ("nan", "inf", "zero", "constant")
"""What ``fail_on`` may name."""
_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")
_OPTIMIZER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "acc_delta")
_BUFFERS_BY_NAME = frozenset((*_BATCH_NORM, *_OPTIMIZER))
_BUFFERS_OF_LAYOUT = {"robobase-drqv2": "hidden_state"}
"""Layout -> last segment of the tensors that its nets register as buffers."""
_DEEPEST_WRAPPER = 16
_MOST_WRAPPERS = 50
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DataParallel, DistributedDataParallel or an averaged model",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
_MOST_VALUES = 16
"""Normalisation statistics of no more elements than this are given whole."""


def inspect(
    path: str | os.PathLike[str],
    *,
    stats: bool = False,
    fail_on: Iterable[str] = (),
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Every tensor of the file, what policy it is and how sure that is. Raises FormatError for an unreadable file.

    ``stats`` reads every tensor once and adds what its numbers are like. ``fail_on`` names what no tensor may hold:
    "nan", "inf", or that all its elements are "zero", or more than one and all equal, "constant"; it implies
    ``stats``. ``progress`` is told the bytes that are done, and all, after each tensor.

    Exit code 4 where another loader would execute something in the file: the tensors are listed all the same. Else 1
    where ``fail_on`` found something. Raises UsageError for an unknown word in ``fail_on``.
    """
    unwanted = tuple(dict.fromkeys(fail_on))
    unknown = [word for word in unwanted if word not in FAIL_ON]
    if unknown:
        known = ", ".join(FAIL_ON)
        raise UsageError(f"--fail-on {','.join(unwanted)}: there is no {unknown[0]!r}", hint=f"known: {known}")
    checkpoint = open_checkpoint(path) if limits is None else open_checkpoint(path, limits)
    from weightkit.architectures import recognise

    report = report_on(checkpoint, recognise(checkpoint))
    if stats or unwanted:
        return _with_statistics(report, checkpoint, unwanted, progress)
    return report


def report_on(checkpoint: Checkpoint, recognition: Recognition | None) -> Report:
    """The inspect Report of an opened checkpoint."""
    state = checkpoint.state
    aliases = state.aliases
    not_dense = checkpoint.not_dense
    group_of: Callable[[str], str] = first_segment
    if recognition is not None:
        from weightkit.architectures import grouping

        group_of = grouping(recognition.architecture)
    normalisation = _normalisation(state)
    buffers = _buffers(state, recognition, normalisation)
    not_parameters = set(buffers)
    groups: dict[str, dict[str, int]] = {}
    tensors: list[dict[str, Any]] = []
    for name, spec in state.tensors.items():
        shape = spec.shape
        numel = 1
        for extent in shape:
            numel *= extent
        nbytes = not_dense[name].nbytes if name in not_dense else numel * spec.dtype.itemsize
        group = group_of(name)
        alias_of = aliases.get(name)
        total = groups.get(group)
        if total is None:
            total = groups[group] = {"tensors": 0, "aliases": 0, "parameters": 0, "buffers": 0, "nbytes": 0}
        if alias_of is None:
            total["tensors"] += 1
            total["buffers" if name in not_parameters else "parameters"] += numel
            total["nbytes"] += nbytes
        else:
            total["aliases"] += 1
        tensors.append(
            {
                "name": name,
                "dtype": spec.dtype.name,
                "shape": list(shape),
                "nbytes": nbytes,
                "group": group,
                "alias_of": alias_of,
            }
        )
    if not_dense:
        for row in tensors:
            if row["name"] in not_dense:
                row["kind"] = not_dense[row["name"]].kind
    facts: dict[str, object] = {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "verdict": checkpoint.verdict,
        "root": checkpoint.root,
        "tensors": tensors,
        "groups": groups,
        "buffers": buffers,
        "normalisation": normalisation,
        "metadata": sorted(checkpoint.metadata),
        "architecture": None if recognition is None else architecture_facts(recognition),
    }
    findings = _findings(checkpoint, recognition)
    return Report("inspect", findings, facts, UnsafeContent.exit_code if checkpoint.verdict == "unsafe" else 0)


def architecture_facts(recognition: Recognition) -> dict[str, object]:
    """What was recognised, as JSON values."""
    return {
        "name": recognition.architecture,
        "layout": recognition.layout,
        "title": recognition.title,
        "confidence": recognition.confidence,
        "evidence": list(recognition.evidence),
        "config": None if recognition.config is None else recognition.config.to_dict(),
    }


def first_segment(name: str) -> str:
    """The group of a tensor of a net that no architecture knows."""
    return name.split(".", 1)[0]


def _findings(checkpoint: Checkpoint, recognition: Recognition | None) -> tuple[Finding, ...]:
    findings = list(checkpoint.findings)
    said = {finding.subject for finding in findings if finding.code == "WK109"}
    for name, why in checkpoint.not_dense.items():
        if printable(name, longest=len(name)) not in said:
            findings.append(Finding("WK109", Severity.WARNING, name, f"{why.kind}: {why.why}"))
    findings += wrapper_findings(checkpoint.state)
    if recognition is not None:
        findings += recognition.findings
    else:
        note, hint = "no architecture knows these tensors", "`weightkit layouts` lists those that are known"
        findings.append(Finding("WK107", Severity.INFO, checkpoint.path, note, hint))
    return tuple(findings)


def _buffers(state: StateSpec, recognition: Recognition | None, normalisation: list[dict[str, Any]]) -> list[str]:
    """The tensors that are no parameters, in the order of the file.

    Those are whole numbers and bools, which no gradient changes; BatchNorm's running statistics and an optimizer's
    moments, by their names; normalisation statistics; and what the recognised layout registers as a buffer.
    """
    by_name = _BUFFERS_BY_NAME
    if recognition is not None and recognition.layout in _BUFFERS_OF_LAYOUT:
        by_name = by_name | {_BUFFERS_OF_LAYOUT[recognition.layout]}
    scales = {name for one in normalisation for name in one["tensors"].values()}
    return [
        name
        for name, spec in state.tensors.items()
        if spec.dtype.kind in ("int", "uint", "bool") or name[name.rfind(".") + 1 :] in by_name or name in scales
    ]


def _normalisation(state: StateSpec) -> list[dict[str, Any]]:
    from weightkit.engine.normalisation import find_normalisation

    return find_normalisation(state)


def wrapper_findings(state: StateSpec) -> list[Finding]:
    """One WK114 note for each prefix that a wrapper of a module left in the names.

    ``module`` is an attribute's name too, so it is taken for a wrapper only where nothing stands beside it.
    """
    everything = ".".join(state.tensors)
    if not any(wrapper in everything for wrapper in _WRAPPERS):
        return []
    counts: dict[str, int] = {}
    beside: dict[str, set[str]] = {}
    for name in state.tensors:
        segments = name.split(".", _DEEPEST_WRAPPER)
        if not any(segment in _WRAPPERS for segment in segments[:-1]):
            continue
        for index, segment in enumerate(segments[:-1]):
            if segment in _WRAPPERS:
                prefix = ".".join(segments[: index + 1])
                counts[prefix] = counts.get(prefix, 0) + 1
    parents = {prefix.rpartition(".")[0] for prefix in counts if prefix.rpartition(".")[2] == "module"}
    for name in state.tensors if parents else ():
        segments = name.split(".", _DEEPEST_WRAPPER)
        for index, segment in enumerate(segments):
            parent = ".".join(segments[:index])
            if parent in parents:
                beside.setdefault(parent, set()).add(segment)
    findings = []
    for prefix, count in list(counts.items())[:_MOST_WRAPPERS]:
        parent, _, wrapper = prefix.rpartition(".")
        if wrapper == "module" and not _is_averaged(beside[parent]):
            continue
        message = f"{count} name{'' if count == 1 else 's'} below it: {_WRAPPERS[wrapper]} wraps a module so"
        hint = "the same module without its wrapper has these names without this segment"
        findings.append(Finding("WK114", Severity.INFO, f"{prefix}.", message, hint))
    return findings


def _is_averaged(segments: set[str]) -> bool:
    """Whether ``module`` stands alone, but for the counter of torch's AveragedModel."""
    return segments <= {"module", "n_averaged"}


def _with_statistics(
    report: Report,
    checkpoint: Checkpoint,
    unwanted: tuple[str, ...],
    progress: Callable[[int, int], None] | None,
) -> Report:
    """``report`` with what each tensor's numbers are like; one tensor is in memory at a time."""
    from weightkit.engine.statistics import numbers, statistics

    facts = dict(report.facts)
    findings = list(report.findings)
    rows: list[dict[str, Any]] = facts["tensors"]  # type: ignore[assignment]
    normalisation: list[dict[str, Any]] = facts["normalisation"]  # type: ignore[assignment]
    wanted = {checkpoint.state.canonical(name) for one in normalisation for name in one["tensors"].values()}
    values: dict[str, list[float]] = {}
    tensors = []
    everything = sum(row["nbytes"] for row in rows if row["alias_of"] is None)
    done = unseen = seen = 0
    broken = False
    for row in rows:
        name = row["name"]
        if row["alias_of"] is not None or "kind" in row or checkpoint.state[name].dtype.name == "complex32":
            if row["alias_of"] is None:
                unseen += 1
                if unwanted:
                    broken = True
                    message = "it could not be looked at: it is not dense numbers"
                    findings.append(Finding("WK110", Severity.ERROR, name, message))
                if "kind" not in row:
                    message = "numpy has no complex32: its numbers are not looked at"
                    findings.append(Finding("WK109", Severity.WARNING, name, message))
            tensors.append(row)
            continue
        array = checkpoint.read(name)
        found = statistics(array)
        tensors.append({**row, "stats": found})
        if name in wanted:
            values[name] = numbers(array)
        for message in _unwanted(found, unwanted, row["shape"]):
            broken = True
            findings.append(Finding("WK110", Severity.ERROR, name, message))
        seen += 1
        done += row["nbytes"]
        if progress is not None:
            progress(done, everything)
    facts["tensors"] = tensors
    facts["looked_at"] = {"tensors": seen, "not_read": unseen, "fail_on": list(unwanted)}
    facts["normalisation"] = [_with_values(one, values, checkpoint.state, findings) for one in normalisation]
    return Report("inspect", tuple(findings), facts, report.exit_code or int(broken))


def _unwanted(found: dict[str, Any], unwanted: tuple[str, ...], shape: list[int]) -> list[str]:
    """What the tensor holds that was asked to be absent."""
    size = 1
    for extent in shape:
        size *= extent
    messages = []
    for word in unwanted:
        if word in ("nan", "inf") and found[word]:
            messages.append(
                f"holds {found[word]:,} {'NaN' if word == 'nan' else 'infinite'} of {size:,} "
                f"value{'' if size == 1 else 's'}"
            )
        elif word == "zero" and found["zero"]:
            messages.append(f"all {size:,} values are 0" if size > 1 else "its value is 0")
        elif word == "constant" and found["constant"]:
            messages.append(f"all {size:,} values are {found['min']:.6g}")
    return messages


def _with_values(
    one: dict[str, Any], values: dict[str, list[float]], state: StateSpec, findings: list[Finding]
) -> dict[str, Any]:
    """A set of normalisation statistics with its numbers where they are few; what is doubtful becomes a finding."""
    from weightkit.engine.normalisation import doubts

    first = {statistic: state.canonical(name) for statistic, name in one["tensors"].items()}
    known = {statistic: values[name] for statistic, name in first.items() if name in values}
    subject = next(iter(one["tensors"].values()))
    for message in doubts(known):
        what = message.split(" ", 1)[0]
        findings.append(
            Finding("WK110", Severity.WARNING, one["tensors"].get(what, subject), f"{one['feature']}: {message}")
        )
    short = {
        statistic: [x if x - x == 0 else None for x in listed]
        for statistic, listed in known.items()
        if len(listed) <= _MOST_VALUES
    }
    return {**one, "values": short}
