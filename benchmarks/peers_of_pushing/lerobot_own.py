"""LeRobot 0.4.4's own service, chunking, queues and packing, without its pause between pushes.

Its learner has one service with one queue, for which several actors would compete; here every actor has a service of
its own on a port of its own, all fed with one packed version. Queues are of the kind that it uses, between processes
even where both ends are threads. Needs a Python with lerobot 0.4.4, grpcio and protobuf: WEIGHTKIT_PEERS_PYTHON.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peers_of_pushing import Unavailable
from peers_of_pushing.work import Work

try:
    import grpc
    import torch.multiprocessing as queues
    from lerobot.rl.learner_service import MAX_WORKERS, LearnerService
    from lerobot.rl.queue import get_last_item_from_queue
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import (
        MAX_MESSAGE_SIZE,
        bytes_to_state_dict,
        grpc_channel_options,
        receive_bytes_in_chunks,
        state_to_bytes,
    )
except Exception as error:  # what an incomplete installation says is its own affair
    raise Unavailable(f"lerobot cannot be imported: {error}") from None

_OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE_SIZE), ("grpc.max_send_message_length", MAX_MESSAGE_SIZE)]
_QUEUE_TIMEOUT_S = 2.0  # its default


class Learner:
    """A LearnerService for each actor."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._stopping = work, threading.Event()
        self._queues, self._servers, self.address = [], [], []
        for _ in range(int(config["actors"])):
            waiting = queues.Queue()
            service = LearnerService(
                shutdown_event=self._stopping,
                parameters_queue=waiting,
                seconds_between_pushes=0,
                transition_queue=queues.Queue(),
                interaction_message_queue=queues.Queue(),
                queue_get_timeout=_QUEUE_TIMEOUT_S,
            )
            server = grpc.server(ThreadPoolExecutor(MAX_WORKERS), options=_OPTIONS)
            services_pb2_grpc.add_LearnerServiceServicer_to_server(service, server)
            self.address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            server.start()
            self._queues.append(waiting)
            self._servers.append(server)

    def ready(self) -> None:
        """Nothing to wait for: a version waits in its queue until the actor's stream comes."""

    def publish(self) -> None:
        content = state_to_bytes({"policy": self._work.state()})
        for waiting in self._queues:
            waiting.put(content)

    def close(self) -> None:
        self._stopping.set()
        for stopped in [server.stop(grace=0.1) for server in self._servers]:
            stopped.wait()


class Actor:
    """Its receiver on a thread; unpacking and loading on the acting thread, as in its ``update_policy_parameters``."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._stopping = work, threading.Event()
        self._received = queues.Queue()
        self._channel = grpc.insecure_channel(config["address"][config["rank"]], grpc_channel_options())
        stub = services_pb2_grpc.LearnerServiceStub(self._channel)
        self._stream = stub.StreamParameters(services_pb2.Empty())
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            receive_bytes_in_chunks(self._stream, self._received, self._stopping)
        except grpc.RpcError:
            return

    def _load(self, content: bytes) -> None:
        self._work.load(bytes_to_state_dict(content)["policy"])

    def take(self) -> None:
        content = get_last_item_from_queue(self._received, block=True, timeout=120)
        assert content is not None
        self._load(content)

    def poll(self) -> bool:
        content = get_last_item_from_queue(self._received, block=False)
        if content is not None:
            self._load(content)
        return content is not None

    def path(self) -> str:
        return "stream"

    def close(self) -> None:
        self._stopping.set()
        self._stream.cancel()
        self._channel.close()
