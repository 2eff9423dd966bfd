"""Runs that the service drives. INNER-1.7 to INNER-1.10, INNER-2.8."""

from __future__ import annotations

from bilevel.v1 import trace_pb2

from clients.conformance.expect import expect, same, wrong_state
from clients.conformance.inner.subject import INNER, InnerSubject
from clients.conformance.suite import NotSeen

State = trace_pb2.RunState
_ENDLESS = 100_000


@INNER.check("INNER-1.8")
async def checkpoints(inner: InnerSubject) -> None:
    """A run pauses at its checkpoints until it is resumed"""
    run = (await inner.create(max_trials=2, checkpoint_every=1)).name
    await inner.wire.call("StartRun", name=run)
    paused = await inner.until(run, State.RUN_STATE_PAUSED)
    same("the state after one decided trial", State.Name(paused.state), "RUN_STATE_PAUSED")
    same("the decided trials at the first checkpoint", paused.decided_trials, 1)
    reached = [e.checkpoint_reached for e in await inner.trace.committed(run) if e.HasField("checkpoint_reached")]
    same("the checkpoints on the trace", [event.decided_trials for event in reached], [1])
    await wrong_state(inner.wire.call("StartRun", name=run), "StartRun of a PAUSED run")
    same("the reason at a checkpoint", paused.state_reason, "checkpoint")
    held = (await inner.wire.call("PauseRun", name=run, reason="to see it stay")).run
    same("the state after PauseRun at a checkpoint", State.Name(held.state), "RUN_STATE_PAUSED")
    same("the reason after PauseRun at a checkpoint", held.state_reason, "to see it stay")
    await wrong_state(inner.wire.call("PauseRun", name=run), "PauseRun of a run that stays PAUSED")
    resumed = (await inner.wire.call("ResumeRun", name=run)).run
    same("the state after ResumeRun", State.Name(resumed.state), "RUN_STATE_RUNNING")
    ended = await inner.until(run)
    same("the state after max_trials", State.Name(ended.state), "RUN_STATE_FINISHED")


@INNER.check("INNER-1.7")
async def to_the_end(inner: InnerSubject) -> None:
    """StartRun drives a run to its end"""
    run = (await inner.create(max_trials=1)).name
    started = (await inner.wire.call("StartRun", name=run)).run
    same("the state after StartRun", State.Name(started.state), "RUN_STATE_RUNNING")
    ended = await inner.until(run, State.RUN_STATE_PAUSED)
    expect(
        ended.state == State.RUN_STATE_FINISHED,
        f"the run must end FINISHED; it is {State.Name(ended.state)}: {ended.state_reason}",
    )
    same("the decided trials of a finished run", ended.decided_trials, 1)
    open_ = [trial.number for trial in await inner.trials(run) if trial.state not in _DECIDED]
    expect(not open_, f"trials of a finished run must be decided or rejected; {open_} are not")
    events = await inner.trace.followed(run)
    same("the last event of a finished run", events[-1].WhichOneof("event"), "run_state_changed")


@INNER.check("INNER-1.10")
async def confirmation(inner: InnerSubject) -> None:
    """A run re-measures its best on fresh seeds before it is finished"""
    run = (await inner.create(max_trials=1, confirmation_seeds=1)).name
    await inner.wire.call("StartRun", name=run)
    ended = await inner.until(run, State.RUN_STATE_PAUSED)
    same("the state at the end", State.Name(ended.state), "RUN_STATE_FINISHED")
    moves = [e.run_state_changed.to_state for e in await inner.trace.committed(run) if e.HasField("run_state_changed")]
    expect(State.RUN_STATE_CONFIRMING in moves, "the run must be CONFIRMING before it is FINISHED")
    expect(ended.HasField("confirmation"), "a finished run with confirmation_seeds must have a confirmation")
    said = ended.confirmation
    same("the confirmed trial", said.trial, ended.best_trial)
    counts = len(said.seeds), len(said.baseline_metrics), len(said.best_metrics)
    same("the numbers of seeds and metrics", counts, (1, 1, 1))
    expect(ended.spec.seed not in said.seeds, "confirmation must use seeds that the search did not use")


@INNER.check("INNER-1.9")
async def pausing(inner: InnerSubject) -> None:
    """PauseRun pauses a running run after its current trial, with the reason"""
    run = (await inner.create(max_trials=_ENDLESS)).name
    await inner.wire.call("StartRun", name=run)
    await inner.wire.call("PauseRun", name=run, reason="to see it pause")
    paused = await inner.until(run, State.RUN_STATE_PAUSED)
    same("the state after PauseRun", State.Name(paused.state), "RUN_STATE_PAUSED")
    expect(
        "to see it pause" in paused.state_reason, f"state_reason must hold the reason; it is {paused.state_reason!r}"
    )
    running = [trial.number for trial in await inner.trials(run) if trial.state == trace_pb2.TRIAL_STATE_RUNNING]
    expect(not running, f"no trial of a paused run may be running; {running} are")
    await inner.wire.call("CancelRun", name=run)


@INNER.check("INNER-2.8")
async def not_by_hand(inner: InnerSubject) -> None:
    """A run that the service drives cannot be driven by hand"""
    run = (await inner.create(max_trials=_ENDLESS)).name
    await inner.wire.call("StartRun", name=run)
    await wrong_state(inner.propose(run), "Propose for a RUNNING run")
    if (await inner.run(run)).state != State.RUN_STATE_RUNNING:
        raise NotSeen("the run did not stay RUNNING")
    await wrong_state(inner.wire.call("StartRun", name=run), "StartRun of a RUNNING run")
    await inner.wire.call("CancelRun", name=run)


_DECIDED = (trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED, trace_pb2.TRIAL_STATE_REJECTED)
