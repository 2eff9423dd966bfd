"""``python -m service_kit.probe ADDRESS``: exit code 0 when the gRPC server there says that it serves, else 1.

What a container's health check runs. It shows the token and the certificate that the environment names, as any client.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.server import run

SECONDS = 5.0
"""After which a server that does not answer counts as down."""


async def probe(address: str) -> bool:
    """Whether the server serves. Raises :class:`ServiceError` for wrong settings."""
    async with open_channel(address, ChannelSecurity.load()) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # the published types know no asynchronous one
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            sys.stderr.write(f"{address}: {error.code().name}: {error.details()}\n")
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m service_kit.probe HOST:PORT")
    sys.exit(0 if await probe(sys.argv[1]) else 1)


if __name__ == "__main__":
    run(_main())
