"""The two clocks that a budget is measured on."""

from __future__ import annotations

import pytest

from gpt_trainer.clock import ClockKind, HostStopwatch, VirtualClock, WallClock


def test_the_virtual_clock_charges_each_step_and_never_overspends() -> None:
    clock, steps = VirtualClock(budget=1.0, step_seconds=0.3), 0
    while clock.affords_step():
        clock.begin_step()
        clock.end_step()
        steps += 1
    assert steps == 3
    assert clock.spent == pytest.approx(0.9)


def test_the_wall_clock_charges_steps_alone_and_finishes_the_last_one() -> None:
    times = iter([0.0, 1.0, 50.0, 51.5])
    synchronised: list[bool] = []
    clock = WallClock(2.0, HostStopwatch(lambda: synchronised.append(True), now=lambda: next(times)))
    for _ in range(2):
        assert clock.affords_step()
        clock.begin_step()
        clock.end_step()
    assert not clock.affords_step()
    assert clock.spent == pytest.approx(2.5)
    assert len(synchronised) == 4


def test_the_wall_clock_takes_a_step_under_way_for_an_average_one() -> None:
    readings = {"now": (0.0, 0, 1)}

    class Queue(HostStopwatch):
        def read(self) -> tuple[float, int, int]:
            return readings["now"]

        def wait(self) -> None:
            readings["now"] = (0.5, 1, 0)

    clock = WallClock(2.0, Queue(lambda: None))
    assert clock.spent == 0.5  # nothing to go by: it waits for the first
    readings["now"] = (1.5, 3, 1)
    assert clock.spent == 2.0
    assert not clock.affords_step()


def test_a_cpu_is_charged_virtually_and_a_gpu_by_the_wall_unless_told_otherwise() -> None:
    assert ClockKind.choose("auto", on_cpu=True) is ClockKind.VIRTUAL
    assert ClockKind.choose("auto", on_cpu=False) is ClockKind.WALL
    assert ClockKind.choose("wall", on_cpu=True) is ClockKind.WALL
