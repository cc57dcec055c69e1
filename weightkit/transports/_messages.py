"""The messages as protobuf and back. Raises ValueError for what no honest peer sends."""

from __future__ import annotations

from typing import Any

import xxhash
from google.protobuf.message import DecodeError

from weightkit.core.dtype import DTYPES
from weightkit.core.jsonio import canonical_json, parse_json
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import CODES, Finding, Report, Severity
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.version import WeightVersion
from weightkit.shared_memory import SharedRef
from weightkit.transports.base import (
    Ack,
    ActorStatus,
    Chunk,
    Demand,
    Fetch,
    Have,
    Heartbeat,
    Hello,
    LiveReport,
    LiveState,
    Nack,
    Question,
    Receipt,
    Reject,
    Resume,
    SnapshotBegin,
    SnapshotEnd,
    Status,
    Superseded,
    Watch,
    WatchMessage,
    Welcome,
)
from weightkit.wire.v1 import sync_pb2 as pb

CONTROL, CHUNK = 1, 2
_OFFSET_BYTES = 8
_CHECK_TAG, _CHECK_BYTES = b"\x79", 8  # field 15, eight bytes


def hello_to_wire(hello: Hello) -> Any:
    tensors = [
        pb.Tensor(
            name=name,
            dtype=spec.dtype.name,
            shape=spec.shape,
            alias_of=hello.state.aliases.get(name, ""),
            read=name in hello.reads,
        )
        for name, spec in hello.state.items()
    ]
    have = None if hello.have is None else pb.Have(**_fields(hello.have))
    return pb.HelloRequest(
        protocol=hello.protocol,
        actor_id=hello.actor_id,
        session=hello.session,
        tensors=tensors,
        have=have,
        simulated=hello.simulated,
    )


def hello_from_wire(message: Any) -> Hello:
    specs: dict[str, TensorSpec] = {}
    for tensor in message.tensors:
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{tensor.name}: unknown dtype {tensor.dtype!r}")
        if tensor.name in specs:
            raise ValueError(f"{tensor.name}: listed twice")
        specs[str(tensor.name)] = TensorSpec(DTYPES[tensor.dtype], tuple(tensor.shape))
    state = StateSpec(specs, {str(t.name): str(t.alias_of) for t in message.tensors if t.alias_of})
    reads = frozenset(str(t.name) for t in message.tensors if t.read)
    have = message.have
    return Hello(
        int(message.protocol),
        str(message.actor_id),
        str(message.session),
        state,
        reads,
        Have(str(have.run_id), int(have.counter), str(have.root)) if message.HasField("have") else None,
        bool(message.simulated),
    )


def reply_to_wire(reply: Welcome | Reject) -> Any:
    if isinstance(reply, Reject):
        findings = [pb.Finding(**finding.to_dict()) for finding in reply.report.findings]
        return pb.HelloReply(reject=pb.Reject(protocol=reply.protocol, message=reply.message, findings=findings))
    return pb.HelloReply(welcome=welcome_to_wire(reply))


def welcome_to_wire(welcome: Welcome) -> Any:
    return pb.Welcome(
        protocol=welcome.protocol,
        run_id=welcome.run_id,
        manifest=canonical_json(welcome.manifest.to_dict()),
        pins=dict(welcome.pins),
        probe=welcome.probe,
        shared=_shared_to_wire(welcome.shared),
    )


def welcome_from_wire(message: Any) -> Welcome:
    origin = "the learner's manifest"
    manifest = SyncManifest.from_dict(parse_json(message.manifest, origin=origin), origin=origin)
    return Welcome(
        int(message.protocol),
        str(message.run_id),
        manifest,
        dict(message.pins),
        bytes(message.probe),
        _shared_from_wire(message),
    )


def _shared_to_wire(shared: SharedRef | None) -> Any:
    if shared is None:
        return None
    return pb.SharedMemory(pid=shared.pid, descriptor=shared.descriptor, name=shared.name, n_bytes=shared.nbytes)


def _shared_from_wire(message: Any) -> SharedRef | None:
    found = message.shared
    if not message.HasField("shared"):
        return None
    return SharedRef(int(found.pid), int(found.descriptor), str(found.name), int(found.n_bytes))


def _fields(message: Any) -> dict[str, Any]:
    """The fields of a message, by name; those of its protobuf twin have the same names."""
    return {name: getattr(message, name) for name in type(message).__slots__}


def reply_from_wire(message: Any) -> Welcome | Reject:
    kind = message.WhichOneof("reply")
    if kind == "reject":
        report = Report("handshake", tuple(_finding(f) for f in message.reject.findings), exit_code=1)
        return Reject(int(message.reject.protocol), str(message.reject.message), report)
    if kind != "welcome":
        raise ValueError("the learner's answer is empty")
    return welcome_from_wire(message.welcome)


def _finding(message: Any) -> Finding:
    code = str(message.code) if message.code in CODES else "WK900"
    return Finding(code, Severity(message.severity), str(message.subject), str(message.message), str(message.hint))


def watch_to_wire(watch: Watch) -> Any:
    resume = None if watch.resume is None else pb.Resume(**_fields(watch.resume))
    return pb.WatchRequest(session=watch.session, resume=resume, shared=watch.shared)


def watch_from_wire(message: Any) -> Watch:
    found = message.resume
    resume = Resume(int(found.counter), int(found.base), int(found.offset)) if message.HasField("resume") else None
    return Watch(str(message.session), resume, bool(message.shared))


def frame_of(message: WatchMessage) -> bytes:
    """One frame of the watch stream. A chunk keeps its frame, so that it is made once for all actors."""
    if isinstance(message, Chunk):
        if message.frame is None:
            message.frame = b"".join((b"\x02", message.offset.to_bytes(_OFFSET_BYTES, "big"), message.data))
        return message.frame
    return b"\x01" + sealed(_event_of(message))


def _event_of(message: WatchMessage) -> Any:
    if isinstance(message, SnapshotBegin):
        version = message.version
        return pb.WatchEvent(
            begin=pb.SnapshotBegin(
                run_id=version.run_id,
                counter=version.counter,
                learner_step=version.learner_step,
                manifest_id=message.manifest_id,
                n_bytes=message.n_bytes,
                digests=dict(message.digests),
                root=message.root,
                golden=message.golden,
                base=message.base,
                resumed_at=message.resumed_at,
                age_ms=message.age_ms,
                shared=_shared_to_wire(message.shared),
            )
        )
    if isinstance(message, SnapshotEnd):
        return pb.WatchEvent(end=pb.SnapshotEnd(root=message.root))
    if isinstance(message, Superseded):
        return pb.WatchEvent(superseded=pb.Superseded(run_id=message.run_id, counter=message.counter))
    if isinstance(message, Demand):
        return pb.WatchEvent(demand=pb.Demand(number=message.number, scramble=message.scramble))
    assert isinstance(message, Heartbeat)
    return pb.WatchEvent(heartbeat=pb.Heartbeat(counter=message.counter, acked=message.acked))


def message_of(frame: bytes) -> WatchMessage:
    """The message in one frame of the watch stream."""
    if not frame or frame[0] not in (CONTROL, CHUNK):
        raise ValueError("a frame of the watch stream is of no known kind")
    if frame[0] == CHUNK:
        if len(frame) < 1 + _OFFSET_BYTES:
            raise ValueError("a chunk is too short for its offset")
        body = 1 + _OFFSET_BYTES
        return Chunk(int.from_bytes(frame[1:body], "big"), memoryview(frame)[body:])
    event = parsed(pb.WatchEvent, frame[1:])
    kind = event.WhichOneof("event")
    if kind == "begin":
        begin = event.begin
        return SnapshotBegin(
            WeightVersion(str(begin.run_id), int(begin.counter), int(begin.learner_step)),
            str(begin.manifest_id),
            int(begin.n_bytes),
            dict(begin.digests),
            str(begin.root),
            bytes(begin.golden),
            int(begin.base),
            int(begin.resumed_at),
            int(begin.age_ms),
            _shared_from_wire(begin),
        )
    if kind == "end":
        return SnapshotEnd(str(event.end.root))
    if kind == "superseded":
        return Superseded(str(event.superseded.run_id), int(event.superseded.counter))
    if kind == "demand":
        return Demand(int(event.demand.number), bool(event.demand.scramble))
    if kind == "heartbeat":
        return Heartbeat(int(event.heartbeat.counter), int(event.heartbeat.acked))
    raise ValueError("an event of the watch stream is of no known kind")


def sealed(message: Any) -> bytes:
    """The bytes of ``message`` with their digest as the last field."""
    content = bytes(message.SerializeToString())
    return content + _CHECK_TAG + xxhash.xxh3_64_intdigest(content).to_bytes(_CHECK_BYTES, "little")


def parsed(kind: Any, content: bytes) -> Any:
    """A message of ``kind``. Raises ValueError for bytes that are none, or not what was sent."""
    name = kind.DESCRIPTOR.name
    body, end = content[: -_CHECK_BYTES - 1], content[-_CHECK_BYTES - 1 :]
    if content or kind is not pb.Empty:
        check = _CHECK_TAG + xxhash.xxh3_64_intdigest(body).to_bytes(_CHECK_BYTES, "little")
        if end != check:
            raise ValueError(f"no {name}: the bytes are malformed or were damaged on their way")
    try:
        return kind.FromString(body)
    except DecodeError:
        raise ValueError(f"no {name}: the bytes are malformed") from None


def receipt_to_wire(receipt: Receipt) -> Any:
    return pb.Receipt(**_fields(receipt))


def receipt_from_wire(m: Any) -> Receipt:
    return Receipt(str(m.session), str(m.run_id), int(m.counter), tuple(map(int, m.holds)))


def fetch_to_wire(fetch: Fetch) -> Any:
    return pb.FetchRequest(**_fields(fetch))


def fetch_from_wire(m: Any) -> Fetch:
    return Fetch(str(m.session), str(m.run_id), int(m.counter), tuple(map(str, m.tensors)))


def ack_to_wire(ack: Ack) -> Any:
    return pb.Ack(**_fields(ack))


def ack_from_wire(m: Any) -> Ack:
    return Ack(
        str(m.actor_id),
        str(m.session),
        str(m.run_id),
        int(m.counter),
        str(m.applied_root),
        float(m.apply_ms),
        bool(m.probe_ok),
        tuple(map(int, m.holds)),
    )


def nack_to_wire(nack: Nack) -> Any:
    return pb.Nack(**_fields(nack))


def nack_from_wire(m: Any) -> Nack:
    return Nack(
        str(m.actor_id),
        str(m.session),
        str(m.run_id),
        int(m.counter),
        str(m.reason),
        str(m.tensor),
        tuple(map(int, m.holds)),
    )


def report_to_wire(report: LiveReport) -> Any:
    return pb.LiveReport(**_fields(report))


def report_from_wire(m: Any) -> LiveReport:
    return LiveReport(
        str(m.session),
        int(m.number),
        str(m.run_id),
        int(m.counter),
        dict(m.digests),
        tuple(map(str, m.at_start)),
        tuple(map(str, m.scrambled)),
        bool(m.probe_ok),
        str(m.refused),
    )


def question_to_wire(question: Question) -> Any:
    return pb.Question(**_fields(question))


def question_from_wire(m: Any) -> Question:
    return Question(str(m.actor_id), bool(m.scramble), bool(m.force))


def state_to_wire(state: LiveState) -> Any:
    return pb.LiveState(**_fields(state))


def state_from_wire(m: Any) -> LiveState:
    return LiveState(
        str(m.actor_id),
        int(m.counter),
        int(m.newest),
        tuple(map(str, m.equal)),
        tuple(map(str, m.differing)),
        tuple(map(str, m.at_start)),
        tuple(map(str, m.scrambled)),
        bool(m.probe_ok),
        str(m.unanswered),
    )


def status_to_wire(status: Status) -> Any:
    fields = _fields(status)
    fields["actors"] = [pb.ActorStatus(**_fields(actor)) for actor in status.actors]
    return pb.Status(**fields)


def status_from_wire(m: Any) -> Status:
    actors = tuple(
        ActorStatus(
            str(a.actor_id),
            bool(a.connected),
            int(a.acked),
            str(a.root),
            int(a.lag),
            int(a.nacks),
            bool(a.probe_ok),
            str(a.path),
            float(a.apply_ms),
            int(a.sent_bytes),
            bool(a.simulated),
        )
        for a in m.actors
    )
    return Status(
        str(m.run_id),
        int(m.counter),
        str(m.root),
        int(m.refused),
        actors,
        int(m.learner_step),
        float(m.age_s),
        dict(m.counts),
    )
