"""The clients without ``await``, for scripts and notebooks: the same methods, and iterators for the streams.

Each client keeps an event loop in a thread of its own, so that it also works where one is running already (Jupyter).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from clients.addresses import INNER, OUTER
from clients.inner import InnerClient
from clients.outer import OuterClient
from clients.report.record import RunRecord

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


class _Background:
    """An event loop in a thread, and the client that lives on it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bilevel-client", daemon=True)
        self._thread.start()

        async def made() -> Any:
            return make()

        try:
            self._client = self._wait(made())
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. Safe to call again."""
        if self._thread.is_alive():
            self._wait(self._client.close())
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Any) -> Any:
        """The result of a coroutine; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _plain(method: Callable[Concatenate[C, P], Awaitable[T]]) -> Callable[Concatenate[_Background, P], T]:
    @wraps(method)
    def call(self: _Background, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._wait(method(self._client, *args, **kwargs))
        return result

    return call


def _stream(
    method: Callable[Concatenate[C, P], AsyncIterator[T]],
) -> Callable[Concatenate[_Background, P], Iterator[T]]:
    @wraps(method)
    def call(self: _Background, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        events: Any = method(self._client, *args, **kwargs)
        end = object()
        try:
            while (event := self._wait(anext(events, end))) is not end:
                yield event
        finally:
            self._wait(events.aclose())

    return call


class BlockingInnerClient(_Background):
    """A connection to one inner service. ``with BlockingInnerClient() as inner:`` closes it at the end.

    Every method is that of :class:`clients.InnerClient`, and raises what it raises.
    """

    def __init__(self, address: str = INNER.address) -> None:
        super().__init__(lambda: InnerClient(address))

    list_tasks = _plain(InnerClient.list_tasks)
    create_run = _plain(InnerClient.create_run)
    get_run = _plain(InnerClient.get_run)
    list_runs = _plain(InnerClient.list_runs)
    start_run = _plain(InnerClient.start_run)
    pause_run = _plain(InnerClient.pause_run)
    resume_run = _plain(InnerClient.resume_run)
    cancel_run = _plain(InnerClient.cancel_run)
    propose = _plain(InnerClient.propose)
    evaluate = _stream(InnerClient.evaluate)
    accept = _plain(InnerClient.accept)
    get_trial = _plain(InnerClient.get_trial)
    list_trials = _plain(InnerClient.list_trials)
    watch_trace = _stream(InnerClient.watch_trace)
    checkpoints = _stream(InnerClient.checkpoints)
    remark = _plain(InnerClient.remark)
    update_search_config = _plain(InnerClient.update_search_config)
    configure_search = _plain(InnerClient.configure_search)
    describe_search = _plain(InnerClient.describe_search)
    check_mechanism = _plain(InnerClient.check_mechanism)
    install_mechanism = _plain(InnerClient.install_mechanism)
    uninstall_mechanism = _plain(InnerClient.uninstall_mechanism)
    list_mechanisms = _plain(InnerClient.list_mechanisms)
    list_lessons = _plain(InnerClient.list_lessons)
    lessons_page = _plain(InnerClient.lessons_page)
    get_lesson = _plain(InnerClient.get_lesson)
    create_lesson = _plain(InnerClient.create_lesson)
    delete_lesson = _plain(InnerClient.delete_lesson)


class BlockingOuterClient(_Background):
    """A connection to one outer service. ``with BlockingOuterClient() as outer:`` closes it at the end.

    Every method is that of :class:`clients.OuterClient`, and raises what it raises.
    """

    def __init__(self, address: str = OUTER.address) -> None:
        super().__init__(lambda: OuterClient(address))

    create_campaign = _plain(OuterClient.create_campaign)
    get_campaign = _plain(OuterClient.get_campaign)
    list_campaigns = _plain(OuterClient.list_campaigns)
    campaign_of = _plain(OuterClient.campaign_of)
    cancel_campaign = _plain(OuterClient.cancel_campaign)
    pause_campaign = _plain(OuterClient.pause_campaign)
    resume_campaign = _plain(OuterClient.resume_campaign)
    watch_campaign = _stream(OuterClient.watch_campaign)
    list_research_sessions = _plain(OuterClient.list_research_sessions)
    list_library_entries = _plain(OuterClient.list_library_entries)
    preview_prompt = _plain(OuterClient.preview_prompt)
    get_library_entry = _plain(OuterClient.get_library_entry)
    import_library_entry = _plain(OuterClient.import_library_entry)


def read_run(inner: BlockingInnerClient, run: str, outer: BlockingOuterClient | None = None) -> RunRecord:
    """The run as its trace tells it so far, for tables, plots and other tools; ``await collect(…)`` without ``await``.

    Args:
        inner: A client of the run's service.
        run: Resource name.
        outer: Where given, the newest campaign that supervises the run is part of the record.

    Raises RemoteError: NOT_FOUND, UNAVAILABLE.
    """
    events = list(inner.watch_trace(run, follow=False))
    campaign = outer.campaign_of(run) if outer is not None else None
    if outer is None or campaign is None:
        return RunRecord(events)
    return RunRecord(events, list(outer.watch_campaign(campaign.name, follow=False)))
