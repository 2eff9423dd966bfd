"""The library's entries on the wire, both ways: exported files are these messages as JSON."""

from __future__ import annotations

from bilevel.v1 import outer_pb2 as pb

from outer_service.campaign import Verdict
from outer_service.comparison import Comparison
from outer_service.events import VerdictReached
from outer_service.inner_messages import effect_from_proto, hook_to_proto
from outer_service.library import LibraryEntry, LibraryTrial
from outer_service.translate import event_to_proto
from service_kit.errors import InvalidArgument
from service_kit.translate import timestamp_from_proto, timestamp_to_proto

_VERDICTS = {pb.VERDICT_KEEP: Verdict.KEEP, pb.VERDICT_RETIRE: Verdict.RETIRE, pb.VERDICT_REPLACE: Verdict.REPLACE}


def library_entry_to_proto(entry: LibraryEntry) -> pb.LibraryEntry:
    return pb.LibraryEntry(
        name=entry.name,
        summary=entry.summary,
        source=entry.source,
        author=entry.author,
        session=entry.session,
        task=entry.task,
        create_time=timestamp_to_proto(entry.create_time),
        verdicts=[event_to_proto(verdict) for trial in entry.trials for verdict in trial.verdicts],
        title=entry.title,
        origin=pb.LibraryOrigin.Value(f"LIBRARY_ORIGIN_{entry.origin.name}"),
        derived_from=entry.derived_from,
        model=entry.model,
        scripted=entry.scripted,
        run=entry.run,
        hooks=map(hook_to_proto, entry.hooks),
        trials=map(_trial_to_proto, entry.trials),
    )


def imported_trials(message: pb.LibraryEntry) -> tuple[LibraryTrial, ...]:
    """What a file says that the entry did elsewhere, marked so. Raises :class:`InvalidArgument` naming the field."""
    try:
        return tuple(_imported(trial, f"entry.trials[{i}]") for i, trial in enumerate(message.trials))
    except ValueError as error:
        raise InvalidArgument.of("entry.trials", f"must be what an export wrote: {str(error)[:200]}") from None


def _trial_to_proto(trial: LibraryTrial) -> pb.LibraryTrial:
    return pb.LibraryTrial(
        campaign=trial.campaign,
        run=trial.run,
        task=trial.task,
        mechanism=trial.mechanism,
        time=timestamp_to_proto(trial.time),
        verdicts=map(event_to_proto, trial.verdicts),
        imported=trial.imported,
    )


def _imported(message: pb.LibraryTrial, field: str) -> LibraryTrial:
    return LibraryTrial(
        campaign=message.campaign,
        run=message.run,
        task=message.task,
        mechanism=message.mechanism,
        time=timestamp_from_proto(message.time),
        verdicts=tuple(_verdict(v, f"{field}.verdicts[{i}].verdict") for i, v in enumerate(message.verdicts)),
        imported=True,
    )


def _verdict(message: pb.VerdictReached, field: str) -> VerdictReached:
    if message.verdict not in _VERDICTS:
        said = f"must be VERDICT_KEEP, VERDICT_RETIRE or VERDICT_REPLACE; got {message.verdict}"
        raise InvalidArgument.of(field, said)
    return VerdictReached(
        mechanism=message.mechanism,
        verdict=_VERDICTS[message.verdict],
        reason=message.reason,
        effect=effect_from_proto(message.effect),
        gain_before=message.gain_before,
        gain_during=message.gain_during,
        examination=message.examination,
        trials=message.trials,
        before_after=_comparison(message.before_after) if message.HasField("before_after") else None,
        touched=_comparison(message.touched) if message.HasField("touched") else None,
        changed_decisions=message.changed_decisions,
        decided_trials=message.decided_trials,
    )


def _comparison(m: pb.Comparison) -> Comparison:
    return Comparison(
        m.successes_with, m.trials_with, m.successes_without, m.trials_without, m.difference, m.low, m.high
    )
