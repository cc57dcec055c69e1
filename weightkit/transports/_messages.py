"""The messages as protobuf and back. Raises ValueError for what no honest peer sends."""

from __future__ import annotations

from typing import Any

from weightkit.core.dtype import DTYPES
from weightkit.core.jsonio import canonical_json, parse_json
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import CODES, Finding, Report, Severity
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.version import WeightVersion
from weightkit.transports.base import (
    Ack,
    ActorStatus,
    Chunk,
    Hello,
    Nack,
    Reject,
    SnapshotBegin,
    SnapshotEnd,
    Status,
    Superseded,
    WatchMessage,
    Welcome,
)
from weightkit.transports.base import Heartbeat as HeartbeatMessage
from weightkit.wire.v1 import sync_pb2 as pb

CONTROL, CHUNK = 1, 2
_OFFSET_BYTES = 8


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
    return pb.HelloRequest(protocol=hello.protocol, actor_id=hello.actor_id, session=hello.session, tensors=tensors)


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
    return Hello(int(message.protocol), str(message.actor_id), str(message.session), state, reads)


def reply_to_wire(reply: Welcome | Reject) -> Any:
    if isinstance(reply, Reject):
        findings = [pb.Finding(**finding.to_dict()) for finding in reply.report.findings]
        return pb.HelloReply(reject=pb.Reject(protocol=reply.protocol, message=reply.message, findings=findings))
    manifest = canonical_json(reply.manifest.to_dict())
    return pb.HelloReply(
        welcome=pb.Welcome(
            protocol=reply.protocol,
            run_id=reply.run_id,
            manifest=manifest,
            pins=dict(reply.pins),
            probe=reply.probe,
        )
    )


def reply_from_wire(message: Any) -> Welcome | Reject:
    kind = message.WhichOneof("reply")
    if kind == "reject":
        report = Report("handshake", tuple(_finding(f) for f in message.reject.findings), exit_code=1)
        return Reject(int(message.reject.protocol), str(message.reject.message), report)
    if kind != "welcome":
        raise ValueError("the learner's answer is empty")
    welcome = message.welcome
    origin = "the learner's manifest"
    manifest = SyncManifest.from_dict(parse_json(welcome.manifest, origin=origin), origin=origin)
    return Welcome(int(welcome.protocol), str(welcome.run_id), manifest, dict(welcome.pins), bytes(welcome.probe))


def _finding(message: Any) -> Finding:
    code = str(message.code) if message.code in CODES else "WK900"
    return Finding(code, Severity(message.severity), str(message.subject), str(message.message), str(message.hint))


def frame_of(message: WatchMessage) -> bytes:
    """One frame of the watch stream."""
    if isinstance(message, Chunk):
        return b"".join((b"\x02", message.offset.to_bytes(_OFFSET_BYTES, "big"), message.data))
    if isinstance(message, SnapshotBegin):
        version = message.version
        event = pb.WatchEvent(
            begin=pb.SnapshotBegin(
                run_id=version.run_id,
                counter=version.counter,
                learner_step=version.learner_step,
                manifest_id=message.manifest_id,
                n_bytes=message.n_bytes,
                digests=dict(message.digests),
                root=message.root,
                golden=message.golden,
            )
        )
    elif isinstance(message, SnapshotEnd):
        event = pb.WatchEvent(end=pb.SnapshotEnd(root=message.root))
    elif isinstance(message, Superseded):
        event = pb.WatchEvent(superseded=pb.Superseded(run_id=message.run_id, counter=message.counter))
    else:
        event = pb.WatchEvent(heartbeat=pb.Heartbeat())
    return b"\x01" + bytes(event.SerializeToString())


def message_of(frame: bytes) -> WatchMessage:
    """The message in one frame of the watch stream."""
    if not frame or frame[0] not in (CONTROL, CHUNK):
        raise ValueError("a frame of the watch stream is of no known kind")
    if frame[0] == CHUNK:
        if len(frame) < 1 + _OFFSET_BYTES:
            raise ValueError("a chunk is too short for its offset")
        body = 1 + _OFFSET_BYTES
        return Chunk(int.from_bytes(frame[1:body], "big"), memoryview(frame)[body:])
    event = pb.WatchEvent.FromString(frame[1:])
    kind = event.WhichOneof("event")
    if kind == "begin":
        begin = event.begin
        version = WeightVersion(str(begin.run_id), int(begin.counter), int(begin.learner_step))
        return SnapshotBegin(
            version,
            str(begin.manifest_id),
            int(begin.n_bytes),
            dict(begin.digests),
            str(begin.root),
            bytes(begin.golden),
        )
    if kind == "end":
        return SnapshotEnd(str(event.end.root))
    if kind == "superseded":
        return Superseded(str(event.superseded.run_id), int(event.superseded.counter))
    return HeartbeatMessage()


def ack_to_wire(ack: Ack) -> Any:
    return pb.Ack(
        actor_id=ack.actor_id,
        session=ack.session,
        run_id=ack.run_id,
        counter=ack.counter,
        applied_root=ack.applied_root,
        apply_ms=ack.apply_ms,
        probe_ok=ack.probe_ok,
    )


def ack_from_wire(m: Any) -> Ack:
    return Ack(
        str(m.actor_id),
        str(m.session),
        str(m.run_id),
        int(m.counter),
        str(m.applied_root),
        float(m.apply_ms),
        bool(m.probe_ok),
    )


def nack_to_wire(nack: Nack) -> Any:
    return pb.Nack(
        actor_id=nack.actor_id,
        session=nack.session,
        run_id=nack.run_id,
        counter=nack.counter,
        reason=nack.reason,
        tensor=nack.tensor,
    )


def nack_from_wire(m: Any) -> Nack:
    return Nack(str(m.actor_id), str(m.session), str(m.run_id), int(m.counter), str(m.reason), str(m.tensor))


def status_to_wire(status: Status) -> Any:
    return pb.Status(
        run_id=status.run_id,
        counter=status.counter,
        root=status.root,
        refused=status.refused,
        actors=[
            pb.ActorStatus(
                actor_id=a.actor_id,
                connected=a.connected,
                acked=a.acked,
                root=a.root,
                lag=a.lag,
                nacks=a.nacks,
                probe_ok=a.probe_ok,
            )
            for a in status.actors
        ],
    )


def status_from_wire(m: Any) -> Status:
    actors = tuple(
        ActorStatus(
            str(a.actor_id), bool(a.connected), int(a.acked), str(a.root), int(a.lag), int(a.nacks), bool(a.probe_ok)
        )
        for a in m.actors
    )
    return Status(str(m.run_id), int(m.counter), str(m.root), int(m.refused), actors)
