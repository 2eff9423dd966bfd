"""The clauses of numbered event streams, for traces and campaigns alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from clients.conformance.expect import expect, invalid, same
from clients.conformance.wire import EOF, Wire

QUICK = Duration(nanos=100_000_000)
"""The shortest heartbeat that may be asked for."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """A method that watches resources of one kind."""

    wire: Wire
    method: str
    field: str
    """Field of the request that names the resource."""

    def _named(self, name: str) -> dict[str, Any]:
        return {self.field: name}

    async def committed(self, name: str, after: int = 0) -> list[Any]:
        """The events that are committed now, after a number."""
        messages = await self.wire.messages(
            self.method, timeout=30.0, **self._named(name), after_sequence=after, no_follow=True
        )
        return [message.event for message in messages if message.WhichOneof("item") == "event"]

    async def followed(self, name: str, after: int = 0) -> list[Any]:
        """Every event of a resource that ends, from a watch that follows."""
        messages = await self.wire.messages(self.method, **self._named(name), after_sequence=after)
        return [message.event for message in messages if message.WhichOneof("item") == "event"]

    async def until(self, name: str, wanted: Callable[[Any], bool], after: int = 0) -> Any:
        """The first event after a number that is wanted, or None when the stream ends before."""
        async with self.wire.stream(self.method, **self._named(name), after_sequence=after) as stream:
            while (message := await stream.read()) is not EOF:
                if message.WhichOneof("item") == "event" and wanted(message.event):
                    return message.event
        return None

    async def is_numbered(self, name: str, first: str) -> None:
        """COMMON-5.1."""
        events = await self.committed(name)
        numbers = [event.sequence for event in events]
        same(f"the numbers of {self.method}", numbers, list(range(1, len(events) + 1)))
        expect(events, f"{self.method} must give at least the creation")
        same("the first event", events[0].WhichOneof("event"), first)

    async def resumes(self, name: str) -> None:
        """COMMON-5.2."""
        whole = await self.committed(name)
        for after in sorted({0, 1, len(whole) // 2, len(whole) - 1, len(whole)}):
            got = await self.committed(name, after)
            numbers, wanted = [event.sequence for event in got], list(range(after + 1, len(whole) + 1))
            same(f"the numbers after {after}", numbers, wanted)
            expect(got == whole[after:], f"events after {after} must be what they were when they were first read")

    async def ends_without_following(self, name: str) -> None:
        """COMMON-5.3."""
        messages = await self.wire.messages(self.method, timeout=10.0, **self._named(name), no_follow=True)
        expect(messages, f"{self.method} with no_follow must send what is committed")

    async def beats(self, name: str) -> None:
        """COMMON-5.4."""
        last = len(await self.committed(name))
        async with self.wire.stream(
            self.method, timeout=10.0, **self._named(name), after_sequence=last, heartbeat=QUICK
        ) as stream:
            for _ in range(2):
                message = await stream.read()
                expect(message is not EOF, f"{self.method} must not end while its resource lives")
                same("what an idle watch sends", message.WhichOneof("item"), "heartbeat")
                same("the heartbeat's number", message.heartbeat.last_sequence, last)

    async def follows(self, name: str, happen: Callable[[], Awaitable[Any]]) -> None:
        """COMMON-5.5; ``happen`` lets at least one event happen."""
        last = len(await self.committed(name))
        async with self.wire.stream(
            self.method, timeout=20.0, **self._named(name), after_sequence=last, heartbeat=QUICK
        ) as stream:
            await stream.read()  # a heartbeat: the watch has begun
            await happen()
            numbers: list[int] = []
            while True:
                message = await stream.read()
                if message is EOF:
                    break
                if message.WhichOneof("item") == "event":
                    numbers.append(message.event.sequence)
                elif numbers:  # idle again: everything that happened was sent
                    break
        wanted = list(range(last + 1, len(await self.committed(name)) + 1))
        same("the numbers that a follower received", numbers, wanted)

    async def ends_with_its_resource(self, name: str) -> None:
        """COMMON-5.6; the resource is in a terminal state."""
        events = await self.committed(name)
        for after in (0, len(events)):
            numbers = [event.sequence for event in await self.followed(name, after)]
            same(f"what a watch after {after} gave before it ended", numbers, list(range(after + 1, len(events) + 1)))

    async def refuses_wrong_numbers(self, name: str) -> None:
        """COMMON-5.7."""
        beyond = len(await self.committed(name)) + 1000
        for after in (-1, beyond):
            call = self.wire.messages(self.method, timeout=10.0, **self._named(name), after_sequence=after)
            await invalid(call, f"{self.method} after {after}", "after_sequence")
        for heartbeat in (Duration(nanos=1000), Duration(seconds=4000)):
            call = self.wire.messages(self.method, timeout=10.0, **self._named(name), heartbeat=heartbeat)
            await invalid(call, f"{self.method} with a heartbeat of {heartbeat.ToTimedelta()}", "heartbeat")
