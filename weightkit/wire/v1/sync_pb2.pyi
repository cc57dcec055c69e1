from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "alias_of", "read")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_OF_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    alias_of: str
    read: bool
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., alias_of: _Optional[str] = ..., read: bool = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocol", "actor_id", "session", "tensors", "have", "simulated", "check")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    actor_id: str
    session: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    have: Have
    simulated: bool
    check: int
    def __init__(self, protocol: _Optional[int] = ..., actor_id: _Optional[str] = ..., session: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., have: _Optional[_Union[Have, _Mapping]] = ..., simulated: bool = ..., check: _Optional[int] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("run_id", "counter", "root")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    counter: int
    root: str
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ..., root: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("welcome", "reject", "check")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reject: Reject
    check: int
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., check: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "run_id", "manifest", "pins", "probe", "shared", "check")
    class PinsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    manifest: bytes
    pins: _containers.ScalarMap[str, str]
    probe: bytes
    shared: SharedMemory
    check: int
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., manifest: _Optional[bytes] = ..., pins: _Optional[_Mapping[str, str]] = ..., probe: _Optional[bytes] = ..., shared: _Optional[_Union[SharedMemory, _Mapping]] = ..., check: _Optional[int] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("pid", "descriptor", "name", "n_bytes")
    PID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    N_BYTES_FIELD_NUMBER: _ClassVar[int]
    pid: int
    descriptor: int
    name: str
    n_bytes: int
    def __init__(self, pid: _Optional[int] = ..., descriptor: _Optional[int] = ..., name: _Optional[str] = ..., n_bytes: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("protocol", "message", "findings")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    message: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, protocol: _Optional[int] = ..., message: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("code", "severity", "subject", "message", "hint")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    code: str
    severity: str
    subject: str
    message: str
    hint: str
    def __init__(self, code: _Optional[str] = ..., severity: _Optional[str] = ..., subject: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("session", "resume", "shared", "check")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    session: str
    resume: Resume
    shared: bool
    check: int
    def __init__(self, session: _Optional[str] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., shared: bool = ..., check: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("counter", "base", "offset")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    counter: int
    base: int
    offset: int
    def __init__(self, counter: _Optional[int] = ..., base: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("begin", "end", "superseded", "heartbeat", "demand", "check")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    begin: SnapshotBegin
    end: SnapshotEnd
    superseded: Superseded
    heartbeat: Heartbeat
    demand: Demand
    check: int
    def __init__(self, begin: _Optional[_Union[SnapshotBegin, _Mapping]] = ..., end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., superseded: _Optional[_Union[Superseded, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ..., check: _Optional[int] = ...) -> None: ...

class SnapshotBegin(_message.Message):
    __slots__ = ("run_id", "counter", "manifest_id", "n_bytes", "digests", "root", "learner_step", "golden", "base", "resumed_at", "age_ms", "shared")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_ID_FIELD_NUMBER: _ClassVar[int]
    N_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    LEARNER_STEP_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RESUMED_AT_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    counter: int
    manifest_id: str
    n_bytes: int
    digests: _containers.ScalarMap[str, str]
    root: str
    learner_step: int
    golden: bytes
    base: int
    resumed_at: int
    age_ms: int
    shared: SharedMemory
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ..., manifest_id: _Optional[str] = ..., n_bytes: _Optional[int] = ..., digests: _Optional[_Mapping[str, str]] = ..., root: _Optional[str] = ..., learner_step: _Optional[int] = ..., golden: _Optional[bytes] = ..., base: _Optional[int] = ..., resumed_at: _Optional[int] = ..., age_ms: _Optional[int] = ..., shared: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("root",)
    ROOT_FIELD_NUMBER: _ClassVar[int]
    root: str
    def __init__(self, root: _Optional[str] = ...) -> None: ...

class Superseded(_message.Message):
    __slots__ = ("run_id", "counter")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    counter: int
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("counter", "acked")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    counter: int
    acked: int
    def __init__(self, counter: _Optional[int] = ..., acked: _Optional[int] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("number", "scramble")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SCRAMBLE_FIELD_NUMBER: _ClassVar[int]
    number: int
    scramble: bool
    def __init__(self, number: _Optional[int] = ..., scramble: bool = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("session", "run_id", "counter", "holds", "check")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    session: str
    run_id: str
    counter: int
    holds: _containers.RepeatedScalarFieldContainer[int]
    check: int
    def __init__(self, session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., holds: _Optional[_Iterable[int]] = ..., check: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("session", "run_id", "counter", "tensors", "check")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    session: str
    run_id: str
    counter: int
    tensors: _containers.RepeatedScalarFieldContainer[str]
    check: int
    def __init__(self, session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., tensors: _Optional[_Iterable[str]] = ..., check: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("actor_id", "session", "run_id", "counter", "applied_root", "apply_ms", "probe_ok", "holds", "check")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_ROOT_FIELD_NUMBER: _ClassVar[int]
    APPLY_MS_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    session: str
    run_id: str
    counter: int
    applied_root: str
    apply_ms: float
    probe_ok: bool
    holds: _containers.RepeatedScalarFieldContainer[int]
    check: int
    def __init__(self, actor_id: _Optional[str] = ..., session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., applied_root: _Optional[str] = ..., apply_ms: _Optional[float] = ..., probe_ok: bool = ..., holds: _Optional[_Iterable[int]] = ..., check: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("actor_id", "session", "run_id", "counter", "reason", "tensor", "holds", "check")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    session: str
    run_id: str
    counter: int
    reason: str
    tensor: str
    holds: _containers.RepeatedScalarFieldContainer[int]
    check: int
    def __init__(self, actor_id: _Optional[str] = ..., session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., reason: _Optional[str] = ..., tensor: _Optional[str] = ..., holds: _Optional[_Iterable[int]] = ..., check: _Optional[int] = ...) -> None: ...

class LiveReport(_message.Message):
    __slots__ = ("session", "number", "run_id", "counter", "digests", "at_start", "scrambled", "probe_ok", "refused", "check")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    AT_START_FIELD_NUMBER: _ClassVar[int]
    SCRAMBLED_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    session: str
    number: int
    run_id: str
    counter: int
    digests: _containers.ScalarMap[str, str]
    at_start: _containers.RepeatedScalarFieldContainer[str]
    scrambled: _containers.RepeatedScalarFieldContainer[str]
    probe_ok: bool
    refused: str
    check: int
    def __init__(self, session: _Optional[str] = ..., number: _Optional[int] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., digests: _Optional[_Mapping[str, str]] = ..., at_start: _Optional[_Iterable[str]] = ..., scrambled: _Optional[_Iterable[str]] = ..., probe_ok: bool = ..., refused: _Optional[str] = ..., check: _Optional[int] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("actor_id", "scramble", "force", "check")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SCRAMBLE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    scramble: bool
    force: bool
    check: int
    def __init__(self, actor_id: _Optional[str] = ..., scramble: bool = ..., force: bool = ..., check: _Optional[int] = ...) -> None: ...

class LiveState(_message.Message):
    __slots__ = ("actor_id", "counter", "newest", "equal", "differing", "at_start", "scrambled", "probe_ok", "unanswered", "check")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    AT_START_FIELD_NUMBER: _ClassVar[int]
    SCRAMBLED_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    counter: int
    newest: int
    equal: _containers.RepeatedScalarFieldContainer[str]
    differing: _containers.RepeatedScalarFieldContainer[str]
    at_start: _containers.RepeatedScalarFieldContainer[str]
    scrambled: _containers.RepeatedScalarFieldContainer[str]
    probe_ok: bool
    unanswered: str
    check: int
    def __init__(self, actor_id: _Optional[str] = ..., counter: _Optional[int] = ..., newest: _Optional[int] = ..., equal: _Optional[_Iterable[str]] = ..., differing: _Optional[_Iterable[str]] = ..., at_start: _Optional[_Iterable[str]] = ..., scrambled: _Optional[_Iterable[str]] = ..., probe_ok: bool = ..., unanswered: _Optional[str] = ..., check: _Optional[int] = ...) -> None: ...

class ActorStatus(_message.Message):
    __slots__ = ("actor_id", "connected", "acked", "root", "lag", "nacks", "probe_ok", "path", "apply_ms", "sent_bytes", "simulated")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    APPLY_MS_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    connected: bool
    acked: int
    root: str
    lag: int
    nacks: int
    probe_ok: bool
    path: str
    apply_ms: float
    sent_bytes: int
    simulated: bool
    def __init__(self, actor_id: _Optional[str] = ..., connected: bool = ..., acked: _Optional[int] = ..., root: _Optional[str] = ..., lag: _Optional[int] = ..., nacks: _Optional[int] = ..., probe_ok: bool = ..., path: _Optional[str] = ..., apply_ms: _Optional[float] = ..., sent_bytes: _Optional[int] = ..., simulated: bool = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("run_id", "counter", "root", "refused", "actors", "learner_step", "age_s", "counts", "check")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_STEP_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    counter: int
    root: str
    refused: int
    actors: _containers.RepeatedCompositeFieldContainer[ActorStatus]
    learner_step: int
    age_s: float
    counts: _containers.ScalarMap[str, float]
    check: int
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ..., root: _Optional[str] = ..., refused: _Optional[int] = ..., actors: _Optional[_Iterable[_Union[ActorStatus, _Mapping]]] = ..., learner_step: _Optional[int] = ..., age_s: _Optional[float] = ..., counts: _Optional[_Mapping[str, float]] = ..., check: _Optional[int] = ...) -> None: ...
