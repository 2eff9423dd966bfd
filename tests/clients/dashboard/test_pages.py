"""The pages about runs, as a browser's user meets them: over recorded runs, told by a service on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc
import pytest
from bilevel.v1 import inner_pb2, trace_pb2
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.testing import User, user_simulation

from clients.dashboard.acts.controls import AUTHOR
from clients.dashboard.app import register_pages
from clients.dashboard.door.login import LIVES
from clients.dashboard.feeds import Feeds
from clients.dashboard.services import Services
from clients.report.record import RunRecord
from tests.clients.conftest import HOSTILE
from tests.clients.dashboard.conftest import RecordedInner

ElementT = TypeVar("ElementT", bound=ui.element)

PATIENCE = 100
"""Looks at the page, a tenth of a second apart, before something counts as not shown."""

PICTURE = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def user(recorded: RecordedInner) -> AsyncIterator[User]:
    """Someone at a dashboard of the recorded inner service; no outer service is there."""
    async with user_simulation() as someone:
        services = Services(recorded.address, "127.0.0.1:1")
        register_pages(services, Feeds(services))
        yield someone


async def sees(user: User, *words: str) -> None:
    for each in words:
        await user.should_see(each, retries=PATIENCE)


def running(record: RunRecord, recorded: RecordedInner) -> str:
    """A run whose trace ends in the middle of a trial."""
    ends = [n for n, event in enumerate(record.events) if event.WhichOneof("event") == "trial_progressed"]
    return recorded.tell(record, ends[4] + 1)


async def at_a_run(user: User, bare: RunRecord, recorded: RecordedInner) -> None:
    """A person looks at a run that is at its fourth trial."""
    running(bare, recorded)
    await user.open("/runs/bare1")
    await sees(user, "Trial 4")


async def test_without_runs_the_page_says_how_to_start_one(user: User) -> None:
    await user.open("/")
    await sees(user, "No run yet", "bilevel run --trials 30", "outer service")


async def test_without_a_service_the_page_says_why_and_what_to_do(user: User, recorded: RecordedInner) -> None:
    await recorded.lose()
    await user.open("/")
    await sees(user, "connection lost, trying again", "cannot be reached", "bilevel serve inner")


async def test_runs_are_listed_and_filtered(
    user: User, recorded: RecordedInner, bare: RunRecord, bilevel: RunRecord
) -> None:
    recorded.tell(bare)
    recorded.tell(bilevel)
    await user.open("/")
    await sees(user, "live")
    table = _only(user, ui.table)
    await _until(lambda: len(table.rows) == 2)
    assert {row["id"] for row in table.rows} == {"bare1", "bi1"}
    assert {row["state"] for row in table.rows} == {"finished"}
    user.find(ui.input).type("bilevel")
    await _until(lambda: [row["id"] for row in table.rows] == ["bi1"])
    user.find(ui.input).type(" nothing like it")
    await sees(user, "No run matches")


async def test_a_run_goes_on_while_its_page_is_open(user: User, recorded: RecordedInner, bare: RunRecord) -> None:
    run = running(bare, recorded)
    await user.open("/runs/bare1")
    await sees(user, "level 1", "running", "Trial 4", "training", "3 / 30", "train_loss 4.2")
    told = len(recorded.traces[run])
    for event in list(bare.events)[told : told + 3]:
        recorded.add(event)
    await sees(user, "Between trials", "4 / 30")


async def test_a_run_that_does_not_exist_is_said_so(user: User) -> None:
    await user.open("/runs/nobody")
    await sees(user, "does not exist", "All runs")
    await user.should_not_see("ListRuns")
    await user.open("/runs/nobody/trials/x")
    await sees(user, "No trial x", "All trials of the run")


async def test_what_a_model_wrote_is_text_wherever_it_stands(
    user: User, recorded: RecordedInner, bilevel: RunRecord
) -> None:
    run = recorded.tell(bilevel)
    trial = next(e for e in recorded.traces[run] if e.WhichOneof("event") == "trial_proposed" and _number(e) == 3)
    trial.trial_proposed.trial.hypothesis = PICTURE
    await user.open("/runs/bi1/trials/2")
    await sees(user, HOSTILE)
    await user.open("/runs/bi1/trials/3")
    await sees(user, PICTURE)
    await user.open("/runs/bi1/trials")
    await sees(user, "31 of 31")
    table = _only(user, ui.table)
    await _until(lambda: len(table.rows) == 31)
    assert {HOSTILE, PICTURE} <= {row["hypothesis"] for row in table.rows}
    assert "v-html" not in "".join(str(slot.template) for slot in table.slots.values())
    for kind in (ui.html, ui.markdown):
        await user.should_not_see(kind)


async def test_a_trial_shows_its_difference_and_what_changed_it(
    user: User, recorded: RecordedInner, bilevel: RunRecord
) -> None:
    recorded.tell(bilevel)
    await user.open("/runs/bi1/trials/12")
    await sees(user, "Trial 12", "Difference from the incumbent", "TOTAL_BATCH_SIZE", "peak_memory_mb")
    await sees(user, "turn-round, revise", "would have been: TOTAL_BATCH_SIZE=16384")
    await user.open("/runs/bi1/trials/8")
    await sees(user, "Why it failed", "the training loss exploded at step 9")
    await user.open("/runs/bi1/trials/999")
    await sees(user, "No trial 999")


async def test_the_table_turns_pages_at_the_server(user: User, recorded: RecordedInner, bilevel: RunRecord) -> None:
    recorded.tell(bilevel)
    await user.open("/runs/bi1/trials")
    await sees(user, "31 of 31")
    table = _only(user, ui.table)
    await _until(lambda: len(table.rows) == 31)
    wanted = {"sortBy": "number", "descending": False, "page": 2, "rowsPerPage": 25}
    user.find(ui.table).trigger("request", {"pagination": wanted})
    await _until(lambda: [row["number"] for row in table.rows] == list(range(25, 31)))
    assert table.pagination["rowsNumber"] == 31


async def test_runs_are_compared_on_one_page(
    user: User, recorded: RecordedInner, bare: RunRecord, bilevel: RunRecord
) -> None:
    recorded.tell(bare)
    recorded.tell(bilevel)
    await user.open("/compare?runs=bare1,bi1,nobody")
    await sees(user, "Compare runs", "nobody: run 'runs/nobody' does not exist")
    table, chart = _only(user, ui.table), _only(user, ui.echart)
    await _until(lambda: len(table.rows) == 2)
    assert [one["name"] for one in chart.options["series"]] == ["level 1", "bilevel"]
    await user.open("/compare")
    await sees(user, "No run chosen")


async def test_runs_that_measure_different_things_are_compared_by_their_gains_alone(
    user: User, recorded: RecordedInner, bare: RunRecord, bilevel: RunRecord
) -> None:
    recorded.tell(bare)
    name = recorded.tell(bilevel)
    created = trace_pb2.TraceEvent()
    created.CopyFrom(recorded.traces[name][0])
    objective = created.run_created.task.objective
    objective.direction = {1: 2, 2: 1}[objective.direction]
    recorded.traces[name][0] = created
    await user.open("/compare?runs=bare1,bi1")
    await sees(user, "larger is better", "smaller is better")
    (metric,) = user.find(kind=TextElement, content="Metric").elements
    (gain,) = user.find(kind=TextElement, content="Gain").elements
    assert (metric.props["aria-pressed"], gain.props["aria-pressed"]) == ("false", "true")
    assert "different things" in metric.props["title"]


# Controls


async def test_a_finished_run_cannot_be_controlled_and_its_buttons_say_why(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    recorded.tell(bare)
    await user.open("/runs/bare1")
    await sees(user, "finished")
    button = next(iter(user.find("Pause").elements))
    assert button.props["aria-disabled"] == "true"
    assert "the run is finished" in button.props["title"]
    user.find("Pause").click()
    await _until(lambda: any("Not possible now" in message for message in user.notify.messages))
    assert recorded.asked == []


async def test_pausing_is_kept_on_the_trace_as_a_persons_act(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    user.find("Pause").click()
    await sees(user, "pauses after its current trials")
    assert [request.reason for request in recorded.asked] == [f"paused by {AUTHOR}"]


async def test_cancelling_asks_first(user: User, recorded: RecordedInner, bare: RunRecord) -> None:
    await at_a_run(user, bare, recorded)
    user.find("Cancel…").click()
    await sees(user, "Cancel this run?")
    assert recorded.asked == []
    user.find("Keep it").click()
    user.find("Cancel…").click()
    user.find("Reason, kept on the trace").type("wrong task")
    user.find("Cancel the run").click()
    await sees(user, "cancelled", f"cancelled by {AUTHOR}: wrong task")


async def test_guidance_of_a_person_is_recorded_and_shown_among_what_changed_the_search(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    user.find("Guide…").click()
    user.find(ui.textarea).type(PICTURE)
    user.find("Give guidance").click()
    await sees(user, "a person: changed guidance", PICTURE)
    request = recorded.asked[0]
    assert isinstance(request, inner_pb2.UpdateSearchConfigRequest)
    assert (request.guidance, request.author) == (PICTURE, AUTHOR)
    assert recorded.traces["runs/bare1"][-1].search_config_updated.author == AUTHOR


async def test_guidance_that_is_refused_stays_in_the_dialog_with_the_reason(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    user.find("Guide…").click()
    user.find(ui.textarea).type("Look at the batch size.")
    recorded.refusal = (grpc.StatusCode.ABORTED, "the search configuration has changed")
    user.find("Give guidance").click()
    await sees(user, "The service refused to guide the run", "the search configuration has changed")
    assert _only(user, ui.textarea).value == "Look at the batch size."
    recorded.refusal = None
    user.find("Give guidance").click()
    await sees(user, "a person: changed guidance")
    [request] = recorded.asked
    assert (request.guidance, request.expected_revision, request.check_revision) == ("Look at the batch size.", 0, True)
    await _until(lambda: not any(dialog.value for dialog in user.find(ui.dialog).elements))


@pytest.mark.long  # a client waits longer and longer between attempts
async def test_a_service_that_was_away_is_said_so_until_it_is_back(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    await recorded.lose()
    user.find("Pause").click()
    await sees(user, "The service was not there to pause the run")
    await recorded.serve()
    await user.should_not_see("was not there", retries=20 * PATIENCE)


async def test_what_the_service_refuses_is_said_with_its_reason(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    recorded.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "the run pauses already")
    user.find("Pause").click()
    await sees(user, "The service refused to pause the run", "the run pauses already")


async def test_without_the_role_to_drive_the_controls_say_so_and_ask_for_nothing(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    recorded.refusal = (grpc.StatusCode.PERMISSION_DENIED, "PauseRun needs the role 'drive'")
    await at_a_run(user, bare, recorded)
    user.find("Pause").click()
    await sees(user, "Not possible now: the dashboard's token may not drive runs")
    assert not recorded.asked


async def test_a_page_outlives_its_login_and_does_nothing_for_whoever_is_there_then(
    user: User, recorded: RecordedInner, bare: RunRecord
) -> None:
    await at_a_run(user, bare, recorded)
    alive = True
    assert user.client is not None
    user.client.request.scope[LIVES] = lambda: alive
    user.find("Pause").click()
    await sees(user, "pauses after its current trials")
    alive = False
    user.find("Guide…").click()
    user.find("Give guidance").click()
    await sees(user, "Not possible now: your login has ended")
    assert len(recorded.asked) == 1


def _only(user: User, kind: type[ElementT]) -> ElementT:
    """The one element of a kind on the page."""
    (element,) = user.find(kind).elements
    return element


async def _until(condition: Callable[[], object]) -> None:
    """Wait for what must come; the test's own time-out is the limit."""
    while not condition():  # noqa: ASYNC110 (a page tells nobody that it was drawn)
        await asyncio.sleep(0.05)


def _number(event: trace_pb2.TraceEvent) -> int:
    return event.trial_proposed.trial.number
