"""Over gRPC: ``HOST:PORT`` or ``unix:PATH``. Control messages are protobuf, weights are raw bytes in chunks."""

from __future__ import annotations

from weightkit.transports._grpc_channel import error_of as error_of
from weightkit.transports._grpc_channel import open_channel as open_channel
from weightkit.transports._grpc_connection import GrpcConnection
from weightkit.transports._grpc_server import GrpcServer
from weightkit.transports.base import OPEN, Access, Service, SyncEndpoint


class GrpcTransport:
    """Over gRPC."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), access: Access = OPEN
    ) -> GrpcServer:
        return GrpcServer(bind, endpoint, services, access)

    def connect(self, address: str, *, access: Access = OPEN) -> GrpcConnection:
        return GrpcConnection(address, access)


TRANSPORT = GrpcTransport()
