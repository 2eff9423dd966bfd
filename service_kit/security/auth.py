"""Who may call what: every method of a server passes here before its servicer hears of the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc

from service_kit.errors import PermissionDenied, ServiceError, Unauthenticated
from service_kit.security.roles import METHODS, OPEN
from service_kit.security.tokens import Identity, Tokens
from service_kit.status import Behaviour, with_behaviour

caller: ContextVar[Identity | None] = ContextVar("caller", default=None)
"""Who made the call that is being answered; None where the server knows no tokens."""

_SCHEME = "bearer "


def caller_name() -> str:
    """Name of the token with which the current call was made; empty where the server knows no tokens."""
    identity = caller.get()
    return identity.name if identity is not None else ""


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through when its token has the role that the method needs; methods that are not listed never."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN:
            return handler
        try:
            # The interceptor and the servicer run in one task, so that the servicer sees this.
            caller.set(self._admit(method, handler_call_details.invocation_metadata or ()))
        except ServiceError as error:
            return with_behaviour(handler, _refusal(error))
        return handler

    def _admit(self, method: str, metadata: Any) -> Identity:
        """Raises :class:`Unauthenticated` and :class:`PermissionDenied`."""
        shown = [value for key, value in metadata if key == "authorization"]
        if len(shown) != 1 or not isinstance(shown[0], str) or not shown[0].lower().startswith(_SCHEME):
            raise Unauthenticated(
                "this server wants a token",
                hint="Set BILEVEL_TOKEN_FILE to a file that holds it; on the wire it is `authorization: Bearer TOKEN`.",
            )
        identity = self._tokens.identify(shown[0][len(_SCHEME) :].strip())
        role = METHODS.get(method)
        if role is None or role not in identity.roles:
            raise PermissionDenied(
                method.rpartition("/")[2],
                role.value if role is not None else "no role has it",
                hint=f"The token {identity.name!r} has: {', '.join(sorted(identity.roles))}.",
            )
        return identity


def _refusal(error: ServiceError) -> Behaviour:
    async def refuse(_request: Any, _context: Any) -> None:
        raise error

    return refuse
