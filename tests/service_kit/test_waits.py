"""The pause before work that waited for its database is tried again."""

from service_kit.waits import Waits


def pauses(waits: Waits, count: int) -> list[float]:
    found = []
    for _ in range(count):
        wait = waits.begin("runs/a", "disk is full")
        assert wait is not None
        assert waits.begin("runs/a", "disk is full") is None
        waits.end("runs/a")
        found.append(wait.pause)
    return found


def test_work_that_fails_again_and_again_rests_longer_each_time_and_never_over_a_minute() -> None:
    waits = Waits()
    assert pauses(waits, 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pauses(waits, 2000)[-1] == 60


def test_what_got_on_starts_with_a_short_pause_and_nothing_else_does() -> None:
    waits = Waits()
    pauses(waits, 3)
    waits.got_on("runs/b")
    assert pauses(waits, 1) == [8]
    waits.got_on("runs/a")
    assert pauses(waits, 2) == [1, 2]
    waits.forget("runs/a")
    assert pauses(waits, 1) == [1]


def test_a_longer_pause_is_said() -> None:
    waits = Waits()
    assert str(waits.begin("runs/a", "disk is full")).endswith("UTC: disk is full")
    waits.end("runs/a")
    again = str(waits.begin("runs/a", "disk is full"))
    assert again.endswith("UTC: disk is full; it failed before, so that it rests 2 s first")
