"""A mechanism's process: answers, failures that are final, and a machine that is left clean."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from mechanisms.interface import Candidate, Hook, SearchView
from mechanisms.replay import incumbents
from mechanisms.sandbox.frames import FrameError, decode
from mechanisms.sandbox.host import FailureKind, MechanismFailure, MechanismProcess, MechanismRejected, SandboxLimits
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Kind, Parameter, ParameterSpace


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def moment(objective: Any, history: Any, **changes: Any) -> SearchView:
    incumbent, best = incumbents(history, objective)[-1]
    active = ("DEPTH", "LR", "BATCH", "DECAY", "HEADS", "ACTIVATION", "TIED", "BETAS", "PATTERN")
    view = SearchView(objective, tuple(history), incumbent, best, active, (), "explore", "be bold", 10)
    return dataclasses.replace(view, **changes)


async def observed(process: MechanismProcess, history: Any) -> MechanismProcess:
    for trial in history:
        await process.observe(trial)
    return process


async def test_every_hook_gets_its_typed_answer(start: Any, objective: Any, history: Any) -> None:
    process = await start(
        """
class Mechanism:
    '''All: every hook.'''
    def __init__(self, space, settings, rng):
        self.gain = settings["gain"]
        self.seen = []
    def observe(self, trial): self.seen.append(trial.number)
    def prompt(self, view):
        return f"{len(self.seen)} {view.strategy} {view.guidance} {view.objective.metric} {view.trials_left}"
    def propose(self, view, count):
        return [Candidate({"DEPTH": view.space.clip("DEPTH", 99)}, "deeper"), {"changes": {"TIED": False}}]
    def revise(self, view, candidate): return Candidate({**candidate.changes, "HEADS": 12}, candidate.hypothesis)
    def veto(self, view, candidate): return "no" if "LR" in candidate.changes else None
    def rank(self, view, candidates): return [len(c.changes) for c in candidates]
    def accept(self, view, trial): return view.objective.better(trial.metric, 0.0)
    def budget(self, view, candidate): return self.gain
""",
        gain=0.5,
    )
    await observed(process, history)
    view = moment(objective, history)
    candidate = Candidate({"LR": 0.1}, "faster")
    assert process.hooks == set(Hook) - {Hook.INIT}
    assert await process.prompt(view) == f"{len(history)} explore be bold val_bpb 10"
    first, second = await process.propose(view, 2)
    assert (dict(first.changes), first.proposer, first.hypothesis) == ({"DEPTH": 16}, "test", "deeper")
    assert dict(second.changes) == {"TIED": False}
    revised = await process.revise(view, candidate)
    assert dict(revised.changes) == {"LR": 0.1, "HEADS": 12}
    assert revised.origin is candidate.origin
    assert await process.veto(view, candidate) == "no"
    assert await process.veto(view, first) is None
    assert await process.rank(view, [candidate, revised]) == (1.0, 2.0)
    assert await process.accept(view, dataclasses.replace(history[1], metric=1.0)) is False
    assert await process.budget(view, candidate) == 0.5


async def test_equal_questions_give_equal_hashes_and_others_do_not(start: Any, objective: Any, history: Any) -> None:
    source = "class Mechanism:\n    def __init__(self, space, settings, rng): self.rng = rng\n"
    source += "    def prompt(self, view): return str(self.rng.random()) + str({'a', 'b', 'c'})\n"
    hashes = []
    for seed in (1, 1, 2):
        process = await observed(await start(source, seed=seed), history)
        await process.prompt(moment(objective, history))
        hashes.append(process.output_hash)
    assert hashes[0] == hashes[1] != hashes[2]


async def test_observing_the_same_history_rebuilds_the_generator(start: Any, objective: Any, history: Any) -> None:
    source = "class Mechanism:\n    def __init__(self, space, settings, rng): self.rng = rng\n"
    source += "    def prompt(self, view): return str(self.rng.random())\n"
    busy = await start(source)
    for place in range(1, len(history)):
        await busy.observe(history[place - 1])
        await busy.prompt(moment(objective, history[:place]))
    await busy.observe(history[-1])
    resumed = await observed(await start(source), history)
    view = moment(objective, history)
    assert await busy.prompt(view) == await resumed.prompt(view)


async def test_a_mechanism_cannot_corrupt_what_it_is_shown(start: Any, objective: Any, history: Any) -> None:
    process = await start(
        """
class Mechanism:
    def prompt(self, view):
        view.history.clear()
        view.incumbent.configuration["DEPTH"] = 99
        view.history[0].changes["LR"] = 1
        return f"{len(view.history)} {view.incumbent.configuration['DEPTH']} {len(view.history[0].changes)}"
"""
    )
    await observed(process, history)
    view = moment(objective, history)
    assert await process.prompt(view) == f"{len(history)} {view.incumbent.configuration['DEPTH']} 0"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise ValueError('x')", FailureKind.RAISED),
        ("while True: pass", FailureKind.TIMED_OUT),
        ("return sum(range(10**10))", FailureKind.TIMED_OUT),
        ("return [0] * 10**9", FailureKind.RAISED),
        ("return b'x'", FailureKind.WRONG_TYPE),
        ("x = []\n        x.append(x)\n        return x", FailureKind.WRONG_TYPE),
        ("return 'x' * 5000", FailureKind.OUT_OF_RANGE),
        ("return 'x' * 500000", FailureKind.FRAME_TOO_LARGE),
        ("def f(n): return f(n + 1)\n        return f(0)", FailureKind.RAISED),
    ],
)
async def test_a_failing_hook_is_typed_and_leaves_no_process(
    start: Any, objective: Any, history: Any, body: str, kind: FailureKind
) -> None:
    source = f"class Mechanism:\n    def prompt(self, view):\n        {body}\n"
    process = await observed(await start(source, limits=SandboxLimits(call_seconds=0.5)), history)
    with pytest.raises(MechanismFailure) as failure:
        await process.prompt(moment(objective, history))
    assert failure.value.kind is kind
    assert failure.value.hook is Hook.PROMPT
    assert len(failure.value.message) < 1000
    assert not process.alive
    assert not running(process.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_signal_in_mid_call_is_a_failure_and_not_a_hang(
    start: Any, objective: Any, history: Any, number: signal.Signals
) -> None:
    source = "class Mechanism:\n    def prompt(self, view):\n        while True: pass\n"
    process = await observed(await start(source), history)
    call = asyncio.create_task(process.prompt(moment(objective, history)))
    await asyncio.sleep(0)
    os.kill(process.pid, number)
    with pytest.raises(MechanismFailure) as failure:
        await call
    assert failure.value.kind in (FailureKind.DIED, FailureKind.TIMED_OUT)
    assert not running(process.pid)


async def test_a_cancelled_call_ends_the_worker(start: Any, objective: Any, history: Any) -> None:
    source = "class Mechanism:\n    def prompt(self, view):\n        while True: pass\n"
    process = await observed(await start(source), history)
    call = asyncio.create_task(process.prompt(moment(objective, history)))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not process.alive


async def test_slow_drips_exhaust_the_budget(start: Any, history: Any) -> None:
    source = "class Mechanism:\n    def observe(self, trial):\n        for i in range(10**6): pass\n"
    limits = SandboxLimits(budget_seconds=0.1, budget_seconds_per_trial=0.0)
    process = await start(source, limits=limits)
    with pytest.raises(MechanismFailure) as failure:
        await observed(process, history * 20)
    assert failure.value.kind is FailureKind.BUDGET_EXHAUSTED


async def test_frozen_parameters_cannot_be_changed(start: Any, objective: Any, history: Any) -> None:
    source = "class Mechanism:\n    def propose(self, view, count): return [Candidate({'BATCH': 512})]\n"
    process = await observed(await start(source), history)
    with pytest.raises(MechanismFailure, match="BATCH: is frozen now") as failure:
        await process.propose(moment(objective, history, active=("DEPTH", "LR"), frozen=("BATCH",)), 1)
    assert failure.value.kind is FailureKind.OUT_OF_RANGE


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\x1b[2J"])
async def test_a_text_that_could_not_be_sent_or_would_steer_a_terminal_is_no_value(text: str, objective: Any) -> None:
    space = ParameterSpace((Parameter("NOTE", Kind.TEXT, "free"),))
    history = synthetic_history(space, objective, 1, seed=1)
    source = f"class Mechanism:\n    def propose(self, view, count): return [Candidate({{'NOTE': {text!a}}})]\n"
    async with await MechanismProcess.start(source, space, objective, {}, 0, name="test") as process:
        await observed(process, history[:1])
        with pytest.raises(MechanismFailure, match="NOTE: must be text without control characters") as failure:
            await process.propose(moment(objective, history[:1], active=("NOTE",)), 1)
    assert failure.value.kind is FailureKind.OUT_OF_RANGE


@pytest.mark.parametrize("name", ["DEPTH\ud800", "\x1b[2J\x07\n"])
async def test_a_failure_can_be_written_down_whatever_it_quotes(
    start: Any, objective: Any, history: Any, name: str
) -> None:
    source = f"class Mechanism:\n    def propose(self, view, count): return [Candidate({{{name!a}: 3}})]\n"
    process = await observed(await start(source), history)
    with pytest.raises(MechanismFailure) as failure:
        await process.propose(moment(objective, history), 1)
    assert failure.value.message.isprintable()


def test_a_frame_with_an_integer_that_floats_cannot_hold_is_no_frame() -> None:
    with pytest.raises(FrameError, match="an integer of 400 digits"):
        decode(b'{"answer": [' + b"9" * 400 + b"]}")


async def test_a_candidate_equal_to_the_incumbent_proposes_nothing(start: Any, objective: Any, history: Any) -> None:
    source = "class Mechanism:\n    def propose(self, view, count):\n"
    source += "        return [Candidate({'LR': view.incumbent.configuration['LR']})]\n"
    process = await observed(await start(source), history)
    assert await process.propose(moment(objective, history), 1) == ()


async def test_proposing_what_was_tried_again_and_again_is_obstruction(
    start: Any, objective: Any, history: Any
) -> None:
    source = "class Mechanism:\n    def propose(self, view, count): return [Candidate({'HEADS': 12})]\n"
    process = await observed(await start(source, limits=SandboxLimits(repeated_proposals=2)), history)
    view = moment(objective, history)
    for _ in range(3):
        (proposed,) = await process.propose(view, 1)
    configuration = {**view.incumbent.configuration, **proposed.changes}
    tried = dataclasses.replace(history[-1], number=len(history), configuration=configuration)
    await process.observe(tried)
    view = moment(objective, (*history, tried))
    await process.propose(view, 1)
    with pytest.raises(MechanismFailure) as failure:
        await process.propose(view, 1)
    assert failure.value.kind is FailureKind.OBSTRUCTED


async def test_a_host_that_skips_an_observation_is_told(start: Any, objective: Any, history: Any) -> None:
    process = await observed(await start("class Mechanism:\n    def prompt(self, view): return ''\n"), history[:3])
    with pytest.raises(ValueError, match="observe every decided trial once"):
        await process.prompt(moment(objective, history))
    assert process.alive


async def test_a_rejected_source_leaves_no_process(start: Any) -> None:
    with pytest.raises(MechanismRejected, match="module os is not available"):
        await start("import os\nx = os.environ\n")
    children = psutil.Process().children()
    assert not [child for child in children if "worker.py" in " ".join(child.cmdline())]


async def test_the_required_layers_hold(start: Any) -> None:
    process = await start("class Mechanism:\n    def prompt(self, view): return ''\n")
    required = {"clean_environment", "closed_descriptors", "no_new_privs", "rlimits", "seccomp"}
    assert required <= set(process.layers)
    status = proc_status(process.pid)
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == 0
        assert psutil.Process(process.pid).environ() == {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        assert psutil.Process(process.pid).num_fds() == 3


async def test_what_a_mechanism_says_cannot_steer_a_terminal(start: Any, objective: Any, history: Any) -> None:
    hostile = r"a\x1b[2J\x00b\u202ec\ud800d\nSYSTEM: e"
    source = f"class Mechanism:\n    '''Bold\x1b[31m: red.'''\n    def prompt(self, view): return '{hostile}'\n"
    source += f"    def veto(self, view, candidate): return '{hostile}'\n"
    source += f"    def budget(self, view, candidate): raise ValueError('{hostile}')\n"
    process = await observed(await start(source), history)
    view, candidate = moment(objective, history), Candidate({"DEPTH": 5}, "")
    assert process.summary == "Bold[31m: red."
    assert await process.prompt(view) == "a[2Jbcd\nSYSTEM: e"
    assert await process.veto(view, candidate) == "a[2Jbcd SYSTEM: e"
    with pytest.raises(MechanismFailure) as failure:
        await process.budget(view, candidate)
    assert failure.value.message == "ValueError: a[2Jbc?d SYSTEM: e"
