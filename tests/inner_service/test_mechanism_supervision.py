"""Mechanisms that stand in the way, die, hang or forget: they go, and the run goes on."""

import asyncio
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from bilevel.v1 import trace_pb2

from mechanisms.sandbox.channel import Channel
from mechanisms.sandbox.failures import SandboxUnavailable
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy

VETO_ALL = '''
class Mechanism:
    """Never: refuse everything that a model proposes; what the gate replays says what it changes."""

    def veto(self, view, candidate):
        return None if candidate.hypothesis.startswith("change") and len(view.history) % 5 else "no"
'''
VETO_HALF = '''
class Mechanism:
    """Halves: refuse every second value of x."""

    def veto(self, view, candidate):
        x = candidate.changes.get("x")
        return None if x is None or int(x * 1000) % 2 != PARITY else "not my half"
'''
SPOILER = '''
class Mechanism:
    """Spoiler: revise everything into what the task refuses."""

    def revise(self, view, candidate):
        return Candidate(changes={"x": 10.0, "y": 9 + len(view.history) % 2}, hypothesis="spoilt")
'''
BUSY = '''
class Mechanism:
    """Busy: takes for ever over the candidates of a model, and refuses a mode."""

    def veto(self, view, candidate):
        if candidate.hypothesis == "slow":
            while True:
                pass
        return "never fancy" if "mode" in candidate.changes else None
'''
OBSERVING = '''
class Mechanism:
    """Observing: say what was seen."""

    def __init__(self, space, settings, rng):
        self.seen = []

    def observe(self, trial):
        self.seen.append(trial.number)

    def prompt(self, view):
        return f"{len(self.seen)} trials"
'''
TALKATIVE = '''
class Mechanism:
    """Talkative: count what it said, outside observe."""

    def __init__(self, space, settings, rng):
        self.said = 0

    def prompt(self, view):
        self.said += 1
        return "again"
'''
GLOBAL = '''
SAID = []

class Mechanism:
    """Global: count what it said, where no attribute shows it."""

    def prompt(self, view):
        SAID.append(len(SAID))
        return "again"
'''


def worker(inner, name: str) -> psutil.Process:
    """The process of the run's only mechanism."""
    [member] = inner.runs._loops._open[name.split("/")[1]].mechanisms._members
    return psutil.Process(member.process.pid)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look every few milliseconds, from a thread: the service lives in the test's event loop."""
    while not condition():
        time.sleep(0.005)


@pytest.mark.parametrize("source", [VETO_ALL, SPOILER], ids=["vetoes everything", "spoils everything"])
@pytest.mark.parametrize("parallelism", [1, 3])
async def test_a_mechanism_that_lets_nothing_run_goes_before_the_run_pauses(inner, source, parallelism) -> None:
    name = await inner.create(max_trials=3, parallelism=parallelism)
    await inner.install(name, source, "obstacle")
    await inner.start(name)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 3)
    [suspended] = inner.of(events, "mechanism_suspended")
    assert (suspended.mechanism, suspended.kind) == ("obstacle", "obstructed")
    assert suspended.message
    states = [change.to_state for change in inner.of(events, "run_state_changed")]
    assert trace_pb2.RUN_STATE_PAUSED not in states


async def test_two_that_share_the_vetoing_go_one_after_the_other(inner) -> None:
    name = await inner.create(max_trials=2)
    for parity in (0, 1):
        source = VETO_HALF.replace("PARITY", str(parity))
        await inner.install(name, source, f"half-{parity}")
    await inner.start(name)
    events = await inner.finished(name)
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED
    assert {s.kind for s in inner.of(events, "mechanism_suspended")} == {"obstructed"}


async def test_nobody_is_blamed_for_what_the_model_does(inner, endpoint) -> None:
    endpoint.answer = lambda _: [({"x": 99.0}, "beyond the range")]
    name = await inner.create(max_trials=2)
    await inner.install(name, OBSERVING, "bystander")
    await inner.start(name)
    paused = await inner.until_state(name, "PAUSED")
    assert "5 proposals in a row failed" in paused.run_state_changed.reason
    assert (await inner.mechanism(name, "bystander")).state == trace_pb2.MECHANISM_STATE_ACTIVE


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "timed_out")])
async def test_a_signal_in_mid_call_suspends_the_mechanism_and_loses_no_trial(inner, endpoint, number, kind) -> None:
    half = lambda state: 3.0 + (state["incumbent"]["configuration"]["x"] - 3.0) / 2  # noqa: E731
    endpoint.answer = lambda state: [({"x": half(state)}, "slow" if state["trials_left"] == 2 else "")]
    name = await inner.create(max_trials=3)
    await inner.install(name, BUSY, "busy")
    process = worker(inner, name)
    await inner.start(name)
    await inner.until(name, lambda event: event.trial_decided.number == 1)
    spent = sum(process.cpu_times()[:2])
    await asyncio.to_thread(wait_until, lambda: sum(process.cpu_times()[:2]) > spent + 0.05)
    process.send_signal(number)
    if number == signal.SIGSTOP:
        await asyncio.to_thread(wait_until, lambda: process.status() == psutil.STATUS_STOPPED)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 3)
    assert [decided.number for decided in inner.of(events, "trial_decided")] == [0, 1, 2, 3]
    [suspended] = inner.of(events, "mechanism_suspended")
    assert (suspended.hook, suspended.kind) == (trace_pb2.MECHANISM_HOOK_VETO, kind)
    assert not process.is_running()


async def test_an_installation_in_mid_run_says_that_its_state_was_rebuilt(inner) -> None:
    name = await inner.create(max_trials=4)
    for _ in range(3):
        await inner.one_trial(name)
    await inner.install(name, OBSERVING, "observing")
    await inner.install(name, OBSERVING.replace("def observe", "def _observe"), "stateless")
    events = [event async for event in inner.events_so_far(name)]
    replayed = {event.mechanism: event for event in inner.of(events, "mechanism_replayed")}
    assert {name: (event.trials, event.matches) for name, event in replayed.items()} == {
        "observing": (3, True),
        "stateless": (3, True),
    }


@pytest.mark.parametrize("allowed", [False, True])
async def test_the_weak_sandbox_option_reaches_the_gate_and_the_installation(inner, monkeypatch, allowed) -> None:
    seen: list[SandboxPolicy] = []
    start = Channel.start

    async def recording(limits: SandboxLimits, policy: SandboxPolicy) -> Channel:
        seen.append(policy)
        return await start(limits, policy)

    monkeypatch.setattr(Channel, "start", recording)
    inner.runs._loops._sandbox = SandboxPolicy(allow_weak=allowed)
    name = await inner.create(max_trials=1)
    mechanism = await inner.install(name, OBSERVING, "observing")
    assert len(seen) > 3
    assert {policy.allow_weak for policy in seen} == {allowed}
    assert "seccomp" in mechanism.sandbox_layers, "on Linux the option takes no wall away"


async def test_a_machine_without_a_sandbox_is_said_with_what_to_do(inner, monkeypatch) -> None:
    async def missing(limits: SandboxLimits, policy: SandboxPolicy) -> Channel:
        raise SandboxUnavailable("mechanisms need the Linux sandbox")

    monkeypatch.setattr(Channel, "start", missing)
    error = await inner.refusal(inner.install(await inner.create(), OBSERVING, "observing"))
    assert "mechanisms need the Linux sandbox" in error.message
    assert "--allow-weak-sandbox" in f"{error.message} {error.hint}"


async def test_an_installation_into_a_new_run_rebuilds_nothing_and_claims_nothing(inner) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, OBSERVING, "observing")
    assert not inner.of([event async for event in inner.events_so_far(name)], "mechanism_replayed")


@pytest.mark.parametrize("source", [TALKATIVE, GLOBAL], ids=["in an attribute", "in a global"])
async def test_state_from_outside_observe_shows_at_installation_and_after_a_restart(serve_inner, source) -> None:
    async with serve_inner() as inner:
        name = await inner.create(max_trials=6)
        await inner.one_trial(name)
        await inner.one_trial(name)
        mechanism = await inner.install(name, source, "talkative")
        assert "hooks other than observe change its state" in mechanism.report.text
        await inner.one_trial(name)
        await inner.one_trial(name)
    async with serve_inner() as inner:
        await inner.one_trial(name)
        events = [event async for event in inner.events_so_far(name)]
        replayed = inner.of(events, "mechanism_replayed")
        assert [(event.trials, event.matches) for event in replayed] == [(2, False), (4, False)]
        [suspended] = inner.of(events, "mechanism_suspended")
        assert "led to another state than before" in suspended.message
