"""The dashboard's own process: its pages' websockets hear whoever opened the page, and bear whatever they are sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.clients.dashboard.test_door import PASSWORD, VIEWER, Browser
from tests.end_to_end.person import BILEVEL, wait_until

RELOAD = '44{"message":"Implicit handshake failed"}'
"""What makes NiceGUI's script load the page again."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a dashboard with two passwords, and its log."""
    tmp_path = tmp_path_factory.mktemp("dashboard")
    published, log = tmp_path / "address", tmp_path / "log"
    passwords = {"BILEVEL_DASHBOARD_PASSWORD": PASSWORD, "BILEVEL_DASHBOARD_VIEW_PASSWORD": VIEWER}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*BILEVEL, "dashboard", "--port", "0", "--address-file", str(published)],
            env=os.environ | passwords,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        wait_until(lambda: published.exists() or process.poll() is not None, 60, "the address of the dashboard")
        assert process.poll() is None, log.read_text()
        yield published.read_text().strip(), log
    finally:
        process.terminate()
        process.wait(20)


class Tab:
    """A page as a browser has it: opened with the cookie of the moment, connected with that of another."""

    def __init__(self, browser: Browser, page: str) -> None:
        self.browser = browser
        found = re.search(r'client_id["\']?\s*:\s*["\']([0-9a-f-]{36})', page)
        assert found is not None
        self.client_id = found[1]

    async def connect(self, *, implicit: bool = True) -> aiohttp.ClientWebSocketResponse:
        """Greets as NiceGUI's script does: in the address, or with an event of its own."""
        query = {"EIO": "4", "transport": "websocket"}
        if implicit:
            query |= self.greeting() | {"implicit_handshake": "true"}
        address = f"ws://{self.browser.address}/_nicegui_ws/socket.io/?{urlencode(query)}"
        socket = await self.browser.http.ws_connect(address, headers={"Origin": self.browser.origin})
        assert (await socket.receive_str(timeout=20)).startswith("0{")
        await socket.send_str("40")
        return socket

    def greeting(self) -> dict[str, str]:
        return {"client_id": self.client_id, "tab_id": "one", "document_id": "one", "next_message_id": "0"}


async def test_a_page_hears_only_the_login_that_opened_it(served: tuple[str, Path]) -> None:
    address, log = served
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        browser = Browser(address, http)
        await browser.log_in(PASSWORD)
        tab = Tab(browser, (await browser.get("/runs/none"))[1])
        socket = await tab.connect()
        assert (await socket.receive_str(timeout=20)).startswith("40{")
        await socket.close()
        await browser.post("/logout", {"csrf": await browser.token("/logout")})
        await browser.log_in(VIEWER)
        socket = await tab.connect()
        assert await socket.receive_str(timeout=20) == RELOAD
        socket = await tab.connect(implicit=False)
        assert (await socket.receive_str(timeout=20)).startswith("40{")
        await socket.send_str("421" + json.dumps(["handshake", tab.greeting()]))
        assert await socket.receive_str(timeout=20) == "431[false]"
        event = {"client_id": tab.client_id, "id": 1, "listener_id": "x", "args": []}
        await socket.send_str("42" + json.dumps(["event", event]))
        assert await _ends(socket)
    assert "Traceback" not in log.read_text()


async def test_what_no_page_sends_closes_that_socket_and_is_one_line_of_the_log(served: tuple[str, Path]) -> None:
    address, log = served
    already = len(log.read_text())
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        browser = Browser(address, http)
        await browser.log_in(PASSWORD)
        tab = Tab(browser, (await browser.get("/"))[1])
        malformed = [
            ['451-["event",{"_placeholder":true,"num":7}]', "4x"],
            ['452-["a"]', "452-[]", "4y", "4z"],
            ["\x00"],
            ["4"],
            ["42[{}]"],
            ['42["event"]'],
            ['42["event",{"id":1}]'],
            ['42["ack",7]'],
            ['42["handshake",{"client_id":[]}]'],
            ["42" + json.dumps(["event", {"client_id": tab.client_id, "id": 1}])],
        ]
        for frames in malformed:
            socket = await tab.connect()
            assert (await socket.receive_str(timeout=20)).startswith("40{")
            for frame in frames:
                await socket.send_str(frame)
            assert await _ends(socket), frames
        assert (await browser.get("/"))[0] == 200
    lines = log.read_text()[already:].splitlines()
    assert sum("websocket closed: malformed" in line for line in lines) == len(malformed), "\n".join(lines)
    assert not [line for line in lines if "Traceback" in line or '"level": "error"' in line or "ERROR" in line]


async def _ends(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the server closes it rather than waiting in vain for an answer to its ping."""
    async with asyncio.timeout(20):
        async for message in socket:
            if message.data == "1":  # engineio's own word for it
                return True
            if message.data == "2":
                return False
    return socket.close_code == 1008
