"""``bilevel trace`` says whether a database says what its log says, with an exit code."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from outer_service import events
from outer_service.campaign import Level, Policy
from outer_service.store import Store

BILEVEL = Path(sys.executable).with_name("bilevel")


def bilevel(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([BILEVEL, "trace", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    store = await Store.open(f"sqlite:///{tmp_path / 'outer.db'}")
    for id_ in ("a", "b"):
        policy = Policy(levels=(Level.CONFIGURATION,))
        await store.create(id_, events.CampaignCreated(f"runs/{id_}", "gpt", policy))
    await store.close()
    return tmp_path / "outer.db"


def test_a_database_is_verified_found_damaged_and_mended(database: Path) -> None:
    asked = ["--service", "outer", "--database", f"sqlite:///{database}"]
    code, said = bilevel("verify", *asked)
    assert (code, said) == (0, "2 campaigns, 2 events: numbers have no gaps, and every row is what the log says\n")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE campaigns SET state = 'failed' WHERE id = 'b'")
    code, said = bilevel("verify", *asked)
    assert code == 1
    assert "campaigns/b: the row's state is failed" in said
    assert bilevel("verify", "campaigns/a", *asked)[0] == 0
    assert bilevel("rebuild", "b", *asked)[0] == 0
    assert bilevel("verify", *asked)[0] == 0


def test_wrong_input_is_named(database: Path, tmp_path: Path) -> None:
    code, said = bilevel("verify", "--database", f"sqlite:///{tmp_path / 'nowhere.db'}")
    assert (code, "must name a database that exists" in said) == (2, True)
    assert not (tmp_path / "nowhere.db").exists()
    code, said = bilevel("verify", "--database", f"sqlite:///{database}")
    assert (code, "which this version does not know" in said) == (1, True)
    code, said = bilevel("rebuild", "nobody", "--service", "outer", "--database", f"sqlite:///{database}")
    assert (code, "'campaigns/nobody' does not exist" in said) == (1, True)
