"""The page itself: one HTML file that needs nothing else, the same bytes for the same conversion."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2

from weightkit.core.plan import Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import TensorSpec
from weightkit.core.text import printable
from weightkit.reporting.page.account import Account, make_account, weight_of
from weightkit.reporting.page.drawing import NARROW, WIDE, draw
from weightkit.reporting.page.families import family_name, gathered
from weightkit.reporting.page.figures import SPARK_HEIGHT, number, spark, strip
from weightkit.reporting.page.states import STATES, Weight
from weightkit.reporting.page.verdict import verdict

if TYPE_CHECKING:
    from weightkit.engine.statistics import Histogram

MOST_ROWS = 2000
MOST_ROW_BYTES = 2_200_000
"""What is not listed within these two is gathered in families, and the page says how many tensors that are."""
_MOST_CARDS = 24
_MOST_FAMILIES = 200
_MOST_FINDINGS = 100
_MOST_SUBJECTS = 40
_MOST_CONFIG = 20_000
_STRIP_WIDTH = 220


def convert_page(
    report: Report,
    *,
    plan: Plan | None = None,
    group_of: Callable[[str], str] = lambda name: name.split(".", 1)[0],
    histograms: Mapping[str, Histogram] | None = None,
    command: str = "",
    version: str = "",
) -> bytes:
    """The page of a convert Report, UTF-8.

    ``plan`` is what was carried out, of a refused conversion as far as it came, None where there is none. ``command``
    is what to type for the same conversion. Everything that comes from files is escaped here.
    """
    account = make_account(report, plan, group_of, histograms)
    style, script = (_part(name) for name in ("page.css", "page.js"))
    environment = _environment()
    listed, rows = _rows(environment, account)
    rest = account.entries[listed:]
    folded = gathered(rest, _MOST_FAMILIES) if rest else []
    text = environment.get_template("page.html").render(
        account=account,
        facts=report.facts,
        report=report,
        tone=weight_of(account),
        verdict=verdict(account),
        cards=_cards(account),
        hidden_cards=max(0, len(account.cards) - _MOST_CARDS),
        drawings=[draw(account.entries, form) for form in (WIDE, NARROW)] if account.entries else [],
        states=[state for state in STATES if account.count(state.key)],
        listed=listed,
        rows=rows,
        folded=folded,
        has_values=_has_values(account),
        has_digests=_has_digests(account),
        findings=_findings(report),
        config=_config(report.facts.get("config")),
        check=report.facts.get("function_check"),
        command=command,
        version=version,
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    return text.encode("utf-8")


def _part(name: str) -> str:
    return (files("weightkit.reporting.page") / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    """Escapes everything that is not marked as safe, and nothing is; an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=lambda text, longest=300: printable(str(text), longest=longest),
        shape=_shape,
        count="{:,}".format,
        number=number,
        percent=lambda part, whole: 100 * part / whole,
    )
    environment.globals.update(
        spark=spark, strip=strip, family_name=family_name, SPARK_HEIGHT=SPARK_HEIGHT,
        STRIP_WIDTH=_STRIP_WIDTH, SUBJECTS=_MOST_SUBJECTS,
    )  # fmt: skip
    return environment


def _shape(spec: TensorSpec) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, spec.shape)) or "scalar"


def _policy(style: str, script: str) -> str:
    """A content security policy: this style, this script, and nothing from anywhere."""
    first, second = (b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = f"style-src 'sha256-{first}'; script-src 'sha256-{second}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _rows(environment: jinja2.Environment, account: Account) -> tuple[int, list[str]]:
    """How many entries are listed one by one, and their rows, as many as fit."""
    row: Any = environment.get_template("row.html").module
    columns = _has_values(account), _has_digests(account)
    rows: list[str] = []
    size = 0
    for entry in account.entries[:MOST_ROWS]:
        text = row.row(entry, *columns)
        size += len(text)
        if size > MOST_ROW_BYTES:
            break
        rows.append(text)
    return len(rows), rows


def _has_values(account: Account) -> bool:
    return any(entry.histogram is not None for entry in account.entries)


def _has_digests(account: Account) -> bool:
    return any(entry.row.get("digest") for entry in account.entries)


def _cards(account: Account) -> list[Any]:
    """All cards in the target's order; of too many the worst, and of these the largest."""
    cards = list(account.cards)
    if len(cards) <= _MOST_CARDS:
        return cards
    return sorted(cards, key=lambda card: (STATES.index(card.worst), -card.parameters))[:_MOST_CARDS]


def _findings(report: Report) -> dict[str, Any]:
    """The findings, the worst first, equal messages as one; how many groups are not shown."""
    weight = {Severity.ERROR: Weight.LOST, Severity.WARNING: Weight.CHANGED, Severity.INFO: Weight.KEPT}
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(report.findings, key=lambda found: weight[found.severity]):
        groups.setdefault((finding.code, finding.message, finding.hint), []).append(finding)
    shown = [
        {
            "code": code,
            "message": message,
            "hint": hint,
            "severity": same[0].severity.value,
            "weight": weight[same[0].severity],
            "subjects": [finding.subject for finding in same],
        }
        for (code, message, hint), same in list(groups.items())[:_MOST_FINDINGS]
    ]
    return {"shown": shown, "hidden": len(groups) - len(shown)}


def _config(config: object) -> dict[str, Any] | None:
    """The configuration as text; ``hidden`` characters of a long one are left out."""
    if config is None:
        return None
    text = json.dumps(config, indent=2)
    return {"text": text[:_MOST_CONFIG], "hidden": max(0, len(text) - _MOST_CONFIG)}
