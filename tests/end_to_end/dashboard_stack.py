"""A dashboard in front of real services, and a headless Chromium in front of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.end_to_end.person import BILEVEL, User, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PASSWORD, VIEWER = "a password for driving", "a password for looking"
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
IN_A_BROWSER = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not CHROMIUM, reason="needs chromium (apt-get install chromium): the browser's tests are left out"
    ),
]
"""The marks of tests that look at pages."""
PATIENCE = 60_000
"""Milliseconds that a page may take to show something: the machine may be busy."""


@dataclass
class Stack:
    """The scripted researcher, both services over one task, and the dashboard; each a process of its own."""

    user: User
    task: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *command: str, **environment: str) -> str:
        """Start one, or start it again where it was, and wait for its address."""
        published = self.user.folder / f"{name}.address"
        published.unlink(missing_ok=True)
        with self.log(name).open("a") as log:
            process = subprocess.Popen(
                [*BILEVEL, *command, "--address-file", str(published)],
                cwd=self.user.folder,
                env=self.user.environment(**environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        wait_until(lambda: published.exists() or process.poll() is not None, 60, f"the address of {name}")
        assert process.poll() is None, self.log(name).read_text()
        self.addresses[name] = published.read_text().strip()
        return self.addresses[name]

    def start_inner(self, listen: str = "127.0.0.1:0") -> None:
        endpoint = {
            "OPENAI_BASE_URL": f"http://{self.addresses['researcher']}/v1",
            "BILEVEL_MODEL": "scripted-researcher",
        }
        self.start("inner", "serve", "inner", "--listen", listen, "--task", f"own={self.task}", **endpoint)

    def start_all(self) -> None:
        researcher = self.start("researcher", "serve", "researcher", "--listen", "127.0.0.1:0")
        self.start_inner()
        self.start(
            *("outer", "serve", "outer", "--listen", "127.0.0.1:0", "--inner", self.addresses["inner"]),
            OPENAI_BASE_URL=f"http://{researcher}/v1",
            BILEVEL_MODEL="scripted-researcher",
        )
        self.start(
            *("dashboard", "dashboard", "--port", "0"),
            *("--inner", self.addresses["inner"], "--outer", self.addresses["outer"]),
            BILEVEL_DASHBOARD_PASSWORD=PASSWORD,
            BILEVEL_DASHBOARD_VIEW_PASSWORD=VIEWER,
        )

    def kill(self, name: str) -> None:
        """End one without warning."""
        self.processes[name].kill()
        self.processes[name].wait(20)

    def log(self, name: str) -> Path:
        """What one has written so far, across its restarts."""
        return self.user.folder / f"{name}.log"

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            process.wait(40)

    @property
    def url(self) -> str:
        return f"http://{self.addresses['dashboard']}"

    def bilevel(self, *arguments: str) -> dict[str, str]:
        """What a command prints as JSON."""
        where = {"BILEVEL_INNER": self.addresses["inner"], "BILEVEL_OUTER": self.addresses["outer"]}
        done = self.user.bilevel(*arguments, "--json", **where)
        assert done.returncode == 0, done.stderr
        answer: dict[str, str] = json.loads(done.stdout)
        return answer


@dataclass
class Visit:
    """One browser window at the dashboard, which notes whatever a page should never do."""

    context: BrowserContext
    page: Page
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note dialogs, errors of scripts, and what the content security policy stopped."""

        def dialog(shown: object) -> None:
            self.wrong.append("a dialog was opened")
            shown.dismiss()  # type: ignore[attr-defined]

        self.page.on("dialog", dialog)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script error: {error}"))
        self.page.on(
            "console",
            lambda message: self.wrong.append(message.text) if "Content Security Policy" in message.text else None,
        )


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield browser
        browser.close()


def visit(browser: Browser, stack: Stack, password: str = PASSWORD, **options: object) -> Visit:
    """Somebody who has logged in."""
    context = browser.new_context(base_url=stack.url, **options)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    someone = Visit(context, page)
    someone.watch()
    if password:
        page.goto("/")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Runs").wait_for()
    return someone
