"""Trials by hand: Propose, Evaluate, Accept. INNER-2."""

from __future__ import annotations

from bilevel.v1 import common_pb2, trace_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, refused, same, wrong_state
from clients.conformance.inner.subject import INNER, InnerSubject
from clients.conformance.suite import NotSeen
from clients.conformance.values import other_values, wrong_values
from clients.conformance.wire import EOF
from service_kit import translate
from service_kit.parameters import Direction

State = trace_pb2.TrialState


@INNER.check("INNER-2.1")
async def baseline(inner: InnerSubject) -> None:
    """The first proposal is the baseline, alone"""
    run = await inner.create()
    trials = await inner.propose(run.name, count=3)
    same("the number of trials that the first Propose gives", len(trials), 1)
    [trial] = trials
    same("the number of the baseline", trial.number, 0)
    same("the origin of the baseline", trace_pb2.TrialOrigin.Name(trial.origin), "TRIAL_ORIGIN_BASELINE")
    same("the state of the baseline", State.Name(trial.state), "TRIAL_STATE_PROPOSED")
    got = translate.configuration_from_proto(trial.configuration)
    same("the configuration of the baseline", got, dict(sorted(inner.space.defaults().items())))


@INNER.check("INNER-2.2")
async def evaluation(inner: InnerSubject) -> None:
    """Evaluate streams the trial's events, from its start to its result"""
    for evaluated in ((await inner.by_hand()).baseline, (await inner.by_hand()).changed):
        kinds = [event.WhichOneof("event") for event in evaluated.events]
        expect(kinds, "Evaluate must stream the trial's events; it gave none")
        wanted = ["trial_started", *["trial_progressed"] * (len(kinds) - 2), "trial_evaluated"]
        same("the events of an evaluation", kinds, wanted)
        numbers = {getattr(event, str(event.WhichOneof("event"))).number for event in evaluated.events}
        same("the trial that the events are about", numbers, {evaluated.proposed.number})


@INNER.check("INNER-2.3")
async def order(inner: InnerSubject) -> None:
    """A trial can neither be accepted before its evaluation nor evaluated again"""
    run = (await inner.create()).name
    [trial] = await inner.propose(run)
    await wrong_state(inner.wire.call("Accept", name=trial.name), "Accept of a PROPOSED trial")
    await inner.evaluate(trial.name)
    await wrong_state(inner.evaluate(trial.name), "Evaluate of an EVALUATED trial")
    await inner.wire.call("Accept", name=trial.name)
    await wrong_state(inner.evaluate(trial.name), "Evaluate of a decided trial")
    await wrong_state(inner.wire.call("Accept", name=trial.name), "Accept of a decided trial")


@INNER.check("INNER-2.4")
async def kept_baseline(inner: InnerSubject) -> None:
    """A measured baseline becomes incumbent and best, and counts as no decided trial"""
    done = (await inner.by_hand()).baseline
    outcome = common_pb2.Outcome.Name(done.accepted.outcome)
    same("the outcome of the task's defaults", outcome, "OUTCOME_SUCCEEDED")
    same("the state of the baseline", State.Name(done.accepted.state), "TRIAL_STATE_KEPT")
    same("the incumbent", done.after.incumbent_trial, done.proposed.name)
    same("the best trial", done.after.best_trial, done.proposed.name)
    same("the baseline's metric", done.after.baseline_metric, done.accepted.metric)
    same("the decided trials", done.after.decided_trials, 0)


@INNER.check("INNER-2.5")
async def own_changes(inner: InnerSubject) -> None:
    """A client's own changes become the next trial"""
    played = await inner.by_hand()
    trial = played.changed.proposed
    same("the origin", trace_pb2.TrialOrigin.Name(trial.origin), "TRIAL_ORIGIN_CLIENT")
    same("the number of the second trial", trial.number, 1)
    before = translate.configuration_from_proto(played.baseline.accepted.configuration)
    got = translate.configuration_from_proto(trial.configuration)
    same("the configuration", got, before | dict(played.changes))
    same("what differs", translate.configuration_from_proto(trial.changes), dict(played.changes))


@INNER.check("INNER-2.6")
async def wrong_changes(inner: InnerSubject) -> None:
    """Changes that break the space are refused by parameter"""
    played = await inner.by_hand()
    for case in wrong_values(inner.space):
        call = inner.propose(played.run, {case.parameter: case.value})
        await invalid(call, f"Propose with {case.why} for {case.parameter}", f"changes.{case.parameter}")
    name = next(iter(played.changes))
    unchanged = {name: (await inner.incumbent(played.run))[name]}
    await invalid(inner.propose(played.run, unchanged), "Propose with changes that change nothing")
    before = len(await inner.trials(played.run))
    same("the trials after refused proposals", before, 2)


@INNER.check("INNER-2.7")
async def greedy(inner: InnerSubject) -> None:
    """A trial is kept exactly if it is strictly better than the incumbent"""
    played = await inner.by_hand()
    done = played.changed
    if done.accepted.outcome != common_pb2.OUTCOME_SUCCEEDED:
        better = False
    else:
        objective = translate.objective_from_proto(inner.task.objective)
        better = objective.better(done.accepted.metric, done.before.incumbent_metric)
        words = "smaller" if objective.direction is Direction.MINIMIZE else "larger"
        said = f"{done.accepted.metric!r} after {done.before.incumbent_metric!r}, where {words} is better,"
        kept = done.accepted.state == State.TRIAL_STATE_KEPT
        expect(kept == better, f"{said} must be {'kept' if better else 'discarded'}; it is not")
    wanted = done.proposed.name if better else done.before.incumbent_trial
    same("the incumbent after the decision", done.after.incumbent_trial, wanted)
    same("the best after the decision", done.after.best_trial, wanted)
    same("the decided trials", done.after.decided_trials, 1)


@INNER.check("INNER-2.9")
async def reading(inner: InnerSubject) -> None:
    """GetTrial gives what ListTrials lists"""
    run = (await inner.by_hand()).run
    listed = await inner.trials(run)
    for trial in listed:
        same(f"GetTrial of {trial.name}", (await inner.wire.call("GetTrial", name=trial.name)).trial, trial)
    beyond = f"{run}/trials/{len(listed) + 5}"
    await refused(inner.wire.call("GetTrial", name=beyond), "GetTrial of a number beyond", "NOT_FOUND")


@INNER.check("COMMON-3.1")
async def pages_of_trials(inner: InnerSubject) -> None:
    """ListTrials gives every trial once, oldest first, in pages"""
    run = (await inner.by_hand()).run
    numbers = [trial.number for trial in await common.pages(inner.wire, "ListTrials", "trials", 1, parent=run)]
    same("the numbers of ListTrials", numbers, list(range(len(numbers))))
    expect(len(numbers) >= 2, f"ListTrials must give both trials; it gives {len(numbers)}")


@INNER.check("INNER-2.10")
async def cancelled(inner: InnerSubject) -> None:
    """Cancelling Evaluate leaves the trial CANCELLED"""
    run = (await inner.create()).name
    [trial] = await inner.propose(run)
    async with inner.wire.stream("Evaluate", name=trial.name) as stream:
        first = await stream.read()
        expect(first is not EOF, "Evaluate must stream events before it ends")
    event = await inner.trace.until(run, lambda event: event.HasField("trial_evaluated"))
    outcome = common_pb2.Outcome.Name(event.trial_evaluated.result.outcome)
    if outcome == "OUTCOME_SUCCEEDED":
        raise NotSeen("the evaluation was too short to be cancelled")
    same("the outcome of a cancelled evaluation", outcome, "OUTCOME_CANCELLED")
    same("the state of the trial", State.Name((await inner.trials(run))[0].state), "TRIAL_STATE_EVALUATED")


@INNER.check("INNER-2.11")
async def frozen(inner: InnerSubject) -> None:
    """A frozen parameter cannot be changed until it is unfrozen"""
    played = await inner.by_hand()
    [name] = played.changes
    if len(inner.space.editable) < 2:
        raise NotSeen("the task has a single parameter, which cannot be frozen")
    [value, *_] = other_values(inner.space[name], (await inner.incumbent(played.run))[name])
    freeze = [trace_pb2.FreezeReason(parameter=name, reason="conformance")]
    await inner.wire.call("UpdateSearchConfig", run=played.run, freeze=freeze)
    try:
        call = inner.propose(played.run, {name: value})
        await invalid(call, f"Propose with the frozen parameter {name}", f"changes.{name}")
    finally:
        await inner.wire.call("UpdateSearchConfig", run=played.run, unfreeze=freeze)
