"""How LeRobot's learner and actor move weights, written anew from the facts of its wire, without its pauses.

``torch.save`` of ``{"policy": state dict}`` once per version; a queue; for each actor a server stream of ``Parameters``
messages of at most 2 MiB with BEGIN, MIDDLE, END; the actor gathers them in a BytesIO; a queue; then
``torch.load(weights_only=True)`` and ``load_state_dict`` on the acting thread.

The queues are of the kind that LeRobot has on both sides, ``torch.multiprocessing.Queue``, which sends every version
through a pipe even where both ends are threads of one process (its default). With ``way`` "within" they are plain
queues within the process, so that the rest can be seen alone. Kinder to it than the original in any case: no seconds
between pushes, and every actor has a stream with a queue of its own, while the original's actors take versions away
from each other.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import torch
import torch.multiprocessing
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from peers_of_pushing.work import Work

CHUNK_BYTES, MOST_BYTES = 2 << 20, 4 << 20
BEGIN, MIDDLE, END = 1, 2, 3
_METHOD = "/transport.LearnerService/StreamParameters"
_OPTIONS = [("grpc.max_receive_message_length", MOST_BYTES), ("grpc.max_send_message_length", MOST_BYTES)]


def _messages() -> tuple[Any, Any]:
    """``Parameters`` and ``Empty``, in a descriptor pool of their own, so that they cannot meet LeRobot's."""
    file = descriptor_pb2.FileDescriptorProto(name="recipe.proto", package="transport", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    parameters = file.message_type.add(name="Parameters")
    parameters.field.add(name="transfer_state", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    parameters.field.add(name="data", number=2, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    file.message_type.add(name="Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"transport.{n}")) for n in ("Parameters", "Empty")
    ]
    return found[0], found[1]


Parameters, Empty = _messages()


def chunks(content: bytes) -> Iterator[Any]:
    """The messages that carry ``content``."""
    buffer, sent = io.BytesIO(content), 0
    while sent < len(content):
        state = MIDDLE
        if sent + CHUNK_BYTES >= len(content):
            state = END
        elif sent == 0:
            state = BEGIN
        piece = buffer.read(CHUNK_BYTES)
        yield Parameters(transfer_state=state, data=piece)
        sent += len(piece)


def _new_queue(config: dict[str, Any]) -> Any:
    return queue.Queue() if config["way"] == "within" else torch.multiprocessing.Queue()


class Learner:
    """A server with a queue for each stream."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._config, self._actors = work, config, int(config["actors"])
        self._queues: list[Any] = []
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(self._actors + 1), options=_OPTIONS)
        handler = grpc.unary_stream_rpc_method_handler(
            self._stream, request_deserializer=Empty.FromString, response_serializer=Parameters.SerializeToString
        )
        service, method = _METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _stream(self, _request: Any, _context: Any) -> Iterator[Any]:
        waiting = _new_queue(self._config)
        with self._changed:
            self._queues.append(waiting)
            self._changed.notify_all()
        while (content := waiting.get()) is not None:
            yield from chunks(content)

    def ready(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._queues) == self._actors, timeout=60)

    def publish(self) -> None:
        buffer = io.BytesIO()
        torch.save({"policy": self._work.state()}, buffer)
        content = buffer.getvalue()
        for waiting in self._queues:
            waiting.put(content)

    def close(self) -> None:
        for waiting in self._queues:
            waiting.put(None)
        self._server.stop(grace=1).wait()


class Actor:
    """A thread that gathers chunks; unpacking and loading happen on the acting thread, as in the original."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work = work
        self._received = _new_queue(config)
        self._channel = grpc.insecure_channel(config["address"], options=_OPTIONS)
        call = self._channel.unary_stream(
            _METHOD, request_serializer=Empty.SerializeToString, response_deserializer=Parameters.FromString
        )
        self._messages = call(Empty())
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        buffer = io.BytesIO()
        try:
            for message in self._messages:
                if message.transfer_state == BEGIN:
                    buffer.seek(0)
                    buffer.truncate(0)
                buffer.write(message.data)
                if message.transfer_state == END:
                    self._received.put(buffer.getvalue())
                    buffer.seek(0)
                    buffer.truncate(0)
        except grpc.RpcError:
            return

    def _load(self, content: bytes) -> None:
        self._work.load(torch.load(io.BytesIO(content), weights_only=True)["policy"])

    def take(self) -> None:
        self._load(self._received.get(timeout=120))

    def poll(self) -> bool:
        content = None
        while not self._received.empty():
            content = self._received.get()
        if content is not None:
            self._load(content)
        return content is not None

    def path(self) -> str:
        return "stream"

    def close(self) -> None:
        self._messages.cancel()
        self._channel.close()
