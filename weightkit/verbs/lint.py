"""Is a mapping sound by itself?"""

from __future__ import annotations

from pathlib import Path

from weightkit.core.report import Report, Severity
from weightkit.engine.lint import lint as faults
from weightkit.mapping_file import read_mapping


def lint(mapping: str | Path) -> Report:
    """The Report on a mapping's TOML file: exit code 1 where a fault was found, a warning is none.

    Raises FormatError where the file cannot be read, RuleError where it is no mapping.
    """
    rules = read_mapping(Path(mapping))
    findings = faults(rules)
    facts: dict[str, object] = {
        "path": str(mapping),
        "name": rules.name,
        "version": rules.version,
        "source_layout": rules.source_layout,
        "target_layout": rules.target_layout,
        "rules": len(rules.rules),
        "aliases": len(rules.spellings),
        "digest": rules.digest,
    }
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return Report("lint", findings, facts, int(failed))
