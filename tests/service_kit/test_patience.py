"""What is away for a moment is waited out, told once, and given up when the patience is at its end."""

import asyncio

import pytest

from service_kit.errors import NotFound, Unavailable
from service_kit.patience import AvailabilityChanged, Patient, Waiting


class Flaky:
    """Fails as often as it is told, then answers."""

    def __init__(self, failures: int, then: Exception | None = None) -> None:
        self.failures, self.then, self.calls = failures, then, 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise Unavailable("the task")
        if self.then is not None:
            raise self.then
        return "answer"


def is_lost(error: Exception) -> bool:
    return isinstance(error, Unavailable)


class Record:
    def __init__(self) -> None:
        self.told: list[AvailabilityChanged] = []
        self.pauses: list[float] = []

    async def tell(self, change: AvailabilityChanged) -> None:
        self.told.append(change)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def test_a_loss_is_waited_out_with_growing_pauses_and_told_once_each_way() -> None:
    record, flaky = Record(), Flaky(6)
    assert await Waiting(60, record.tell, sleep=record.sleep).out("the task", flaky, is_lost) == "answer"
    assert [change.available for change in record.told] == [False, True]
    assert "the task cannot be reached" in record.told[0].reason
    assert record.told[0].patience is not None
    assert record.told[1].away is not None
    assert len(record.pauses) == 6
    assert record.pauses[0] < 0.3 < 2 < record.pauses[-1] <= 6


@pytest.mark.parametrize("patience", [0, 0.1])
async def test_without_the_patience_for_one_pause_the_error_comes_at_once_and_nothing_is_told(patience: float) -> None:
    record, flaky = Record(), Flaky(1)
    with pytest.raises(Unavailable):
        await Waiting(patience, record.tell, sleep=record.sleep).out("the task", flaky, is_lost)
    assert (flaky.calls, record.told) == (1, [])


async def test_patience_ends_with_the_last_error_and_a_later_call_waits_anew() -> None:
    record, flaky = Record(), Flaky(10**6)
    waiting = Waiting(0.5, record.tell)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await waiting.out("the task", flaky, is_lost)
    assert [change.available for change in record.told] == [False, False]


async def test_a_refusal_is_an_answer() -> None:
    record = Record()
    with pytest.raises(NotFound):
        await Waiting(60, record.tell, sleep=record.sleep).out("it", Flaky(2, NotFound("run", "runs/x")), is_lost)
    assert [change.available for change in record.told] == [False, True]


async def test_waiting_ends_when_it_is_not_worthwhile_any_more() -> None:
    record, flaky = Record(), Flaky(10**6)

    async def worthwhile() -> bool:
        return flaky.calls < 3

    with pytest.raises(Unavailable):
        await Waiting(None, record.tell, worthwhile, record.sleep).out("it", flaky, is_lost)
    assert flaky.calls == 3


async def test_calls_that_wait_for_the_same_thing_tell_it_once() -> None:
    record = Record()
    waiting = Waiting(60, record.tell)
    await asyncio.gather(*(waiting.out("the task", Flaky(1), is_lost) for _ in range(5)))
    assert [change.available for change in record.told] == [False, True]


async def test_a_client_without_someone_to_wait_for_fails_at_once_and_its_patient_copy_does_not() -> None:
    class Client(Patient):
        async def ask(self, flaky: Flaky) -> str:
            return await self._wait_out("it", flaky, is_lost)

    record, client = Record(), Client()
    assert await client.patient(Waiting(60, record.tell, sleep=record.sleep)).ask(Flaky(3)) == "answer"
    with pytest.raises(Unavailable):
        await client.ask(Flaky(1))
