"""How a client of a service opens its channel: with TLS where a CA is named, its token and ids on each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from pydantic import SecretStr

from service_kit import context
from service_kit.addresses import is_loopback, parse_address
from service_kit.errors import ServiceError, naming
from service_kit.security.tls import ClientTls, read_pem
from service_kit.settings import ClientNetworkSettings
from service_kit.telemetry import tracing

_MOST_CHARACTERS = 65_536
"""Of a file that should hold a token: a device that never ends is not read until the memory is full."""

Options = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class ChannelSecurity:
    """What a client needs to be let in; nothing of it is needed for a server on loopback without tokens."""

    tls: ClientTls | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    """Read with every call, so that a rotated token is taken up without a restart."""
    insecure: bool = False
    """Allow a token to travel in clear text to another machine."""

    @classmethod
    def load(cls) -> Self:
        """What the environment says; raises :class:`InvalidArgument` naming the variable."""
        network = ClientNetworkSettings.load()
        tls = None
        if network.ca is not None:
            tls = ClientTls(network.ca, network.certificate, network.key, network.server_name)
            named = (("BILEVEL_CA", tls.ca), ("BILEVEL_CLIENT_CERT", tls.certificate), ("BILEVEL_CLIENT_KEY", tls.key))
            for variable, file in named:
                with naming(variable):
                    _ = read_pem(file) if file is not None else None
        security = cls(tls, network.token, network.token_file, network.insecure)
        with naming("BILEVEL_TOKEN_FILE"):
            security.current_token()
        return security

    def current_token(self) -> str | None:
        """Raises :class:`ServiceError` for a token file that cannot be read."""
        if self.token_file is None:
            return self.token.get_secret_value() if self.token is not None else None
        hint = "`bilevel tokens add` prints a token, which the file must hold alone."
        try:
            with self.token_file.open(encoding="utf-8") as stream:
                token = stream.read(_MOST_CHARACTERS).strip()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ServiceError(f"cannot read the token file {self.token_file}: {reason}", hint=hint) from None
        except UnicodeDecodeError:
            token = ""
        if not token or any(not "!" <= character <= "~" for character in token):
            raise ServiceError(f"the token file {self.token_file} must hold one token and nothing else", hint=hint)
        return token


def open_channel(address: str, security: ChannelSecurity, options: Options = ()) -> grpc.aio.Channel:
    """A channel to ``address``; needs a running event loop.

    Raises :class:`ServiceError` for files that cannot be read, and where a token would travel in clear text.
    """
    has_token = security.current_token() is not None
    if security.tls is not None:
        credentials = security.tls.credentials()
        if has_token:
            credentials = grpc.composite_channel_credentials(
                credentials, grpc.metadata_call_credentials(_TokenPlugin(security), "token")
            )
        if security.tls.server_name is not None:
            options = [*options, ("grpc.ssl_target_name_override", security.tls.server_name)]
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=_interceptors())
    if not has_token:
        return grpc.aio.insecure_channel(address, options=options, interceptors=_interceptors())
    if not security.insecure and not address.startswith("unix:") and not is_loopback(parse_address(address)[0]):
        raise ServiceError(
            f"refusing to send a token to {address} in clear text",
            hint="Name the server's CA in BILEVEL_CA, or set BILEVEL_INSECURE=1 if the network is trusted.",
        )
    return grpc.aio.insecure_channel(address, options=options, interceptors=_interceptors(security))


class _TokenPlugin(grpc.AuthMetadataPlugin):
    """gRPC's way of adding a token to calls over TLS."""

    def __init__(self, security: ChannelSecurity) -> None:
        self._security = security

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            callback((("authorization", f"Bearer {self._security.current_token()}"),), None)
        except ServiceError as error:
            callback((), error)


class _Metadata:
    """Adds to a call what it belongs to and, in clear text, for which gRPC has no credentials, the token."""

    def __init__(self, security: ChannelSecurity | None) -> None:
        self._security = security

    def __call__(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *context.to_metadata(), *tracing.to_metadata())
        if self._security is not None:
            metadata.add("authorization", f"Bearer {self._security.current_token()}")
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _OnUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, added: _Metadata) -> None:
        self._added = added

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._added(client_call_details), request)


class _OnStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, added: _Metadata) -> None:
        self._added = added

    async def intercept_unary_stream(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._added(client_call_details), request)


def _interceptors(security: ChannelSecurity | None = None) -> list[grpc.aio.ClientInterceptor]:
    added = _Metadata(security)
    return [_OnUnary(added), _OnStream(added)]
