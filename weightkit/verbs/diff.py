"""What differs between the tensors of two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightkit.core.report import Finding, Report, Severity
from weightkit.engine.comparison import SpecComparison, compare_specs, lone_candidates, pair_equal
from weightkit.errors import UnsafeContent
from weightkit.formats import open_checkpoint
from weightkit.verbs.inspect import first_segment

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from weightkit.core.checkpoint import Checkpoint
    from weightkit.core.tensor import StateSpec
    from weightkit.formats import Limits


def diff(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, values: bool = False, limits: Limits | None = None
) -> Report:
    """What differs between the tensors of two files: names, shapes, dtypes, ties and, with ``values``, numbers.

    The container is no difference, nor is the order of names, which of its names is a tensor's first, or metadata,
    which is not compared. NaN equals NaN; +0 equals -0, and the Report says where only the bits differ. With
    ``values`` a tensor of equal content under another name is recognised; without, it is at most guessed.
    Tensors that cannot be read as dense arrays are compared by their specs only, and named.

    Exit code 0 where they are equal, 1 where they differ, 4 where another loader would execute something in one of
    them: then numbers are not read. Raises FormatError for an unreadable file.
    """
    first = open_checkpoint(a) if limits is None else open_checkpoint(a, limits)
    second = open_checkpoint(b) if limits is None else open_checkpoint(b, limits)
    return diff_of(first, second, values=values)


def diff_of(a: Checkpoint, b: Checkpoint, *, values: bool = False) -> Report:
    """The diff Report of two opened checkpoints."""
    unsafe = "unsafe" in (a.verdict, b.verdict)
    compared = values and not unsafe
    specs = compare_specs(a.state, b.state)
    findings = _of_the_files(a, b)
    differences: dict[str, dict[str, Any]] = {}
    for name in specs.common:
        what = _spec_difference(name, specs, a.state, b.state)
        if what:
            differences[name] = what
    not_compared: list[str] = []
    bits_only: list[str] = []
    renames: list[dict[str, object]] = []
    if compared:
        _compare_values(a, b, specs, differences, not_compared, bits_only)
        pairs = _renamed(a, b, specs)
        renames = [{"a": here, "b": there, "sure": True} for here, there in pairs]
    else:
        candidates = lone_candidates(
            a.state,
            [name for name in specs.only_a if name not in a.state.aliases],
            b.state,
            [name for name in specs.only_b if name not in b.state.aliases],
        )
        renames = [{"a": here, "b": there, "sure": False} for here, there in candidates]
    only_a, only_b = _without_renamed(specs, renames)
    findings += _findings(differences, renames, only_a, only_b, not_compared, bits_only)
    equal = specs.equal and not differences and not not_compared
    facts: dict[str, object] = {
        "a": _side(a),
        "b": _side(b),
        "equal": equal,
        "values_compared": compared,
        "groups": _groups(a, b, specs, differences, only_a, only_b, renames),
        "common": len(specs.common),
        "only_a": [{"name": name, **_spec(a.state, name)} for name in only_a],
        "only_b": [{"name": name, **_spec(b.state, name)} for name in only_b],
        "renames": renames,
        "differences": list(differences.values()),
        "not_compared": not_compared,
        "equal_not_in_bits": bits_only,
    }
    return Report("diff", tuple(findings), facts, UnsafeContent.exit_code if unsafe else int(not equal))


def _side(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "verdict": checkpoint.verdict,
        "root": checkpoint.root,
        "tensors": len(checkpoint.state),
    }


def _spec(state: StateSpec, name: str) -> dict[str, Any]:
    return {"dtype": state[name].dtype.name, "shape": list(state[name].shape)}


def _spec_difference(name: str, specs: SpecComparison, a: StateSpec, b: StateSpec) -> dict[str, Any]:
    """What names, shapes, dtypes and ties say of one common name, {} where nothing."""
    if a[name] == b[name] and name not in specs.ties:
        return {}
    what = [
        key
        for key, differs in (("shape", a[name].shape != b[name].shape), ("dtype", a[name].dtype != b[name].dtype))
        if differs
    ]
    found: dict[str, Any] = {"name": name, "what": what, "a": _spec(a, name), "b": _spec(b, name)}
    if name in specs.ties:
        what.append("ties")
        here, there = specs.ties[name]
        found["a"]["tied_to"], found["b"]["tied_to"] = list(here), list(there)
    return found


def _compare_values(
    a: Checkpoint,
    b: Checkpoint,
    specs: SpecComparison,
    differences: dict[str, dict[str, Any]],
    not_compared: list[str],
    bits_only: list[str],
) -> None:
    """Read each common tensor once, a pair at a time; names that share the same pair share the answer."""
    from weightkit.engine.comparison import compare_arrays

    answers: dict[tuple[str, str], dict[str, Any]] = {}
    for name in specs.common:
        if a.state[name].shape != b.state[name].shape:
            continue
        if not (_readable(a, name) and _readable(b, name)):
            not_compared.append(name)
            continue
        pair = (a.state.canonical(name), b.state.canonical(name))
        if pair not in answers:
            answers[pair] = compare_arrays(a.read(pair[0]), b.read(pair[1]))
        answer = answers[pair]
        if answer["differing"] or name in differences:
            found = differences.get(name)
            if found is None:
                found = {"name": name, "what": [], "a": _spec(a.state, name), "b": _spec(b.state, name)}
                differences[name] = found
            if answer["differing"]:
                found["what"].append("values")
            found["values"] = answer
        elif not answer["bit_equal"]:
            bits_only.append(name)


def _readable(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the tensor has numbers that can be looked at; numpy has no complex32."""
    canonical = checkpoint.state.canonical(name)
    return (
        name not in checkpoint.not_dense
        and canonical not in checkpoint.not_dense
        and checkpoint.state[name].dtype.name != "complex32"
    )


def _renamed(a: Checkpoint, b: Checkpoint, specs: SpecComparison) -> list[tuple[str, str]]:
    """Names of one side only with an equal tensor among those of the other; only tensors that can be are read."""
    here, there = {a.state[name] for name in specs.only_a}, {b.state[name] for name in specs.only_b}
    contents = [
        {name: digest for name in names if checkpoint.state[name] in here & there for digest in digests(name)}
        for checkpoint, names, digests in (
            (a, specs.only_a, _digests(a)),
            (b, specs.only_b, _digests(b)),
        )
    ]
    return pair_equal(contents[0], contents[1])


def _digests(checkpoint: Checkpoint) -> Callable[[str], list[str]]:
    """A tensor's digest, each tensor read once; nothing for one that cannot be read."""
    known: dict[str, str] = {}

    def digests(name: str) -> list[str]:
        from weightkit.digest import tensor_digest

        if not _readable(checkpoint, name):
            return []
        canonical = checkpoint.state.canonical(name)
        if canonical not in known:
            known[canonical] = tensor_digest(checkpoint.read(canonical), dtype=checkpoint.state[name].dtype.name)
        return [known[canonical]]

    return digests


def _without_renamed(
    specs: SpecComparison, renames: Iterable[dict[str, object]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sure = [rename for rename in renames if rename["sure"]]
    gone, come = {rename["a"] for rename in sure}, {rename["b"] for rename in sure}
    return tuple(n for n in specs.only_a if n not in gone), tuple(n for n in specs.only_b if n not in come)


def _of_the_files(a: Checkpoint, b: Checkpoint) -> list[Finding]:
    """What the reader said about either file, and tensors that are listed only."""
    findings: list[Finding] = []
    for checkpoint in (a, b):
        findings += [f for f in checkpoint.findings if f.severity is not Severity.INFO]
        said = {f.subject for f in findings if f.code == "WK109"}
        for name, why in checkpoint.not_dense.items():
            if name not in said:
                findings.append(Finding("WK109", Severity.WARNING, name, f"{why.kind}: {why.why}"))
    return list(dict.fromkeys(findings))


def _findings(
    differences: dict[str, dict[str, Any]],
    renames: list[dict[str, Any]],
    only_a: Iterable[str],
    only_b: Iterable[str],
    not_compared: Iterable[str],
    bits_only: Iterable[str],
) -> list[Finding]:
    findings = [Finding("WK111", Severity.ERROR, name, "only in the first file") for name in only_a]
    findings += [Finding("WK111", Severity.ERROR, name, "only in the second file") for name in only_b]
    findings += [Finding("WK112", Severity.ERROR, name, _sentence(found)) for name, found in differences.items()]
    for rename in renames:
        if rename["sure"]:
            message = f"the second file has the same content as {rename['b']}"
            findings.append(Finding("WK113", Severity.ERROR, rename["a"], message))
        else:
            message = f"perhaps {rename['b']} in the second file: the only one left of this dtype and shape"
            hint = "--values compares their contents"
            findings.append(Finding("WK113", Severity.INFO, rename["a"], message, hint))
    findings += [Finding("WK109", Severity.ERROR, name, "its values cannot be compared") for name in not_compared]
    note = "equal in value, not in every bit: signed zeros, or NaN of other bits"
    findings += [Finding("WK112", Severity.INFO, name, note) for name in bits_only]
    return findings


def _sentence(found: dict[str, Any]) -> str:
    a, b, what = found["a"], found["b"], found["what"]
    said = []
    if "shape" in what or "dtype" in what:
        said.append(f"{a['dtype']}{a['shape']} in the first file, {b['dtype']}{b['shape']} in the second")
    if "ties" in what:
        said.append(
            f"the same tensor as {', '.join(a['tied_to']) or 'no other'} in the first file, "
            f"as {', '.join(b['tied_to']) or 'no other'} in the second"
        )
    if "values" in what:
        values = found["values"]
        size = values["max_difference"]
        most = "" if size is None else f", by {size:.3g} at most"
        odd = f", {values['not_finite']:,} of them NaN or infinite on one side" if values["not_finite"] else ""
        said.append(f"{values['differing']:,} of {values['numel']:,} values differ{most}{odd}")
    return "; ".join(said)


def _groups(
    a: Checkpoint,
    b: Checkpoint,
    specs: SpecComparison,
    differences: dict[str, dict[str, Any]],
    only_a: Iterable[str],
    only_b: Iterable[str],
    renames: list[dict[str, Any]],
) -> dict[str, dict[str, int]]:
    """Counts of names by group: those of the architecture where both files are of it, else by first segment."""
    group_of = _grouping(a, b)
    groups: dict[str, dict[str, int]] = {}

    def count(names: Iterable[str], key: str) -> None:
        for name in names:
            empty = {"equal": 0, "differ": 0, "only_a": 0, "only_b": 0, "renamed": 0}
            groups.setdefault(group_of(name), empty)[key] += 1

    for name in specs.common:
        count([name], "differ" if name in differences else "equal")
    count(only_a, "only_a")
    count(only_b, "only_b")
    count((rename["a"] for rename in renames if rename["sure"]), "renamed")
    return groups


def _grouping(a: Checkpoint, b: Checkpoint) -> Callable[[str], str]:
    from weightkit.architectures import grouping, recognise

    here = recognise(a)
    there = recognise(b) if here is not None else None
    if here is None or there is None or here.architecture != there.architecture:
        return first_segment
    return grouping(here.architecture)
