"""The pages about runs in headless Chromium: a trial in its panel, the filter, a person's guidance, a comparison."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from clients.blocking import BlockingInnerClient
from clients.dashboard.acts.controls import AUTHOR
from tests.end_to_end.dashboard_stack import IN_A_BROWSER, PATIENCE, Stack, Visit, visit

pytestmark = IN_A_BROWSER

HOSTILE = "<img src=x onerror='window.hacked=1'> smaller orders"


@pytest.fixture(scope="module")
def runs(stack: Stack) -> tuple[str, str]:
    """Ids of a run that has finished and of one that goes on for longer than all tests."""
    done = stack.bilevel("run", "--task", "own", "--trials", "12", "--levels", "1", "--confirm", "0", "--name", "short")
    detached = ("--confirm", "0", "--name", "long", "--detach")
    going = stack.bilevel("run", "--task", "own", "--trials", "20000", "--levels", "1", *detached)
    return _id(done), _id(going)


@pytest.fixture(scope="module")
def logged_in(browser: Browser, stack: Stack) -> Visit:
    """One login for all tests: logins are counted."""
    return visit(browser, stack, viewport={"width": 1440, "height": 900})


@pytest.fixture
def someone(logged_in: Visit) -> Iterator[Visit]:
    """A tab of their own. Nothing that a page must never do may have happened at the end."""
    tab = Visit(logged_in.context, logged_in.context.new_page())
    tab.watch()
    yield tab
    assert tab.page.evaluate("window.hacked") is None
    assert tab.wrong == []
    tab.page.close()


def test_a_click_anywhere_on_a_row_opens_the_trial_and_escape_closes_it(someone: Visit, runs: tuple[str, str]) -> None:
    page = someone.page
    page.goto(f"/runs/{runs[0]}/trials")
    page.locator(".trials tbody tr").filter(has_text="ORDER_SIZE").first.click(position={"x": 600, "y": 12})
    panel = page.locator(".side-panel")
    expect(panel.get_by_text("Difference from the incumbent")).to_be_visible(timeout=PATIENCE)
    expect(panel.locator(".diff td").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(page).to_have_url(f"{page.url.split('/runs')[0]}/runs/{runs[0]}/trials")


def test_the_table_is_filtered_with_the_keyboard(someone: Visit, runs: tuple[str, str]) -> None:
    page = someone.page
    page.goto(f"/runs/{runs[0]}/trials")
    page.locator(".trials tbody tr").nth(12).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("starting configuration")
    expect(page.locator(".trials tbody tr")).to_have_count(1, timeout=PATIENCE)
    expect(page.locator(".filters .number")).to_have_text("1 of 13")
    expect(page.locator(".trials tbody tr")).to_contain_text("baseline")


def test_a_persons_guidance_reaches_the_trace_and_the_page_as_text(
    someone: Visit, stack: Stack, runs: tuple[str, str]
) -> None:
    page = someone.page
    page.goto(f"/runs/{runs[1]}")
    page.get_by_role("button", name="Guide…").wait_for()
    expect(page.locator(".facts dd").first).to_contain_text("20,000", timeout=PATIENCE)
    page.keyboard.press("g")
    page.get_by_label("Guidance").fill(HOSTILE)
    page.get_by_role("button", name="Give guidance").click()
    expect(page.locator(".moments")).to_contain_text("a person: changed guidance", timeout=PATIENCE)
    expect(page.locator(".moments")).to_contain_text(HOSTILE)
    with BlockingInnerClient(stack.addresses["inner"]) as inner:
        trace = inner.watch_trace(f"runs/{runs[1]}", follow=False)
        [update] = [event.search_config_updated for event in trace if event.HasField("search_config_updated")]
    assert (update.author, update.search_config.guidance) == (AUTHOR, HOSTILE)


def test_what_a_finished_run_does_not_allow_is_disabled_with_its_reason(someone: Visit, runs: tuple[str, str]) -> None:
    page = someone.page
    page.goto(f"/runs/{runs[0]}")
    pause = page.get_by_role("button", name="Pause")
    expect(pause).to_have_attribute("title", "the run is finished: nothing about it changes any more", timeout=PATIENCE)
    expect(pause).to_have_attribute("aria-disabled", "true")


def test_two_runs_are_compared_over_trials_and_over_time(someone: Visit, runs: tuple[str, str]) -> None:
    page = someone.page
    page.goto(f"/compare?runs={','.join(runs)}")
    expect(page.locator(".compared tbody tr")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator(".chart svg text", has_text="trial").first).to_be_visible()
    page.get_by_role("button", name="Time").click()
    expect(page.locator(".chart svg text", has_text="trial")).to_have_count(0)
    page.get_by_role("button", name="Gain").click()
    expect(page.get_by_role("button", name="Gain")).to_have_attribute("aria-pressed", "true")


def test_the_theme_follows_the_system_until_it_is_chosen(someone: Visit) -> None:
    page = someone.page
    page.emulate_media(color_scheme="dark")
    page.goto("/")
    page.get_by_role("button", name="Theme: system").wait_for()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert light != dark
    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(background) == dark
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Theme: dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "system")
    assert page.evaluate(background) == light


def _id(started: object) -> str:
    """The run's id out of what `bilevel run --json` prints."""
    found = started[0] if isinstance(started, list) else started
    return str(found["run"]).removeprefix("runs/")  # type: ignore[index]
