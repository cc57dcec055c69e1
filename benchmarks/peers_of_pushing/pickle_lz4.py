"""agentlace's way: a pickle of numpy arrays, lz4 over all of it, one frame per actor; over plain TCP sockets.

Packed once per version and sent by a thread for each actor; the actor unpacks on its receiving thread, as agentlace's
callback does. Anybody who reaches the port can run code in the actor. agentlace itself sends over ZeroMQ.
"""

from __future__ import annotations

import pickle
import queue
import socket
import struct
import threading
from typing import Any

import numpy as np
import torch

from peers_of_pushing import Unavailable
from peers_of_pushing.work import Work

try:
    import lz4.frame
except ImportError:
    raise Unavailable("the package lz4 is not installed") from None

_LENGTH = struct.Struct(">Q")


class Learner:
    """A listening socket and a sending thread for each actor."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._actors = work, int(config["actors"])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=self._actors)
        self._listener.settimeout(60)
        self._queues: list[queue.Queue[bytes | None]] = []
        self.address = list(self._listener.getsockname())

    def ready(self) -> None:
        for _ in range(self._actors):
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting: queue.Queue[bytes | None] = queue.Queue()
            self._queues.append(waiting)
            threading.Thread(target=self._send, args=(connection, waiting), daemon=True).start()

    def _send(self, connection: socket.socket, waiting: queue.Queue[bytes | None]) -> None:
        with connection:
            while (frame := waiting.get()) is not None:
                connection.sendall(_LENGTH.pack(len(frame)))
                connection.sendall(frame)

    def publish(self) -> None:
        arrays = {name: tensor.detach().numpy() for name, tensor in self._work.state().items()}
        frame = lz4.frame.compress(pickle.dumps(arrays))
        for waiting in self._queues:
            waiting.put(frame)

    def close(self) -> None:
        for waiting in self._queues:
            waiting.put(None)
        self._listener.close()


class Actor:
    """A thread that receives and unpacks; the acting thread copies in."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work = work
        self._received: queue.Queue[dict[str, np.ndarray]] = queue.Queue()
        self._connection = socket.create_connection(tuple(config["address"]))
        threading.Thread(target=self._receive, daemon=True).start()

    def _read(self, size: int) -> bytearray | None:
        content = bytearray(size)
        view, got = memoryview(content), 0
        while got < size:
            count = self._connection.recv_into(view[got:])
            if not count:
                return None
            got += count
        return content

    def _receive(self) -> None:
        while (head := self._read(_LENGTH.size)) is not None:
            frame = self._read(_LENGTH.unpack(head)[0])
            if frame is None:
                return
            self._received.put(pickle.loads(lz4.frame.decompress(frame)))

    def _load(self, arrays: dict[str, np.ndarray]) -> None:
        self._work.load({name: torch.from_numpy(array) for name, array in arrays.items()})

    def take(self) -> None:
        self._load(self._received.get(timeout=120))

    def poll(self) -> bool:
        arrays = None
        while not self._received.empty():
            arrays = self._received.get()
        if arrays is not None:
            self._load(arrays)
        return arrays is not None

    def path(self) -> str:
        return "stream"

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
