"""Reports and errors on the terminal, and the exit codes of contract and docs; no click here."""

from __future__ import annotations

import os
import sys

from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable
from weightkit.errors import WeightkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


def guarded(run: Callable[[], object]) -> None:
    """Run a command; every error becomes one clear line and its exit code."""
    try:
        run()
        sys.stdout.flush()
    except WeightkitError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("WEIGHTKIT_TRACEBACK"):
            raise
        _say(f"internal error: {type(error).__name__}: {printable(str(error))}")
        _say("hint: this is a fault of weightkit; WEIGHTKIT_TRACEBACK=1 shows where")
        sys.exit(EXIT_INTERNAL)


def leave() -> None:
    """End the process at once: all is written, and the system takes the memory back faster than the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def print_error(error: WeightkitError) -> None:
    """The message and the hint on stderr, free of control characters."""
    lines = [f"error: {error.message}"] + ([f"hint: {error.hint}"] if error.hint else [])
    for line in "\n".join(lines).splitlines():
        _say(printable(line))


def emit(verb: str, as_json: bool, make: Callable[[], Report], text: Callable[[Report], str]) -> None:
    """Print the Report that ``make`` gives, as text or JSON, and exit with its code; with JSON also on failure."""
    try:
        report = make()
    except WeightkitError as error:
        if not as_json:
            raise
        report = failure_report(verb, error)
    except Exception as error:
        if not as_json or os.environ.get("WEIGHTKIT_TRACEBACK"):
            raise
        finding = Finding("WK900", Severity.ERROR, verb, f"internal error: {type(error).__name__}: {error}")
        report = Report(verb, (finding,), {}, EXIT_INTERNAL)
    if as_json:
        sys.stdout.write(report_json(report) + "\n")
    else:
        sys.stdout.write(text(report) + "\n")
    if report.exit_code:
        sys.exit(report.exit_code)


def report_json(report: Report) -> str:
    """The document that ``--json`` prints: one line a field, and one for each row of a list of objects."""
    import json

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=True)

    fields = []
    for key, value in report.to_dict().items():
        rows = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
        text = "[\n  " + ",\n  ".join(map(line, value)) + "\n ]" if rows and isinstance(value, list) else line(value)
        fields.append(f" {line(key)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}"


def failure_report(verb: str, error: WeightkitError, facts: Mapping[str, Any] | None = None) -> Report:
    """The Report of a verb that could not do what was asked."""
    finding = Finding(error.code, Severity.ERROR, verb, error.message, error.hint)
    inner = getattr(error, "report", None)
    findings = (*inner.findings, finding) if isinstance(inner, Report) else (finding,)
    return Report(verb, findings, facts or {}, error.exit_code)
