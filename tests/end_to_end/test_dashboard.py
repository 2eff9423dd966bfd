"""The dashboard as people use it: headless Chromium at a live run of real services."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from clients.inner import InnerClient
from tests.end_to_end.dashboard_stack import (
    IN_A_BROWSER,
    PASSWORD,
    PATIENCE,
    VIEWER,
    Stack,
    Visit,
    visit,
)

pytestmark = IN_A_BROWSER

HOSTILE = "<img src=x onerror=\"window.hacked=1;alert('h')\"><script>window.hacked=1;alert('s')</script>"
HOSTILE_SOURCE = f'''class Mechanism:
    """Halves orders. </script><svg onload="window.hacked=1;alert(1)"> {{{{ window.hacked = 1 }}}}"""

    # {HOSTILE}
    def propose(self, view, count):
        size = view.incumbent.configuration["ORDER_SIZE"]
        size = size // 2 if size >= 16 else 2 * size
        return [{{"changes": {{"ORDER_SIZE": size}}, "hypothesis": "{HOSTILE.replace('"', "'")}"}}]
'''


@pytest.fixture(scope="module")
def run(stack: Stack) -> str:
    """The id of a run that goes on for longer than all tests: they look at it, pause it, and end it."""
    started = stack.bilevel(
        *("run", "--task", "own", "--trials", "20000", "--levels", "1,1.5,2", "--confirm", "0", "--name", "live"),
        *("--concurrent", "--detach"),
    )
    return started["run"].removeprefix("runs/")


@pytest.fixture(scope="module")
def finished(stack: Stack) -> str:
    """The id of a short run that has ended."""
    ended = stack.bilevel("run", "--task", "own", "--trials", "30", "--confirm", "3", "--name", "finished")
    return ended["run"].removeprefix("runs/")


@pytest.fixture
def someone(browser: Browser, stack: Stack) -> Iterator[Visit]:
    """Logged in, at a wide window. Nothing that a page must never do may have happened at the end."""
    visitor = visit(browser, stack, viewport={"width": 1440, "height": 900})
    yield visitor
    assert visitor.page.evaluate("window.hacked") is None
    assert visitor.wrong == []
    visitor.context.close()


def trials(page: Page) -> int:
    """Decided trials as the run's page says."""
    text = page.locator(".facts dt", has_text="Trials").locator("xpath=following-sibling::dd").first.inner_text()
    return int(text.split("/")[0].replace(",", ""))


def until_more_trials(page: Page, than: int) -> None:
    page.wait_for_function(
        """than => [...document.querySelectorAll('.facts dt')].some(dt => dt.textContent === 'Trials'
            && parseInt(dt.nextElementSibling.textContent.replaceAll(',', '')) > than)""",
        arg=than,
    )


def test_nobody_gets_in_without_the_password(stack: Stack, browser: Browser) -> None:
    visitor = visit(browser, stack, password="")
    page = visitor.page
    page.goto("/lessons")
    expect(page).to_have_url(f"{stack.url}/login?next=%2Flessons")
    page.get_by_label("Password").fill("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{stack.url}/lessons")
    [cookie] = [c for c in visitor.context.cookies() if c["name"] == "bilevel_session"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.get_by_role("link", name="Log out").click()
    page.get_by_role("button", name="Log out").click()
    page.goto("/")
    expect(page).to_have_url(f"{stack.url}/login")
    assert visitor.wrong == []
    visitor.context.close()


def test_forms_of_other_pages_are_refused(stack: Stack, someone: Visit) -> None:
    form = {"password": PASSWORD, "csrf": "made up"}
    for origin in (stack.url, "http://evil.example", "null"):
        answer = someone.context.request.post("/login", form=form, headers={"Origin": origin})
        assert answer.status == 403, origin
    assert (
        someone.context.request.post("/logout", form={"csrf": "made up"}, headers={"Origin": stack.url}).status == 403
    )
    someone.page.reload()
    expect(someone.page.get_by_role("heading", name="Runs")).to_be_visible()


def test_a_page_of_another_port_cannot_open_the_websocket_although_it_has_the_cookie(
    stack: Stack, someone: Visit
) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    script = """url => new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => done('open');
        socket.onerror = () => done('refused');
    })"""
    target = f"ws://{stack.addresses['dashboard']}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert someone.page.evaluate(script, target) == "open"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        other = someone.context.new_page()
        other.goto(f"http://127.0.0.1:{server.server_port}/")
        assert other.evaluate(script, target) == "refused"
    finally:
        server.shutdown()


def test_the_curve_grows_and_a_mechanism_appears_with_its_effect(someone: Visit, run: str) -> None:
    page = someone.page
    page.goto(f"/runs/{run}")
    page.locator(".chart svg path").first.wait_for(state="attached")
    before, drawn = trials(page), page.locator(".chart svg path").count()
    until_more_trials(page, before + 5)
    page.wait_for_function("drawn => document.querySelectorAll('.chart svg path').length > drawn", arg=drawn)
    page.get_by_role("link", name="Mechanisms").click()
    page.locator("section.panel h2 a").first.click()
    expect(page.locator(".tag.good", has_text="active")).to_be_visible()
    page.wait_for_function(
        """() => [...document.querySelectorAll('.facts dt')].some(dt => dt.textContent === 'Decisions changed'
            && parseInt(dt.nextElementSibling.textContent) > 0)"""
    )
    expect(page.get_by_text("class Mechanism").first).to_be_visible()
    expect(page.locator(".tag", has_text="seccomp")).to_be_visible()


def test_the_research_can_be_read_as_a_conversation(someone: Visit, run: str) -> None:
    page = someone.page
    page.goto(f"/runs/{run}/research")
    for words in ("Explore: what holds the search back?", "Critique: which idea, or none?", "The gate, attempt 1"):
        expect(page.get_by_role("heading", name=words).first).to_be_visible(timeout=PATIENCE)
    page.locator("summary", has_text="What was asked").first.click()
    expect(page.get_by_label("Message of the user").first).to_be_visible()
    expect(page.get_by_text("The scripted researcher answered").first).to_be_visible()


def test_the_main_path_needs_no_mouse_and_pausing_and_resuming_work(someone: Visit, run: str) -> None:
    page = someone.page
    page.goto("/")
    page.get_by_role("link", name="live", exact=True).wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "live":
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{page.url.split('/runs')[0].rstrip('/')}/runs/{run}")
    page.get_by_role("button", name="Pause").wait_for()
    until_more_trials(page, 0)
    page.keyboard.press("p")
    expect(page.locator(".state").first).to_contain_text("paused", timeout=PATIENCE)
    paused_at = trials(page)
    page.keyboard.press("p")
    expect(page.locator(".state").first).to_contain_text("running", timeout=PATIENCE)
    until_more_trials(page, paused_at)
    page.keyboard.press("3")
    expect(page).to_have_url(f"{page.url.split('/runs')[0]}/runs/{run}/mechanisms")


def test_a_killed_inner_service_comes_back_on_the_same_page(stack: Stack, someone: Visit, run: str) -> None:
    page = someone.page
    page.goto(f"/runs/{run}")
    until_more_trials(page, 0)
    page.evaluate("window.sameDocument = true")
    stack.kill("inner")
    expect(page.locator(".connection").first).to_contain_text("lost", timeout=PATIENCE)
    before = trials(page)
    stack.start_inner(stack.addresses["inner"])
    expect(page.locator(".connection").first).to_contain_text("live", timeout=PATIENCE)
    until_more_trials(page, before)
    assert page.evaluate("window.sameDocument") is True


async def hostile_run(stack: Stack) -> str:
    """A run driven by hand, whose hypothesis and mechanism try to run script in the page; returns its id."""
    from bilevel.v1 import trace_pb2

    async with InnerClient(stack.addresses["inner"]) as inner:
        run = await inner.create_run(trace_pb2.RunSpec(task="own", max_trials=5, display_name=HOSTILE))
        for changes in (None, {"ORDER_SIZE": 512}):
            [trial] = await inner.propose(run.name, changes=changes, hypothesis=HOSTILE if changes else "")
            async for _ in inner.evaluate(trial.name):
                pass
            await inner.accept(trial.name)
        await inner.install_mechanism(run.name, "hostile", HOSTILE_SOURCE, author=HOSTILE)
        await inner.remark(run.name, HOSTILE, HOSTILE)
        return run.name.removeprefix("runs/")


def test_script_in_what_a_model_wrote_is_shown_as_text(stack: Stack, someone: Visit) -> None:
    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as elsewhere:
        run = elsewhere.submit(asyncio.run, hostile_run(stack)).result()
    page = someone.page
    for path, words in (
        ("/", HOSTILE),
        (f"/runs/{run}", HOSTILE),
        (f"/runs/{run}/trials", HOSTILE),
        (f"/runs/{run}/trials/1", HOSTILE),
        (f"/runs/{run}/mechanisms", "Halves orders. </script><svg onload="),
        (f"/runs/{run}/mechanisms/hostile", f"# {HOSTILE}"),
        (f"/compare?runs={run}", HOSTILE),
    ):
        page.goto(path)
        expect(page.get_by_text(words).first).to_be_attached(timeout=PATIENCE)
        assert page.locator("img[src=x], svg[onload]").count() == 0, path
        assert page.evaluate("window.hacked") is None, path


def test_a_viewer_may_look_and_nothing_else(stack: Stack, browser: Browser, run: str) -> None:
    visitor = visit(browser, stack, VIEWER)
    page = visitor.page
    page.goto(f"/runs/{run}")
    until_more_trials(page, 0)
    pause = page.get_by_role("button", name="Pause")
    expect(pause).to_have_attribute("aria-disabled", "true", timeout=PATIENCE)
    pause.click(force=True)
    expect(page.get_by_text("you are logged in for looking only").first).to_be_visible()
    before = trials(page)
    until_more_trials(page, before)
    visitor.context.close()


def test_a_run_is_cancelled_only_when_asked_twice(someone: Visit, run: str) -> None:
    page = someone.page
    page.goto(f"/runs/{run}")
    until_more_trials(page, 0)
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".state").first).to_contain_text("cancelled", timeout=PATIENCE)


def pages(run: str, mechanism: str) -> dict[str, str]:
    """Name and address of every page."""
    return {
        "runs": "/",
        "search": f"/runs/{run}",
        "trials": f"/runs/{run}/trials",
        "trial": f"/runs/{run}/trials/3",
        "mechanisms": f"/runs/{run}/mechanisms",
        "mechanism": f"/runs/{run}/mechanisms/{mechanism}",
        "research": f"/runs/{run}/research",
        "run-lessons": f"/runs/{run}/lessons",
        "cost": f"/runs/{run}/cost",
        "compare": f"/compare?runs={run}",
        "lessons": "/lessons",
        "library": "/library",
        "logout": "/logout",
    }


@pytest.mark.timeout(600)
def test_every_page_is_accessible_and_is_photographed(
    stack: Stack, browser: Browser, finished: str, tmp_path: Path
) -> None:
    """In light and dark, wide and on a phone; BILEVEL_SCREENSHOTS names the folder for the pictures."""
    from axe_playwright_python.sync_playwright import Axe

    folder = Path(os.environ.get("BILEVEL_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    mechanism = str(stack.bilevel("mechanisms", "list", finished)[0]["name"]).rpartition("/")[2]  # type: ignore[index]
    addresses = pages(finished, mechanism)
    found: list[str] = []
    for scheme in ("light", "dark"):
        for width, height in ((1440, 900), (390, 844)):
            visitor = visit(browser, stack, viewport={"width": width, "height": height}, color_scheme=scheme)
            for name, path in addresses.items():
                visitor.page.goto(path)
                visitor.page.wait_for_timeout(700)
                visitor.page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=name != "research")
                overflow = visitor.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                if overflow > 0:
                    found.append(f"{name} {scheme} {width}: {overflow} px wider than the window")
                if width < 1000:
                    continue  # the same elements
                rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}, "resultTypes": ["violations"]}
                report = Axe().run(visitor.page, options=rules).response
                assert report["passes"], f"nothing of {name} was checked"
                for violation in report["violations"]:
                    where = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
                    found.append(f"{name} {scheme} {width}: {violation['id']}: {where}")
            assert visitor.wrong == []
            visitor.context.close()
    assert len(list(folder.glob("*.png"))) >= 4 * len(addresses)
    assert found == []


def test_the_dashboard_drains_and_its_log_holds_no_password(stack: Stack) -> None:
    stack.processes["dashboard"].terminate()
    assert stack.processes.pop("dashboard").wait(30) == 0
    log = stack.log("dashboard").read_text()
    assert PASSWORD not in log
    assert "Traceback" not in log
