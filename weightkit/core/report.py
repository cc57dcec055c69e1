"""Findings and the Report that every verb gives."""

from __future__ import annotations

from weightkit.core.record import MappingProxyType, Record
from weightkit.core.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar


class Severity(str):
    """How much a finding weighs: an ERROR means that what was asked does not hold.

    ``Severity("error") is Severity.ERROR``; there are no others. An enumeration but for the import of enum.
    """

    __slots__ = ()
    INFO: ClassVar[Severity]
    WARNING: ClassVar[Severity]
    ERROR: ClassVar[Severity]

    def __new__(cls, value: str) -> Severity:
        for known in _SEVERITIES:
            if known == value:
                return known
        raise ValueError(f"{value!r} is not a valid Severity")

    @property
    def name(self) -> str:
        """As the constant is called."""
        return self.upper()

    @property
    def value(self) -> str:
        """As it stands in ``--json``."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"Severity.{self.name}"


_SEVERITIES = tuple(str.__new__(Severity, value) for value in ("info", "warning", "error"))
Severity.INFO, Severity.WARNING, Severity.ERROR = _SEVERITIES


CODES: dict[str, str] = {
    "WK100": "the file cannot be opened",
    "WK101": "no format recognises the file",
    "WK102": "the file's bytes contradict themselves",
    "WK103": "another loader would execute something in this file",
    "WK104": "the file holds objects of classes that are unknown here, as data",
    "WK105": "a limit of the reader was hit",
    "WK106": "something is left over after the end of the data",
    "WK107": "no architecture recognises the tensors",
    "WK108": "something about the policy is not stored in the file",
    "WK109": "a tensor is listed and cannot be read as a dense array",
    "WK110": "a tensor holds values that were asked to be absent",
    "WK111": "a tensor stands in one of two checkpoints only",
    "WK112": "a tensor differs between two checkpoints",
    "WK113": "a tensor has another name in the other checkpoint",
    "WK114": "names carry the prefix of a wrapper",
    "WK115": "the file holds code that was left alone",
    "WK116": "the file holds bytes of tensors that no listed tensor lies on",
    "WK117": "a plugin of another package is not used",
    "WK201": "a source tensor is not accounted for",
    "WK202": "a target tensor is not accounted for",
    "WK203": "two sources claim one target",
    "WK204": "a shape or dtype differs and no adapter is named",
    "WK205": "an adapter does not fit",
    "WK206": "a pattern on the command line matches nothing",
    "WK207": "an adapter keeps the function only on some inputs",
    "WK208": "a step loses information",
    "WK209": "a target tensor is left to fresh initial values, as asked",
    "WK210": "two rules match one name",
    "WK211": "tensors that should be equal are not",
    "WK212": "outputs differ between source and target",
    "WK213": "the source is in the target layout already",
    "WK214": "tensors that belong together are not all there",
    "WK215": "a tensor is not what the plan was made for",
    "WK216": "a rule can never take effect",
    "WK217": "a name that no rule makes or takes",
    "WK218": "an op does not fit its rule",
    "WK219": "two plans differ",
    "WK220": "a second name of a tensor is written as a reference",
    "WK221": "the target's code hands its net images of another range than the source's, or than the net wants",
    "WK222": "the comparison of outputs could not have seen a difference",
    "WK223": "the target's own code does not load this policy as it is",
    "WK301": "act() reads a tensor that nobody sends",
    "WK302": "a tensor of a module that act() uses was not read on the probes",
    "WK303": "the two sides disagree on a tensor's shape or dtype",
    "WK304": "the learner offers a tensor that the actor does not have",
    "WK305": "a manifest does not cover every tensor exactly once",
    "WK306": "act() writes a tensor",
    "WK307": "nobody said which groups are sent: the architecture's default manifest was used",
    "WK308": "a tensor that is never sent differs on the two sides",
    "WK309": "a tensor that act() reads and training changes is not sent",
    "WK310": "act() reads a tensor that nobody sends, and the manifest says why it may",
    "WK311": "act() reads a tensor that the policy does not hold",
    "WK312": "act() does not repeat itself, so reads outside torch cannot be excluded",
    "WK313": "a tensor is sent to be trained, but no optimizer holds it",
    "WK314": "an actor holds the learner's weights and acts differently",
    "WK315": "whether an actor acts as its learner does is not compared",
    "WK316": "act() has come to a tensor that no probe had shown and nobody syncs",
    "WK317": "a key of a saved push was taken for a module of another name, or could be",
    "WK318": "act() was not seen at work",
    "WK320": "an actor holds other weights than were published",
    "WK321": "an actor still holds its start values",
    "WK322": "an actor has not shown what it holds",
    "WK323": "an actor is not connected",
    "WK324": "an actor acts with an older version than the newest",
    "WK325": "an actor may be moving something real, so it was not scrambled",
    "WK326": "a scrambled tensor has not come back, or was never scrambled",
    "WK401": "a configuration key is known but has no effect here",
    "WK402": "a configuration key is unknown",
    "WK403": "a configuration value has the wrong type or contradicts another",
    "WK404": "the architecture's default configuration was used",
    "WK900": "the request could not be carried out",
}


class Finding(Record):
    """One thing that was seen: a stable code, its weight, what it is about, what it says and what to do."""

    code: str
    severity: Severity
    subject: str
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"finding code {self.code!r} is not listed in CODES")
        if not self.subject.isprintable():  # a name from a file
            self.__dict__["subject"] = printable(self.subject, longest=len(self.subject))

    def to_dict(self) -> dict[str, str]:
        """The finding as it stands in ``--json``."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "subject": self.subject,
            "message": self.message,
            "hint": self.hint,
        }


class Report(Record):
    """What a verb found. ``facts`` are the verb's own fields, JSON values only, beside the fields all reports share."""

    verb: str
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, object] = MappingProxyType({})
    exit_code: int = 0

    @property
    def ok(self) -> bool:
        """Whether what was asked holds."""
        return self.exit_code == 0

    @property
    def schema(self) -> str:
        """Name and version of this report's JSON form."""
        return f"weightkit.{self.verb}.v1"

    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the report fail."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    def to_dict(self) -> dict[str, object]:
        """The document that ``--json`` prints."""
        return {
            "schema": self.schema,
            "verb": self.verb,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "findings": [finding.to_dict() for finding in self.findings],
            **self.facts,
        }
