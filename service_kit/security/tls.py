"""Transport security of servers and channels. Certificate files are read again when they change.

Both sides speak TLS 1.2 or newer as gRPC's own library does it; a server with a client CA asks every client for a
certificate of that CA (mutual TLS).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from service_kit.errors import ServiceError

_MAKES_ONE = "`bilevel certs` makes certificates for development."
_MOST_BYTES = 2**20

log = structlog.get_logger("service_kit.security")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server shows, and whom it wants to see."""

    certificate: Path
    """Its certificate chain, PEM."""
    key: Path
    """The key of that, PEM."""
    client_ca: Path | None = None
    """Certificates of the CA that clients' certificates must come from, PEM; None asks for none."""

    def credentials(self) -> grpc.ServerCredentials:
        """For a server's port. Raises :class:`ServiceError` for a file that cannot be read."""
        seen = self.stamps()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            # gRPC asks with every handshake, on a thread of its own.
            nonlocal seen
            try:
                now = self.stamps()
                if now == seen:
                    return None
                configuration = self._configuration()
            except ServiceError as error:
                log.error("certificate files cannot be read: the old ones stay in use", reason=str(error))
                return None
            seen = now
            log.info("certificates read again", path=str(self.certificate))
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            changed,  # type: ignore[arg-type]  # None means unchanged; the published types forget it
            require_client_authentication=self.client_ca is not None,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        roots = read_pem(self.client_ca) if self.client_ca is not None else None
        return grpc.ssl_server_certificate_configuration([(read_pem(self.key), read_pem(self.certificate))], roots)

    def stamps(self) -> list[int]:
        """When the files were last changed, in nanoseconds. Raises :class:`ServiceError` for one that is not there."""
        files = filter(None, (self.certificate, self.key, self.client_ca))
        try:
            return [path.stat().st_mtime_ns for path in files]
        except OSError as error:
            raise ServiceError(f"cannot read {error.filename}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom a client trusts, and what it shows."""

    ca: Path
    """Certificates of the CA that the server's certificate must come from, PEM."""
    certificate: Path | None = None
    """The client's own certificate chain, PEM, where the server asks for one."""
    key: Path | None = None
    """The key of that, PEM."""
    server_name: str | None = None
    """The name in the server's certificate where that is not the host of its address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises :class:`ServiceError` for a file that cannot be read."""
        key = read_pem(self.key) if self.key is not None else None
        chain = read_pem(self.certificate) if self.certificate is not None else None
        return grpc.ssl_channel_credentials(read_pem(self.ca), key, chain)


def read_pem(path: Path) -> bytes:
    """The file's content. Raises :class:`ServiceError` when it is not readable or no PEM."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ServiceError(f"cannot read {path}: {reason}", hint=_MAKES_ONE) from None
    if b"-----BEGIN " not in content:
        raise ServiceError(f"{path} is not in PEM form", hint=_MAKES_ONE)
    return content
