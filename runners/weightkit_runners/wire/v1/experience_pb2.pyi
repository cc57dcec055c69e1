from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromActor(_message.Message):
    __slots__ = ("open", "batch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    open: Open
    batch: Batch
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol", "actor_id", "epoch")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    actor_id: str
    epoch: str
    def __init__(self, protocol: _Optional[int] = ..., actor_id: _Optional[str] = ..., epoch: _Optional[str] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("seq", "run_id", "counter", "learner_step", "payload", "digest", "refusals_heard")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    LEARNER_STEP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_HEARD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    run_id: str
    counter: int
    learner_step: int
    payload: bytes
    digest: str
    refusals_heard: int
    def __init__(self, seq: _Optional[int] = ..., run_id: _Optional[str] = ..., counter: _Optional[int] = ..., learner_step: _Optional[int] = ..., payload: _Optional[bytes] = ..., digest: _Optional[str] = ..., refusals_heard: _Optional[int] = ...) -> None: ...

class Transitions(_message.Message):
    __slots__ = ("transitions",)
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    transitions: _containers.RepeatedCompositeFieldContainer[Transition]
    def __init__(self, transitions: _Optional[_Iterable[_Union[Transition, _Mapping]]] = ...) -> None: ...

class Transition(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class FromLearner(_message.Message):
    __slots__ = ("accepted_seq", "refused", "refused_seq", "digest")
    ACCEPTED_SEQ_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_SEQ_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    accepted_seq: int
    refused: str
    refused_seq: int
    digest: str
    def __init__(self, accepted_seq: _Optional[int] = ..., refused: _Optional[str] = ..., refused_seq: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class JournalRecord(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: JournalHeader
    batch: JournalBatch
    def __init__(self, header: _Optional[_Union[JournalHeader, _Mapping]] = ..., batch: _Optional[_Union[JournalBatch, _Mapping]] = ...) -> None: ...

class JournalHeader(_message.Message):
    __slots__ = ("epochs", "transitions")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    epochs: _containers.RepeatedCompositeFieldContainer[AcceptedEpoch]
    transitions: int
    def __init__(self, epochs: _Optional[_Iterable[_Union[AcceptedEpoch, _Mapping]]] = ..., transitions: _Optional[int] = ...) -> None: ...

class AcceptedEpoch(_message.Message):
    __slots__ = ("actor_id", "epoch", "seq", "transitions")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    epoch: str
    seq: int
    transitions: int
    def __init__(self, actor_id: _Optional[str] = ..., epoch: _Optional[str] = ..., seq: _Optional[int] = ..., transitions: _Optional[int] = ...) -> None: ...

class JournalBatch(_message.Message):
    __slots__ = ("actor_id", "epoch", "transitions", "batch")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    epoch: str
    transitions: int
    batch: Batch
    def __init__(self, actor_id: _Optional[str] = ..., epoch: _Optional[str] = ..., transitions: _Optional[int] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...
