"""What is said about a pickle: payloads with their place, what is left over, and the verdict."""

from __future__ import annotations

from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, UnsafeContent
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_stream import CutShort
from weightkit.formats._pickle_vm import Unpickled, name_payloads, unpickle
from weightkit.formats._source import Source
from weightkit.formats.base import PICKLE_STARTS, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightkit.core.checkpoint import Verdict

DO_NOT_LOAD = "do not load this file with anything that unpickles it"
_MOST_FINDINGS = 50
_MOST_STACKED = 50
_MOST_JUDGED = 1 << 24  # of a file that is no pickle by its looks


def leftovers(
    content: bytes, pickled: Unpickled, *, where: str, name: str, limits: Limits
) -> tuple[list[Finding], list[Remark]]:
    """What stands behind the end of a pickle, or is built and not used; a pickle there is a payload, whatever it holds.

    ``where`` begins error messages, ``name`` the findings.
    """
    findings: list[Finding] = []
    remarks: list[Remark] = []
    if pickled.leftovers:
        message = f"{name}: {pickled.leftovers} objects are built and not used"
        findings.append(Finding("WK106", Severity.WARNING, name, message))
    if pickled.end < len(content):
        rest = len(content) - pickled.end
        message = f"{name}: {rest} bytes follow the end of the pickle at byte {pickled.end}"
        findings.append(Finding("WK106", Severity.WARNING, name, message))
        remarks = stacked(content, pickled.end, base=0, where=where, limits=limits)
    return findings, remarks


def stacked(content: bytes, position: int, *, base: int, where: str, limits: Limits) -> list[Remark]:
    """A payload for every pickle at ``position`` of ``content``, whatever it holds, and its own remarks.

    ``base`` is the byte of the file, or of the archive's member, at which ``content`` starts.
    """
    remarks: list[Remark] = []
    for _ in range(_MOST_STACKED):
        if position >= len(content):
            break
        try:
            found = unpickle(content[position:], where=where, limits=limits)
        except UnsafeContent as error:
            remarks.append(Remark("unsafe", base + position, "a second pickle", error.message))
            break
        except CorruptFile:
            break
        remarks.append(Remark("unsafe", base + position, "a second pickle", "a second pickle follows the first"))
        remarks += [each.moved(base + position) for each in found.remarks]
        position += found.end
    return remarks


def judgements(shown: str, remarks: Sequence[Remark]) -> list[Finding]:
    """The findings that the remarks amount to: each payload, and the unknown classes together."""
    findings: list[Finding] = []
    unsafe = sorted((remark for remark in remarks if remark.level == "unsafe"), key=lambda remark: remark.named)
    for remark in unsafe[:_MOST_FINDINGS]:
        message = f"{shown}: byte {remark.offset} of the pickle: {printable(remark.message)}"
        findings.append(Finding("WK103", Severity.ERROR, printable(remark.subject), message, DO_NOT_LOAD))
    if len(unsafe) > _MOST_FINDINGS:
        message = f"{shown}: {len(unsafe) - _MOST_FINDINGS} further payloads"
        findings.append(Finding("WK103", Severity.ERROR, "", message, DO_NOT_LOAD))
    opaque = list(dict.fromkeys(remark.subject for remark in remarks if remark.level == "opaque"))
    if opaque:
        listed = ", ".join(printable(name, longest=120) for name in opaque[:8])
        more = f" and {len(opaque) - 8} more" if len(opaque) > 8 else ""
        message = f"{shown}: names {len(opaque)} classes that are unknown here, read as data: {listed}{more}"
        findings.append(Finding("WK104", Severity.INFO, printable(opaque[0]), message))
    return findings


def verdict_on(remarks: Sequence[Remark]) -> Verdict:
    """The worst of the remarks."""
    levels = {remark.level for remark in remarks}
    return "unsafe" if "unsafe" in levels else "opaque" if "opaque" in levels else "data"


def refuse_payload(source: Source, limits: Limits) -> None:
    """Raise UnsafeContent where a loader that takes any file for a pickle would execute something in this one."""
    if not source.size or source.read(0, 1)[0] not in PICKLE_STARTS:
        return
    content = bytes(source.read(0, min(source.size, _MOST_JUDGED)))
    try:
        found = unpickle(content, where=source.shown, limits=limits, by_chance=True).remarks
    except UnsafeContent:
        raise
    except CutShort:
        if len(content) < source.size:
            problem = f"its first {len(content)} bytes are a pickle as well, which no honest file of this kind is"
            raise CorruptFile(f"{source.shown}: {problem}") from None
        return  # it is no pickle
    except CorruptFile:  # nor is this one
        return
    payloads = name_payloads(found)
    if payloads:
        raise UnsafeContent(f"{source.shown}: {payloads}", hint=DO_NOT_LOAD)


def payloads_first(shown: str, remarks: Sequence[Remark], error: CorruptFile) -> CorruptFile | UnsafeContent:
    """``error``, or what names the payloads: what is wrong with a file must not hide what another loader would run."""
    payloads = name_payloads(remarks)
    if not payloads:
        return error
    return UnsafeContent(f"{shown}: {payloads}; besides: {error.message}", hint=DO_NOT_LOAD)
