"""The page of a conversion, written whatever becomes of the conversion: ``convert --report PAGE.html``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from weightkit import __version__
from weightkit.architectures import architecture_of_layout, is_layout
from weightkit.atomic_file import check_writable, write_atomically
from weightkit.core.plan import Plan
from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.errors import PlanError, UsageError, WeightkitError, WriteError

if TYPE_CHECKING:
    import numpy as np

    from weightkit.engine.statistics import Histogram
    from weightkit.formats import Limits
    from weightkit.verbs.conversion import Conversion, Look

_ENDINGS = (".html", ".htm")


@dataclass
class Page:
    """What the page will show: whoever converts tells it the ``conversion`` and the ``report``, when they are there."""

    path: Path | None
    conversion: Conversion | None = None
    report: Report | None = None
    histograms: dict[str, Histogram] = field(default_factory=dict)

    @property
    def look(self) -> Look | None:
        """What is to be shown every tensor that is written; None where no page is wanted."""
        return self._count if self.path is not None else None

    def _count(self, name: str, array: np.ndarray) -> None:
        from weightkit.engine.statistics import histogram

        self.histograms[name] = histogram(array)


@dataclass(frozen=True)
class Asked:
    """What a conversion was asked for: ``options`` are the keywords of `convert`."""

    source: str | Path
    options: Mapping[str, Any]
    out: Path | None
    force: bool = False
    limits: Limits | None = None

    @property
    def goal(self) -> str:
        """What a refusal calls the target, of which no more is known."""
        return str(
            next(filter(None, map(self.options.get, ("to", "like", "policy", "map", "plan", "invert"))), "a copy")
        )


@contextmanager
def report_page(
    path: str | Path | None,
    asked: Asked,
    refusal: Callable[[WeightkitError, str | Path, str], Report],
    inputs: Iterable[Path],
) -> Iterator[Page]:
    """Write the page to ``path`` when the block ends, and when it ends with an error; None writes nothing.

    The path is checked before the block begins. ``refusal`` gives the Report of an error. Raises UsageError and
    WriteError for the path, and whatever the block raises.
    """
    if path is None:
        yield Page(None)
        return
    config = asked.options.get("config")
    read = [*inputs, *([Path(config)] if isinstance(config, (str, Path)) else [])]
    page = Page(Path(path))
    _check(Path(path), asked, read)
    try:
        yield page
    except WeightkitError as error:
        attempt = error.attempt if isinstance(error, PlanError) else None
        planned = page.conversion.plan if page.conversion is not None else None
        try:
            _write(page, refusal(error, asked.source, asked.goal), attempt or planned, asked, read)
        except WriteError as failure:  # what the conversion ended with counts
            error.hint = f"{error.hint}; no report: {failure.message}".removeprefix("; ")
        raise
    assert page.report is not None
    assert page.conversion is not None
    try:
        _write(page, page.report, page.conversion.plan, asked, read)
    except WriteError as failure:
        written = page.report.facts["out"] or page.report.facts["plan"]
        done = f"; {printable(str(written))} is complete" if written else ""
        raise WriteError(f"{failure.message}{done}", hint=failure.hint) from None


def _check(path: Path, asked: Asked, inputs: Sequence[Path]) -> None:
    """Refuse what cannot be written, before anything is read."""
    shown = printable(str(path))
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"{shown}: a report is an .html file", hint="--report PAGE.html")
    check_writable(path, force=asked.force, inputs=inputs)
    goal = Path(os.path.realpath(path))
    for origin in inputs:
        found = Path(os.path.realpath(origin))
        if goal == found or found in goal.parents:
            raise WriteError(f"{shown}: is being read, or lies in what is read", hint="write the report elsewhere")
    made = Path(os.path.realpath(asked.out)) if asked.out is not None else None
    if made is not None and (goal == made or made in goal.parents):
        raise WriteError(f"{shown}: is the output, or lies in it", hint="write the report beside the output")


def _write(page: Page, report: Report, plan: Plan | None, asked: Asked, inputs: Sequence[Path]) -> None:
    from weightkit.reporting.page import convert_page

    assert page.path is not None
    document = convert_page(
        report,
        plan=plan,
        group_of=_group_of(page, plan),
        histograms=page.histograms,
        command=command_line(asked),
        version=__version__,
    )

    def write(file: BinaryIO) -> None:
        file.write(document)

    write_atomically(page.path, write, force=asked.force, inputs=inputs)


def _group_of(page: Page, plan: Plan | None) -> Callable[[str], str]:
    """As the conversion groups its tensors; for a plan that did not hold as its layout's architecture does."""
    if page.conversion is not None:
        return page.conversion.grouping()
    if plan is not None and is_layout(plan.target_layout):
        return architecture_of_layout(plan.target_layout).group_of
    return lambda name: name.split(".", 1)[0]


def command_line(asked: Asked) -> str:
    """What to type for the same conversion; empty where a mapping or configuration is no file."""
    words = ["weightkit", "convert", str(asked.source)]
    for key, value in asked.options.items():
        option = {"config": "--config_path"}.get(key, f"--{key.rstrip('_').replace('_', '-')}")
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, (str, Path)):
            words += [option, str(value)]
        elif isinstance(value, Mapping):
            for name, choice in value.items():
                words += [option, f"{name}={choice}"]
        elif isinstance(value, Iterable):
            for item in value:
                words += [option, str(item)]
        else:
            return ""
    if asked.limits is not None:
        usual = type(asked.limits)().as_dict()
        for name, limit in asked.limits.as_dict().items():
            if limit != usual[name]:
                words += ["--limit", f"{name}={limit}"]
    words += ["-o", str(asked.out)] if asked.out is not None else []
    words += ["--force"] * asked.force
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word for a shell; one that is not fit for a terminal with escapes, as bash and zsh read them."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped, longest=len(escaped))}'"
