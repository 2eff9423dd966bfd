"""Feeds: each event once, across restarts of the service; what is away, refused or at its end is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from bilevel.v1 import trace_pb2

from clients.dashboard import feeds as feeds_module
from clients.dashboard.feeds import Feed, Feeds, Status
from clients.dashboard.services import Services
from clients.report.record import RunRecord
from tests.clients.dashboard.conftest import RecordedInner


@pytest.fixture
async def feeds(recorded: RecordedInner, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    monkeypatch.setattr(feeds_module, "RETRY", 0.05)
    services = Services(recorded.address, "127.0.0.1:1")
    feeds = Feeds(services)
    yield feeds
    await feeds.close()
    await services.close()


async def until(condition: Callable[[], object], feed: Feed) -> None:
    """Wait for what must come; the test's own time-out is the limit."""
    while not condition():
        feed.look()
        await asyncio.sleep(0.01)


async def test_a_feed_survives_a_restart_and_takes_each_event_once(
    feeds: Feeds, recorded: RecordedInner, bare: RunRecord
) -> None:
    run = recorded.tell(bare, 60)
    feed = feeds.run(run)
    await until(lambda: feed.view.last_sequence == 60, feed)
    assert feed.status is Status.LIVE
    await recorded.lose()
    await until(lambda: feed.status is Status.LOST, feed)
    assert "cannot be reached" in str(feed.problem)
    assert "bilevel serve inner" in str(feed.problem)
    assert feed.view.last_sequence == 60
    await recorded.serve()
    await until(lambda: feed.status is Status.LIVE, feed)
    recorded.add(trace_pb2.TraceEvent(run=run, remarked=trace_pb2.Remarked(author="a person", text="back again")))
    await until(lambda: feed.view.last_sequence == 61, feed)
    assert [remark.text for remark in feed.view.remarks][-1] == "back again"
    assert recorded.watched_after[0] == 0
    assert set(recorded.watched_after[1:]) == {60}
    assert feed.problem is None


async def test_all_pages_share_one_stream(feeds: Feeds, recorded: RecordedInner, bare: RunRecord) -> None:
    run = recorded.tell(bare, 30)
    first, second = feeds.run(run), feeds.run(run)
    assert first is second
    await until(lambda: first.view.last_sequence == 30, first)
    assert recorded.watched_after == [0]


async def test_the_end_of_a_run_ends_its_feed(feeds: Feeds, recorded: RecordedInner, bare: RunRecord) -> None:
    feed = feeds.run(recorded.tell(bare))
    await until(lambda: feed.status is Status.ENDED, feed)
    assert feed.view.state == trace_pb2.RUN_STATE_FINISHED
    assert not feed.behind


async def test_an_unknown_run_is_refused_and_asked_for_again_when_its_page_is_opened_again(
    feeds: Feeds, recorded: RecordedInner, bare: RunRecord
) -> None:
    feed = feeds.run("runs/bare1")
    await until(lambda: feed.status is Status.REFUSED, feed)
    assert "does not exist" in str(feed.problem)
    recorded.tell(bare)
    await until(lambda: feeds.run("runs/bare1").status is Status.ENDED, feed)


async def test_a_stream_that_cannot_be_folded_is_said_and_not_shown_as_live(
    feeds: Feeds, recorded: RecordedInner, bare: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feeds.run(recorded.tell(bare))

    def fail(event: object) -> None:
        raise ValueError("no such trial")

    monkeypatch.setattr(feed.view, "apply", fail)
    await until(lambda: feed.status is Status.REFUSED, feed)
    assert "no such trial" in str(feed.problem)


async def test_the_list_shows_runs_where_the_outer_service_is_away(
    feeds: Feeds, recorded: RecordedInner, bare: RunRecord
) -> None:
    recorded.tell(bare)
    overview = feeds.overview
    await until(lambda: overview.view.read, overview)
    assert [row.id for row in overview.view.rows] == ["bare1"]
    assert "outer service" in str(overview.view.outer_problem)


async def test_a_feed_that_nobody_looks_at_ends(
    feeds: Feeds, recorded: RecordedInner, bare: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds_module, "LINGER", 0.1)
    feed = feeds.run(recorded.tell(bare, 30))
    await until(lambda: feed.view.last_sequence == 30, feed)
    async with asyncio.timeout(60):
        while feeds.run("runs/bare1") is feed:  # noqa: ASYNC110 (nothing says that a feed has ended: nobody looks)
            await asyncio.sleep(0.3)
