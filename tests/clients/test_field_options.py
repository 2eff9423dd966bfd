"""Every field of a run and of a campaign's policy can be set from the command line, in one way each."""

from __future__ import annotations

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from clients.cli.field_options import set_fields
from clients.cli.refusals import in_flags, own_flags
from clients.searching import SearchPlan
from service_kit.errors import InvalidArgument, RemoteError, Violation

POLICY = {
    "configuration_every": "3",
    "mechanism_every": "6",
    "repairs": "0",
    "probation_trials": "4",
    "max_failures": "2",
    "max_mechanisms": "1",
    "after_failures": "pause_run",
    "reexamination_trials": "9",
    "max_cycle_time": "90.5",
    "procedure_probation": "5",
}
SPEC = {
    "checkpoint_every": "4",
    "labels.group": "A=1",
    "early_stopping.grace_fraction": "0.5",
    "early_stopping.min_curves": "7",
    "early_stopping.confidence": "0.9",
    "noise.multiple": "3",
}


def texts(fields: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in fields.items()]


def policy(*given: str) -> outer_pb2.CampaignPolicy:
    message = outer_pb2.CampaignPolicy()
    set_fields(message, "--policy", given, own_flags("policy"))
    return message


def spec(*given: str) -> trace_pb2.RunSpec:
    message = trace_pb2.RunSpec()
    set_fields(message, "--spec", given, own_flags("spec"))
    return message


def leaves(message: type, above: str = "") -> set[str]:
    """Paths of everything in a message that can be set."""
    found = set[str]()
    for name, field in message.DESCRIPTOR.fields_by_name.items():  # type: ignore[attr-defined]
        of_ours = field.message_type is not None and field.message_type.full_name.startswith("bilevel.v1.")
        plain = of_ours and not field.message_type.GetOptions().map_entry and name != "start"
        found |= leaves(field.message_type._concrete_class, f"{above}{name}.") if plain else {f"{above}{name}"}
    return found


def test_there_is_a_way_to_say_every_field_and_one_only() -> None:
    assert leaves(outer_pb2.CampaignPolicy) == set(POLICY) | set(own_flags("policy"))
    assert leaves(trace_pb2.RunSpec) == {name.partition("labels.")[0] or "labels" for name in SPEC} | set(
        own_flags("spec")
    )


def test_every_field_reaches_the_campaign_and_the_run() -> None:
    plan = SearchPlan("t", more_policy=policy(*texts(POLICY)), more_spec=spec(*texts(SPEC)))
    sent = plan.policy()
    assert sent.after_failures == outer_pb2.AFTER_FAILURES_PAUSE_RUN
    assert (sent.HasField("repairs"), sent.repairs) == (True, 0)
    assert (sent.max_cycle_time.seconds, sent.max_cycle_time.nanos) == (90, 500_000_000)
    assert (sent.configuration_every, sent.max_mechanisms, sent.procedure_probation) == (3, 1, 5)
    run = plan.spec()
    assert (run.checkpoint_every, dict(run.labels)) == (4, {"group": "A=1"})
    assert (run.early_stopping.min_curves, run.early_stopping.grace_fraction, run.noise.multiple) == (7, 0.5, 3)


def test_the_run_pauses_as_often_as_the_policy_looks() -> None:
    assert SearchPlan("t", more_policy=policy("configuration_every=3")).spec().checkpoint_every == 3
    looks = SearchPlan("t", levels=("2",), more_policy=policy("mechanism_every=7"))
    assert looks.spec().checkpoint_every == 7


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("after_failures=stop", r"--policy: after_failures must be go_on or pause_run; got 'stop'"),
        ("levels=1", r"--policy: must not hold levels, which has a flag of its own: --levels"),
        ("nothing=1", r"--policy: has no field nothing; there are after_failures, configuration_every, "),
        ("max_cycle_time=nan", r"--policy: max_cycle_time must be seconds; got 'nan'"),
        ("repairs=two", r"--policy: repairs must be a whole number; got 'two'"),
        ("repairs=99999999999", r"--policy: repairs is out of the range of its type"),
        ("repairs", r"--policy: must be NAME=VALUE; got 'repairs'"),
        ("repairs.x=1", r"--policy: repairs.x is not a field: repairs has none of its own"),
    ],
)
def test_what_cannot_be_set_is_said_with_what_can(given: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        policy(given)


def test_a_field_is_given_once_and_a_message_by_its_fields() -> None:
    with pytest.raises(InvalidArgument, match="repairs is given twice"):
        policy("repairs=1", "repairs=2")
    with pytest.raises(InvalidArgument, match=r"--spec: labels cannot be set as a whole: say labels.KEY=VALUE"):
        spec("labels=1")
    with pytest.raises(InvalidArgument, match=r"--spec: noise cannot be set as a whole: say noise.NAME=VALUE"):
        spec("noise=1")


def test_a_services_refusal_names_the_option_and_the_field() -> None:
    violations = [Violation("policy.repairs", "must be from 0 to 10; got 11"), Violation("spec.noise", "is too much")]
    with pytest.raises(InvalidArgument) as caught, in_flags():
        raise RemoteError("wrong", code="INVALID_ARGUMENT", violations=violations)
    assert [(v.field, v.description) for v in caught.value.violations] == [
        ("--policy", "repairs must be from 0 to 10; got 11"),
        ("--noise-repeats", "is too much"),
    ]
