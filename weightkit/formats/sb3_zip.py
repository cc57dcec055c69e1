"""The zip archives of stable-baselines3: torch files inside, and ``data``, JSON with objects that are cloudpickle.

The objects are never built: each is read as data to name what another loader would call. Source:
stable_baselines3/common/save_util.py.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._folder import json_document
from weightkit.formats._joined import Part, below, join, worse
from weightkit.formats._pickle_findings import judgements, leftovers, verdict_on
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_records import Call, Dict, Prefix, Set
from weightkit.formats._pickle_vm import Unpickled, unpickle
from weightkit.formats._source import Source
from weightkit.formats._weights import open_torch_weights
from weightkit.formats._zip import STORED, Archive, Entry, open_archive
from weightkit.formats.base import Format, Limits

if TYPE_CHECKING:
    from weightkit.core.checkpoint import Verdict

_DATA, _POLICY, _TENSORS = "data", "policy.pth", ".pth"
_VERSION, _SYSTEM = "_stable_baselines3_version", "system_info.txt"
_SERIALIZED = ":serialized:"
_MOST_TEXT = 1 << 16
_MOST_LISTED = 8
# What honest objects call: the units of a schedule, spaces, random generators, and cloudpickle for functions by value.
# Listed by hand, because the same modules hold functions that would load another pickle from anywhere.
_USUAL_MODULES = (
    "stable_baselines3.common.type_aliases.", "stable_baselines3.her.goal_selection_strategy.", "gymnasium.spaces.",
    "gym.spaces.", "numpy.random._pickle.", "numpy.random.bit_generator.",
)  # fmt: skip
_CLOUDPICKLE = (
    "_builtin_type", "_cell_set", "_function_setstate", "_make_cell", "_make_empty_cell", "_make_function", "subimport",
)  # fmt: skip
_USUAL = frozenset(
    (
        "collections.deque",
        "types.CodeType",
        "types.SimpleNamespace",
        "gym.utils.seeding.RandomNumberGenerator._generator_ctor",
        *(f"cloudpickle.cloudpickle.{name}" for name in _CLOUDPICKLE),
        *(f"cloudpickle.cloudpickle_fast.{name}" for name in _CLOUDPICKLE),
    )
)
# The modules that functions by value may import; importing another one can run anything.
_IMPORTED = ("gym", "gymnasium", "math", "numpy", "stable_baselines3", "torch", "typing")
_SUBIMPORT = ".subimport"
_COMPUTED = "a computed callable"
_BUILTIN_TYPE = "._builtin_type"
_LOADS = "stable_baselines3 executes them when it loads the file; they were not built here"


def detect(_: str, head: bytes) -> bool:
    """A zip archive whose first file is one of those that stable-baselines3 writes first, outside any folder."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return name in (_DATA.encode(), _VERSION.encode()) or (name.endswith(_TENSORS.encode()) and b"/" not in name)


def open_sb3_zip(path: str, limits: Limits) -> Checkpoint:
    """The policy's tensors under their own names, the others below the name of their file. Raises FormatError."""
    source = Source.at(path)
    archive = open_archive(source, limits)
    parts: list[Part] = []
    metadata: dict[str, object] = {}
    findings: list[Finding] = []
    verdict: Verdict | None = None
    if _DATA in archive.entries:
        metadata[_DATA], findings, verdict = _judged(archive, archive.entries[_DATA], limits)
    members = [name for name in archive.entries if name.endswith(_TENSORS) and name != _TENSORS]
    if _POLICY not in members:
        listed = ", ".join(printable(name, longest=60) for name in list(archive.entries)[:_MOST_LISTED])
        raise CorruptFile(
            f"{source.shown}: no {_POLICY} in the archive, expected one as stable-baselines3 writes it; it holds "
            f"{listed}",
            hint="archives of stable-baselines 2 are not read; unpack others and name the checkpoint inside",
        )
    packed = [archive.entries[name] for name in members if archive.entries[name].method != STORED]
    if sum(entry.size for entry in packed) > limits.expanded_bytes:
        found = f"{sum(entry.size for entry in packed)} bytes when {len(packed)} files in it are inflated"
        raise limits.exceeded("expanded_bytes", where=source.shown, found=found)
    for name in sorted(members, key=lambda name: name != _POLICY):
        prefix = "" if name == _POLICY else name.removesuffix(_TENSORS).replace("/", ".")
        inner = archive.inner(archive.entries[name], limits)
        checkpoint = open_torch_weights(inner, limits, name=FORMAT.name)
        parts.append(Part(inner.shown, checkpoint, below(prefix)))
        if checkpoint.metadata:
            metadata[prefix or "policy"] = dict(checkpoint.metadata)
    for name in (_VERSION, _SYSTEM):
        if name in archive.entries:
            metadata[name.removesuffix(".txt")] = _text(archive, archive.entries[name])
    strangers = [name for name in archive.entries if name not in (_DATA, _VERSION, _SYSTEM, *members)]
    if strangers:
        listed = ", ".join(printable(name, longest=60) for name in strangers[:5])
        message = f"{source.shown}: {len(strangers)} files in the archive are none of stable-baselines3's: {listed}"
        findings.append(Finding("WK106", Severity.WARNING, printable(strangers[0]), message))
    return join(
        parts,
        path=path,
        shown=source.shown,
        format=FORMAT.name,
        metadata=metadata,
        limits=limits,
        findings=findings,
        verdict=verdict,
    )


def _text(archive: Archive, entry: Entry) -> str:
    if entry.size > _MOST_TEXT:
        raise CorruptFile(f"{archive.at(entry)}: {entry.size} bytes, which is too much for a line of text")
    lines = bytes(archive.read(entry)).decode("utf-8", "replace").splitlines()
    return "\n".join(printable(line) for line in lines)


def _judged(archive: Archive, entry: Entry, limits: Limits) -> tuple[dict[str, object], list[Finding], Verdict | None]:
    """The plain part of ``data``; what its objects would call; the verdict on them, None where there are none."""
    shown = archive.at(entry)
    if entry.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", where=shown, found=f"JSON of {entry.size} bytes")
    document = json_document(bytes(archive.read(entry)), shown=shown)
    if not isinstance(document, dict):
        raise CorruptFile(f"{shown}: expected a JSON object, found {type(document).__name__}")
    plain: dict[str, object] = {}
    findings: list[Finding] = []
    verdict: Verdict | None = None
    called: dict[str, None] = {}
    objects: list[str] = []
    for key, value in document.items():
        if not isinstance(value, dict) or _SERIALIZED not in value:
            plain[key] = value
            continue
        objects.append(key)
        plain[key] = {name: item for name, item in value.items() if name != _SERIALIZED}
        where = f"{shown}: {printable(repr(key))}"
        content = _decoded(where, value[_SERIALIZED])
        usual, others, more = _remarks(where, content, limits)
        called.update(dict.fromkeys(remark.subject for remark in usual if remark.subject != _COMPUTED))
        verdict = worse(verdict, verdict_on(others))
        findings += [*more, *(finding for finding in judgements(where, others) if finding.code == "WK103")]
    if objects:
        findings.insert(0, _finding(shown, objects, list(called)))
        verdict = worse("opaque", verdict)
    return plain, findings, verdict


def _finding(shown: str, objects: list[str], called: list[str]) -> Finding:
    message = f"{shown}: {len(objects)} values are cloudpickle ({_listed(objects)}): {_LOADS}"
    if called:
        message += f"; they call {_listed(called)}"
    hint = "load it with stable_baselines3 only if you trust where it comes from; the tensors need none of it"
    return Finding("WK115", Severity.WARNING, printable(objects[0]), message, hint)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(printable(name, longest=80) for name in names[:_MOST_LISTED]) + more


def _decoded(where: str, text: object) -> bytes:
    """The bytes of a value in base64; what has two readings is refused. Raises CorruptFile."""
    if not isinstance(text, str):
        raise CorruptFile(f"{where}: {_SERIALIZED} is no text, expected base64")
    try:
        content = a2b_base64(text.encode("ascii"))
    except (Base64Error, UnicodeEncodeError) as error:
        raise CorruptFile(f"{where}: {_SERIALIZED} is no base64: {error}") from None
    if len(text) % 4 or len(content) != len(text) // 4 * 3 - (text[-2:].count("=") if text else 0):
        raise CorruptFile(f"{where}: {_SERIALIZED} is no base64: characters that do not belong there, or a wrong end")
    return content


def _remarks(where: str, content: bytes, limits: Limits) -> tuple[list[Remark], list[Remark], list[Finding]]:
    """What the pickle calls as honest objects do, what else stands out in it, and what is left over behind it."""
    pickled = unpickle(content, where=where, limits=limits)
    findings, more = leftovers(content, pickled, where=where, name=where, limits=limits)
    usual: list[Remark] = []
    others: list[Remark] = list(more)
    nested = {ref.path for ref in pickled.refs if not ref.name.isidentifier()}
    computed = any(remark.subject == _COMPUTED for remark in pickled.remarks)
    calls = list(_calls(pickled.value, limits, where)) if computed or _imports(pickled) else []
    types = {call.offset for call in calls if _makes_a_type(call)}
    strange = {call.offset for call in calls if call.path.endswith(_SUBIMPORT) and not _imports_a_known_one(call)}
    for remark in pickled.remarks:
        if remark.level == "unsafe" and (
            remark.offset in types
            if remark.subject == _COMPUTED
            else _is_usual(remark.subject, nested) and remark.offset not in strange
        ):
            usual.append(remark)
        else:
            others.append(remark)
    return usual, others, findings


def _is_usual(subject: str, nested: Collection[str]) -> bool:
    """Whether calling ``subject`` is what an honest object of stable-baselines3 needs; it runs code all the same.

    ``nested`` are names inside something else: a module may hold another module.
    """
    return subject in _USUAL or (subject.startswith(_USUAL_MODULES) and subject not in nested)


def _imports(pickled: Unpickled) -> bool:
    return any(ref.path.endswith(_SUBIMPORT) for ref in pickled.refs)


def _imports_a_known_one(call: Call) -> bool:
    """Whether cloudpickle would import a module that functions of honest files use."""
    named = call.arguments[0] if isinstance(call.arguments, tuple) and len(call.arguments) == 1 else None
    return isinstance(named, str) and named.partition(".")[0] in _IMPORTED


def _makes_a_type(call: Call) -> bool:
    """Whether what is called is the result of cloudpickle's lookup of a built-in type, as for every code object."""
    path = call.target.path if isinstance(call.target, Call) else ""
    return path in _USUAL and path.endswith(_BUILTIN_TYPE)


def _calls(value: object, limits: Limits, where: str) -> Iterator[Call]:
    """Every call that ``value`` is made of, each once."""
    stack: list[object] = [value]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, Prefix):
            node = node.of
        if not isinstance(node, (Call, Dict, Set, list, tuple)) or id(node) in seen:
            continue
        seen.add(id(node))
        if len(seen) > limits.nodes:
            raise limits.exceeded("nodes", where=where, found=f"{len(seen)} objects in the pickle")
        if isinstance(node, Call):
            yield node
            stack += [node.target, node.arguments, node.keywords, *node.appended, *node.states]
            stack += [item for pair in node.pairs for item in pair]
        elif isinstance(node, Dict):
            stack += [*node.states, *(item for pair in node.pairs for item in pair)]
        else:
            stack += node.members if isinstance(node, Set) else node


FORMAT = Format(
    name="sb3_zip",
    description="stable-baselines3 archives: the tensors of policy and optimizers; objects in data are left alone",
    endings=(".zip",),
    detect=detect,
    open=open_sb3_zip,
)
