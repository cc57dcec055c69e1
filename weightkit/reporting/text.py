"""Tables, folded names, sizes: the pieces that every report's text is made of."""

from __future__ import annotations

from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Parts = tuple[tuple[str, ...], ...]

_MARKED = str.maketrans({sign: f"\\{sign}" for sign in "{},\\"})
"""What folded names are written with: a name's own are marked by a backslash."""


def table(rows: Sequence[Sequence[object]], *, right: Iterable[int] = ()) -> list[str]:
    """Rows as aligned lines, the first row the heading. Columns whose index is in ``right`` are right-aligned."""
    columns = [printables([str(row[i]) for row in rows]) for i in range(len(rows[0]))]
    right = set(right)
    padded = []
    for i, column in enumerate(columns):
        width = max(map(len, column))
        padded.append([cell.rjust(width) for cell in column] if i in right else [cell.ljust(width) for cell in column])
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]


def printables(texts: list[str], *, longest: int = 400) -> list[str]:
    """Each text fit for a terminal, as ``core.text.printable`` does it: one look at all where none is odd."""
    if "".join(texts).isprintable() and len(max(texts, key=len, default="")) <= longest:
        return texts
    return [printable(text, longest=longest) for text in texts]


def encodable(text: str, encoding: str | None) -> str:
    """``text`` with every character that ``encoding`` does not have as an escape, so that printing it cannot fail."""
    if text.isascii():
        return text
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode("ascii")
    return text


def size(nbytes: int) -> str:
    """Bytes for people: ``8.3 MB``."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def fold(names: Iterable[str]) -> list[str]:
    """Names with differing segments gathered: ``encoder.front.{0,2,4,6}.{bias, weight}``. Order of first appearance.

    Names fold only into a full product, so the folded text stands for exactly the names that went in.
    """
    folded: list[Parts] = [tuple((segment,) for segment in name.split(".")) for name in dict.fromkeys(names)]
    for position in reversed(range(max(map(len, folded), default=0))):
        alike: dict[tuple[Parts, Parts, int], list[str]] = {}
        for parts in folded:
            options = parts[position] if position < len(parts) else ()
            alike.setdefault((parts[:position], parts[position + 1 :], len(parts)), []).extend(options)
        folded = [
            (*before, tuple(options), *after) if options else before for (before, after, _), options in alike.items()
        ]
    return [".".join(map(braced, parts)) for parts in folded]


def braced(options: Sequence[str]) -> str:
    """One segment of a folded name: ``bias``, ``{0,2,4}``, ``{bias, weight}``."""
    options = [option.translate(_MARKED) for option in options]
    if len(options) == 1:
        return options[0]
    joint = "," if all(option.isdigit() for option in options) else ", "
    return "{" + joint.join(options) + "}"


def findings_text(report: Report, *, least: Severity = Severity.INFO, width: int | None = None) -> list[str]:
    """The findings, the same message of several names folded into one entry, errors first; wrapped at ``width``."""
    weight = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(report.findings, key=lambda f: weight[f.severity]):
        if weight[finding.severity] <= weight[least]:
            groups.setdefault((finding.code, finding.message, finding.hint), []).append(finding)
    lines: list[str] = []
    for (code, message, hint), same in groups.items():
        mark = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}[same[0].severity]
        subjects = fold(f.subject for f in same)
        lines.append(f"{code} {mark}  {printable('  '.join(subjects), longest=100_000)}")
        lines.append(f"       {printable(message)}")
        if hint:
            lines.append(f"       hint: {printable(hint)}")
    return lines if width is None else [part for line in lines for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of at most ``width`` where it has spaces, those below the first as far in as its words."""
    import textwrap

    indent = " " * (13 if line.lstrip().startswith("hint: ") else 7)
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
