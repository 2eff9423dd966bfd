"""However often a person presses Ctrl-C, the services end and nothing but the message is printed."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any, cast

import pytest

from clients.addresses import INNER
from clients.local_stack import LocalStack, StackSettings, _Service
from service_kit.processes import ProcessGroup


class Stubborn:
    """A group that ends only when it is killed."""

    def __init__(self) -> None:
        self.asked, self.dead = asyncio.Event(), asyncio.Event()

    async def terminate(self, grace: float) -> int:
        self.asked.set()
        await self.dead.wait()
        return -9

    async def kill(self) -> int:
        await asyncio.sleep(0)
        self.dead.set()
        return -9


def stack_of(group: Stubborn, folder: Path) -> LocalStack:
    stack = LocalStack(StackSettings(folder))
    stack._services["inner"] = _Service(INNER, cast(ProcessGroup, group), folder / "log")
    return stack


async def test_a_second_interrupt_kills_what_has_not_ended(tmp_path: Path) -> None:
    group = Stubborn()
    stopping = asyncio.create_task(stack_of(group, tmp_path).stop())
    await group.asked.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert group.dead.is_set()


def test_nothing_is_left_unretrieved_when_the_loop_is_interrupted(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []
    groups: list[Stubborn] = []
    running: list[asyncio.Task[None]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        groups.append(Stubborn())
        running.append(asyncio.create_task(stack_of(groups[0], tmp_path).stop()))
        await groups[0].asked.wait()  # and leave: the loop cancels every task, as after a second Ctrl-C

    asyncio.run(main())
    assert groups[0].dead.is_set()
    running.clear()
    gc.collect()
    assert reported == []
