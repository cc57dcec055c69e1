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
    __slots__ = ("protocol", "actor_id", "session", "tensors")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    actor_id: str
    session: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, protocol: _Optional[int] = ..., actor_id: _Optional[str] = ..., session: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("welcome", "reject")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reject: Reject
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "run_id", "manifest", "pins", "probe")
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
    protocol: int
    run_id: str
    manifest: bytes
    pins: _containers.ScalarMap[str, str]
    probe: bytes
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., manifest: _Optional[bytes] = ..., pins: _Optional[_Mapping[str, str]] = ..., probe: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("begin", "end", "superseded", "heartbeat")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    begin: SnapshotBegin
    end: SnapshotEnd
    superseded: Superseded
    heartbeat: Heartbeat
    def __init__(self, begin: _Optional[_Union[SnapshotBegin, _Mapping]] = ..., end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., superseded: _Optional[_Union[Superseded, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class SnapshotBegin(_message.Message):
    __slots__ = ("run_id", "counter", "manifest_id", "n_bytes", "digests", "root", "learner_step", "golden")
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
    run_id: str
    counter: int
    manifest_id: str
    n_bytes: int
    digests: _containers.ScalarMap[str, str]
    root: str
    learner_step: int
    golden: bytes
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ..., manifest_id: _Optional[str] = ..., n_bytes: _Optional[int] = ..., digests: _Optional[_Mapping[str, str]] = ..., root: _Optional[str] = ..., learner_step: _Optional[int] = ..., golden: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ()
    def __init__(self) -> None: ...

class Ack(_message.Message):
    __slots__ = ("actor_id", "session", "run_id", "counter", "applied_root", "apply_ms", "probe_ok")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_ROOT_FIELD_NUMBER: _ClassVar[int]
    APPLY_MS_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    session: str
    run_id: str
    counter: int
    applied_root: str
    apply_ms: float
    probe_ok: bool
    def __init__(self, actor_id: _Optional[str] = ..., session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., applied_root: _Optional[str] = ..., apply_ms: _Optional[float] = ..., probe_ok: bool = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("actor_id", "session", "run_id", "counter", "reason", "tensor")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    session: str
    run_id: str
    counter: int
    reason: str
    tensor: str
    def __init__(self, actor_id: _Optional[str] = ..., session: _Optional[str] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., reason: _Optional[str] = ..., tensor: _Optional[str] = ...) -> None: ...

class ActorStatus(_message.Message):
    __slots__ = ("actor_id", "connected", "acked", "root", "lag", "nacks", "probe_ok")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    connected: bool
    acked: int
    root: str
    lag: int
    nacks: int
    probe_ok: bool
    def __init__(self, actor_id: _Optional[str] = ..., connected: bool = ..., acked: _Optional[int] = ..., root: _Optional[str] = ..., lag: _Optional[int] = ..., nacks: _Optional[int] = ..., probe_ok: bool = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("run_id", "counter", "root", "refused", "actors")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    counter: int
    root: str
    refused: int
    actors: _containers.RepeatedCompositeFieldContainer[ActorStatus]
    def __init__(self, run_id: _Optional[str] = ..., counter: _Optional[int] = ..., root: _Optional[str] = ..., refused: _Optional[int] = ..., actors: _Optional[_Iterable[_Union[ActorStatus, _Mapping]]] = ...) -> None: ...
