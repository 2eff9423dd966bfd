"""Recursion: procedures over campaigns, their ruling, and a whole change from proposal to verdict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import outer_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from clients.scripted_researcher.procedures import SOURCE
from mechanisms.fence import fenced
from outer_service.procedures import (
    Adopted,
    Counted,
    ProcedureEvent,
    ProcedureState,
    Ruled,
    decode,
    encode,
    fold,
    ruling,
)
from outer_service.store import Store

NEW = Adopted("a" * 64, "source", "Does things.", "m-1", "campaigns/c0")


def counted(number: int, procedure: str, sessions: int, kept: int) -> Counted:
    return Counted(f"campaigns/c{number}", procedure, sessions, kept)


def ruled(*events: ProcedureEvent, probation: int = 2) -> tuple[ProcedureState, str] | None:
    found = ruling(fold(events), probation)
    return None if found is None else (found[0].state, found[0].reason)


def test_a_procedure_is_in_force_from_its_adoption_to_its_retirement() -> None:
    adopted = fold([counted(0, "", 1, 0), NEW])
    assert (adopted.current, adopted.on_probation, adopted.predecessor) == (NEW.sha256, True, "")
    kept = fold([NEW, Ruled(NEW.sha256, ProcedureState.KEPT, "why")])
    assert (kept.current, kept.on_probation) == (NEW.sha256, False)
    retired = fold([NEW, Ruled(NEW.sha256, ProcedureState.RETIRED, "why")])
    assert (retired.current, retired.on_probation) == ("", False)
    assert NEW.sha256 in retired.known


def test_nothing_is_ruled_before_its_time() -> None:
    assert ruled(NEW, counted(1, NEW.sha256, 1, 0), counted(2, "", 9, 9)) is None
    assert ruled(counted(1, "", 1, 1)) is None


@pytest.mark.parametrize(
    ("before", "under", "state", "said"),
    [
        ((2, 1), (2, 0), ProcedureState.RETIRED, "no session led to a mechanism that was kept, and some did before"),
        ((12, 11), (12, 2), ProcedureState.RETIRED, "fewer sessions led to"),
        ((12, 1), (12, 11), ProcedureState.KEPT, "more sessions led to"),
        ((2, 1), (2, 1), ProcedureState.KEPT, "an effect is not established"),
        ((2, 0), (0, 0), ProcedureState.RETIRED, "no research took place under it"),
    ],
)
def test_the_ruling_follows_from_sessions_whose_mechanism_was_kept(
    before: tuple[int, int], under: tuple[int, int], state: ProcedureState, said: str
) -> None:
    new = NEW.sha256
    found = ruled(counted(0, "", *before), NEW, counted(1, new, *under), counted(2, new, 0, 0))
    assert found is not None
    assert found[0] is state
    assert said in found[1]
    assert "after 2 campaigns" in found[1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=6), st.integers(0, 20))
def test_no_ruling_claims_more_than_its_interval(under: list[tuple[int, int]], before: int) -> None:
    events = [counted(i + 1, NEW.sha256, max(a, b), min(a, b)) for i, (a, b) in enumerate(under)]
    found = ruling(fold([counted(0, "", 20, before), NEW, *events]), 2)
    assert found is not None
    event, comparison, campaigns = found
    assert campaigns == len(under)
    if event.reason.startswith("more"):
        assert comparison is not None
        assert comparison.low > 0
    if event.reason.startswith("fewer"):
        assert comparison is not None
        assert comparison.high < 0


@pytest.mark.parametrize("event", [NEW, counted(1, "", 2, 1), Ruled("b" * 64, ProcedureState.KEPT, "why")])
def test_events_survive_the_log(event: ProcedureEvent) -> None:
    stored = encode(event)
    assert decode(stored.kind, stored.payload) == event


async def test_procedures_are_remembered_beside_the_campaigns(tmp_path: Path) -> None:
    for _ in range(2):
        store = await Store.open(f"sqlite:///{tmp_path}/outer.db")
        try:
            if not (await store.procedures()).known:
                await store.note_procedure(NEW)
                await store.note_procedure(counted(1, NEW.sha256, 2, 1))
            found = await store.procedures()
            assert (found.current, found.tally(NEW.sha256)) == (NEW.sha256, (1, 2, 1))
            assert await store.verify() == []
        finally:
            await store.close()


def of_kind(events: list[Any], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


async def searched(services: Any, outer: Any, trials: int = 20, **policy: Any) -> list[Any]:
    run = await services.run(trials=trials, checkpoint=10)
    campaign = await outer.campaign(run, levels=[pb.LEVEL_MECHANISM], **policy)
    await services.start(run)
    return await outer.events(campaign.name)  # type: ignore[no-any-return]


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
async def test_level_two_changes_its_own_procedure_works_by_it_and_judges_it(
    services: Any, outer_service: Callable[..., Any]
) -> None:
    async with outer_service("recursion") as outer:
        first = await searched(services, outer, recursion=True, procedure_probation=1)
        [judged] = of_kind(first, "procedure_judged")
        assert (judged.source, judged.turn.scripted, judged.attempt) == (SOURCE, True, 1)
        assert judged.turn.round == pb.RESEARCH_ROUND_PROCEDURE
        assert "1 recorded and 3 synthetic moments" in judged.report.text
        [changed] = of_kind(first, "procedure_changed")
        assert (changed.state, changed.procedure) == (pb.PROCEDURE_STATE_PROBATION, judged.report.source_sha256)
        assert not of_kind(first, "research_started")[0].HasField("advice")

        plain = await searched(services, outer, trials=11)
        assert not of_kind(plain, "research_started")[0].HasField("advice")  # off by default
        assert not of_kind(plain, "procedure_judged")

        second = await searched(services, outer, recursion=True, procedure_probation=1)
        [started] = of_kind(second, "research_started")
        assert (started.advice.procedure, started.advice.hypotheses) == (changed.procedure, 3)
        [explored, *_] = of_kind(second, "round_finished")
        assert "and give 3 candidates" in explored.turn.prompt[-1].content
        rulings = of_kind(second, "procedure_changed")
        assert [ruling.state for ruling in rulings] == [pb.PROCEDURE_STATE_KEPT]
        assert (rulings[0].campaigns, rulings[0].sessions.trials_with) == (1, 1)
        assert "an effect is not established" in rulings[0].reason
        # The scripted researcher has one template only, and that is in force.
        [again] = of_kind(second, "procedure_judged")
        assert (again.source, again.reason) == ("", "scripted: the only template was proposed before")


LAZY = 'def research(hook, record):\n    """Lazy: never look."""\n    return False if hook == "look" else None\n'
FRAGILE = '''def research(hook, record):
    """Fragile: fails where a search stands still for long."""
    if hook == "look":
        return record["decided"] != 20
    return record["sessions"][5] if record["decided"] == 11 else ["bandits"] if hook == "fields" else None
'''


@pytest.mark.asyncio(loop_scope="module")
async def test_a_rejected_procedure_is_repaired_a_failing_one_retired_and_the_default_decides(
    services: Any, outer_service: Callable[..., Any], model_endpoint: Any
) -> None:
    model = {"OPENAI_BASE_URL": model_endpoint.address, "BILEVEL_MODEL": "test-model"}
    none = {"explore": [{"bottleneck": "b", "candidates": [{"name": "bold", "idea": "be bold"}]}]}
    none["critique"] = [{"choice": "none", "reason": "no"}]
    broken = {"change": True, "reason": "r", "source": "def study(hook, record):\n    return None\n"}
    async with outer_service("failing-procedure", model) as outer:
        model_endpoint.answers = {**none, "procedure": [broken, {"change": True, "reason": "r", "source": FRAGILE}]}
        first = await searched(services, outer, trials=11, recursion=True)
        judged = of_kind(first, "procedure_judged")
        assert [judgement.attempt for judgement in judged] == [1, 2]
        asked = judged[1].turn.prompt[-1].content
        assert fenced("gate", judged[0].report.text, "the") in asked
        assert fenced("source", broken["source"], "the rejected") in asked
        assert "rename study to research" in judged[0].report.text

        run = await services.run(trials=12, checkpoint=11)
        campaign = await outer.campaign(run, levels=[pb.LEVEL_MECHANISM], mechanism_every=11, recursion=True)
        request = pb.PreviewPromptRequest(run=run, round=pb.RESEARCH_ROUND_PROCEDURE)
        previewed = (await outer.stub.PreviewPrompt(request)).messages[-1].content
        assert fenced("procedure", FRAGILE, "the") in previewed
        assert previewed.count('\n- {"decided": ') == 1
        model_endpoint.answers = {**none, "procedure": [{"change": True, "reason": "r", "source": LAZY}]}
        await services.start(run)
        second = await outer.events(campaign.name)
        [retired, *rest] = of_kind(second, "procedure_changed")
        assert (retired.state, retired.procedure) == (pb.PROCEDURE_STATE_RETIRED, judged[1].report.source_sha256)
        assert "it failed: research raised: IndexError" in retired.reason
        [started] = of_kind(second, "research_started")
        assert not started.advice.fields
        assert [change.state for change in rest] == [pb.PROCEDURE_STATE_PROBATION]

        third = await searched(services, outer, trials=11, recursion=True)
        assert not of_kind(third, "research_started")  # the lazy one never looks
        assert len(of_kind(third, "cycle_finished")) == 1
