"""A plain function in the sandbox of mechanisms: checked like one, called with a deadline, every answer judged.

For whatever scores source code: a task with a SOURCE parameter, for example. The caller keeps what the function
is scored on: the function sees its arguments and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from mechanisms.findings import Finding, Stage, size_finding
from mechanisms.printable import one_line
from mechanisms.sandbox.answers import WorkerFailure, opened, refusals
from mechanisms.sandbox.channel import Channel, ChannelFailure
from mechanisms.sandbox.failures import MESSAGE_CHARACTERS, FailureKind, SourceRejected
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy

T = TypeVar("T")
_LIMITS = SandboxLimits()
_POLICY = SandboxPolicy()


@dataclass(frozen=True, slots=True)
class Signature:
    """What a source must define."""

    name: str
    """No leading underscore."""
    arguments: tuple[str, ...]
    """Taken by position, in this order."""

    def __str__(self) -> str:
        return f"def {self.name}({', '.join(self.arguments)})"


class FunctionFailure(WorkerFailure):
    """The function failed. Its worker is already dead."""

    def __init__(self, name: str, kind: FailureKind, message: str, line: int | None = None) -> None:
        where = f" (line {line})" if line else ""
        super().__init__(kind, f"{name} {kind.value.replace('_', ' ')}: {message}{where}", line)


class SandboxedFunction:
    """One function in one worker process. Calls are serialised; after a :class:`FunctionFailure` the worker is dead.

    The module's body and the function's own state live as long as the worker. ``random`` is seeded with ``seed``.
    """

    def __init__(self, channel: Channel, signature: Signature, limits: SandboxLimits) -> None:
        self.signature = signature
        self.summary = ""
        """The first line of the function's docstring."""
        self.seconds = 0.0
        """Time that its calls took so far, measured on the host."""
        self._channel = channel
        self._limits = limits

    @classmethod
    async def start(
        cls,
        source: str,
        signature: Signature,
        *,
        seed: int = 0,
        limits: SandboxLimits = _LIMITS,
        policy: SandboxPolicy = _POLICY,
    ) -> Self:
        """Compile ``source`` in a worker and run its body.

        Raises :class:`SourceRejected` for a source outside the language or without the function,
        :class:`FunctionFailure` when its body fails, :class:`SandboxUnavailable` when this machine has no sandbox.
        """
        if (found := size_finding(source, limits.source_bytes, f"write {signature}")) is not None:
            raise SourceRejected([found])
        channel = await Channel.start(limits, policy)
        function = cls(channel, signature, limits)
        try:
            request = {
                "op": "define",
                "source": source,
                "function": signature.name,
                "arguments": list(signature.arguments),
                "seed": seed,
                "language_only": False,
            }
            answer = await function._ask(request, limits.install_seconds)
            if findings := refusals(answer):
                raise SourceRejected(findings)
            described = function._opened(answer)
            function.summary = str(described.get("summary", "")) if type(described) is dict else ""
        except BaseException:
            await channel.close()
            raise
        return function

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def layers(self) -> tuple[str, ...]:
        """The sandbox layers that hold for its worker."""
        return self._channel.layers

    async def call(self, *arguments: Any, judge: Callable[[Any], T]) -> T:
        """``judge``'s reading of the answer to one call; both directions carry JSON's types only.

        ``judge`` raises TypeError or ValueError for an answer of the wrong type or range, with a sentence that follows
        the function's name. Raises :class:`FunctionFailure`.
        """
        answer = await self._ask({"op": "apply", "values": list(arguments)}, self._limits.call_seconds)
        try:
            return judge(self._opened(answer))
        except (TypeError, ValueError) as error:
            await self.close()
            kind = FailureKind.WRONG_TYPE if isinstance(error, TypeError) else FailureKind.OUT_OF_RANGE
            raise FunctionFailure(self.signature.name, kind, one_line(str(error), MESSAGE_CHARACTERS)) from None
        except FunctionFailure:
            await self.close()
            raise

    async def close(self) -> None:
        """Kill the worker and reap it. Safe to call again."""
        await self._channel.close()

    async def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        began = time.monotonic()
        try:
            answer = await self._channel.ask(request, seconds)
        except ChannelFailure as failure:
            raise FunctionFailure(self.signature.name, failure.kind, str(failure)) from None
        finally:
            self.seconds += time.monotonic() - began
        if self.seconds > self._limits.budget_seconds:
            await self.close()
            message = f"its calls took {self.seconds:.1f} s; {self._limits.budget_seconds:.1f} s are allowed"
            raise FunctionFailure(self.signature.name, FailureKind.BUDGET_EXHAUSTED, message)
        return answer

    def _opened(self, answer: dict[str, Any]) -> Any:
        try:
            return opened(answer)
        except WorkerFailure as failure:
            raise FunctionFailure(self.signature.name, failure.kind, failure.message, failure.line) from None


async def check_function(
    source: str, signature: Signature, *, limits: SandboxLimits = _LIMITS, policy: SandboxPolicy = _POLICY
) -> tuple[Finding, ...]:
    """What keeps ``source`` from being called as ``signature``: size, language, shape, or a body that fails.

    Empty when nothing does. Raises :class:`SandboxUnavailable`.
    """
    try:
        function = await SandboxedFunction.start(source, signature, limits=limits, policy=policy)
    except SourceRejected as rejected:
        return rejected.findings
    except FunctionFailure as failure:
        return (Finding(Stage.CONFORMANCE, failure.line, f"the module's body fails: {failure.message}"),)
    await function.close()
    return ()
