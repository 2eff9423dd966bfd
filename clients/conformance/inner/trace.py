"""The trace: a numbered stream, and the only truth. COMMON-5, INNER-3."""

from __future__ import annotations

from bilevel.v1 import trace_pb2

from clients.conformance.expect import expect, invalid, same
from clients.conformance.inner.subject import AUTHOR, INNER, InnerSubject

_STEPS = {
    "trial_proposed": ("", "proposed"),
    "trial_rejected": ("proposed", "rejected"),
    "trial_started": ("proposed started", "started"),
    "trial_progressed": ("started", "started"),
    "trial_evaluated": ("started", "evaluated"),
    "trial_decided": ("evaluated", "decided"),
}
"""For each event of a trial: after what it may come, and what it leads to."""


@INNER.check("COMMON-5.1")
async def numbered(inner: InnerSubject) -> None:
    """Events are numbered from 1 without gaps"""
    await inner.trace.is_numbered((await inner.by_hand()).run, "run_created")


@INNER.check("COMMON-5.2")
async def resumes(inner: InnerSubject) -> None:
    """A watch resumes exactly, from any number"""
    await inner.trace.resumes((await inner.by_hand()).run)


@INNER.check("COMMON-5.3")
async def no_follow(inner: InnerSubject) -> None:
    """A watch that does not follow ends"""
    await inner.trace.ends_without_following((await inner.by_hand()).run)


@INNER.check("COMMON-5.4")
async def heartbeats(inner: InnerSubject) -> None:
    """An idle watch sends heartbeats"""
    await inner.trace.beats((await inner.idle()).name)


@INNER.check("COMMON-5.5")
async def follows(inner: InnerSubject) -> None:
    """A watch that follows gets new events, once"""
    run = (await inner.idle()).name
    await inner.trace.follows(run, lambda: _remark(inner, run, "while somebody watches"))


@INNER.check("COMMON-5.6")
async def ends(inner: InnerSubject) -> None:
    """A watch ends with its run"""
    await inner.trace.ends_with_its_resource((await inner.cancelled()).name)


@INNER.check("COMMON-5.7")
async def wrong_numbers(inner: InnerSubject) -> None:
    """Numbers that do not exist and heartbeats out of range are refused"""
    await inner.trace.refuses_wrong_numbers((await inner.idle()).name)


@INNER.check("COMMON-5.8")
async def head(inner: InnerSubject) -> None:
    """last_sequence and etag follow the events"""
    run = (await inner.idle()).name
    before = await inner.run(run)
    same("last_sequence", before.last_sequence, (await inner.trace.committed(run))[-1].sequence)
    same("the etag while nothing happens", (await inner.run(run)).etag, before.etag)
    sequence = await _remark(inner, run, "to change the etag")
    after = await inner.run(run)
    expect(after.etag != before.etag, "the etag must change with the run")
    same("last_sequence after a remark", after.last_sequence, sequence)


@INNER.check("INNER-3.1")
async def truth(inner: InnerSubject) -> None:
    """State is what the log says"""
    run = (await inner.by_hand()).run
    now, events = await inner.run(run), await inner.trace.committed(run)
    decided = [event.trial_decided for event in events if event.HasField("trial_decided")]
    same("decided_trials", now.decided_trials, sum(decision.number > 0 for decision in decided))
    for trial in await inner.trials(run):
        kept = [decision.kept for decision in decided if decision.number == trial.number]
        if kept:
            wanted = "TRIAL_STATE_KEPT" if kept[0] else "TRIAL_STATE_DISCARDED"
            same(f"the state of trial {trial.number}", trace_pb2.TrialState.Name(trial.state), wanted)
    cancelled = await inner.cancelled()
    moves = [
        e.run_state_changed for e in await inner.trace.committed(cancelled.name) if e.HasField("run_state_changed")
    ]
    expect(moves, "a run that was cancelled must have run_state_changed on its trace")
    same("the last state on the trace", moves[-1].to_state, cancelled.state)


@INNER.check("INNER-3.2")
async def order_of_trials(inner: InnerSubject) -> None:
    """A trial's events come in the order of its life"""
    reached: dict[int, str] = {}
    for event in await inner.trace.committed((await inner.by_hand()).run):
        kind = str(event.WhichOneof("event"))
        if kind in _STEPS:
            body = getattr(event, kind)
            number = body.trial.number if kind == "trial_proposed" else body.number
            after, reaches = _STEPS[kind]
            now = reached.get(number, "")
            expect(now in after.split() or now == after, f"trial {number} has {kind} after being {now or 'nothing'}")
            reached[number] = reaches
    same("what became of both trials", reached, {0: "decided", 1: "decided"})


@INNER.check("INNER-3.3")
async def remarks(inner: InnerSubject) -> None:
    """A remark is on the trace under the number that it was given"""
    run = (await inner.idle()).name
    sequence = await _remark(inner, run, "a remark of the examination")
    [event] = (await inner.trace.committed(run, sequence - 1))[:1]
    same("the kind of the event", event.WhichOneof("event"), "remarked")
    same("its text", (event.remarked.author, event.remarked.text), (AUTHOR, "a remark of the examination"))
    for text, which in (("", "an empty text"), ("x" * 2001, "a text of 2001 characters")):
        await invalid(_remark(inner, run, text), f"Remark with {which}", "text")


async def _remark(inner: InnerSubject, run: str, text: str) -> int:
    return int((await inner.wire.call("Remark", run=run, author=AUTHOR, text=text)).sequence)
