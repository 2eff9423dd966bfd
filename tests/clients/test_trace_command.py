"""``bilevel trace`` says whether a database says what its log says, with an exit code."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from outer_service import events
from outer_service.campaign import Level, Policy
from outer_service.store import Store
from tests.clients.cli.shape_check import check

BILEVEL = Path(sys.executable).with_name("bilevel")


def bilevel(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run([BILEVEL, "trace", *arguments], capture_output=True, text=True, timeout=60,
                          env=os.environ | environment)  # fmt: skip
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
    code, said = bilevel("verify", *asked, "--json")
    check("trace verify", json.loads(said))
    assert (code, json.loads(said)["differences"]) == (0, [])
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE campaigns SET state = 'failed' WHERE id = 'b'")
    code, said = bilevel("verify", *asked)
    assert code == 1
    assert "campaigns/b: the row's state is failed" in said
    code, said = bilevel("verify", *asked, "--json")
    assert (code, [found["stream"] for found in json.loads(said)["differences"]]) == (1, ["campaigns/b"])
    assert bilevel("verify", "campaigns/a", *asked)[0] == 0
    assert bilevel("rebuild", "b", *asked)[0] == 0
    assert bilevel("verify", *asked)[0] == 0


def test_wrong_input_is_named(database: Path, tmp_path: Path) -> None:
    code, said = bilevel("verify", BILEVEL_HOME=str(tmp_path / "none"))
    assert (code, "BILEVEL_DATABASE: must name" in said, "--database URL names another" in said) == (2, True, True)
    code, said = bilevel("verify", "--database", f"sqlite:///{tmp_path / 'nowhere.db'}")
    assert (code, "must name a database that exists" in said) == (2, True)
    assert not (tmp_path / "nowhere.db").exists()
    code, said = bilevel("verify", "--database", f"sqlite:///{database}")
    assert (code, "which this version does not know" in said) == (1, True)
    code, said = bilevel("rebuild", "nobody", "--service", "outer", "--database", f"sqlite:///{database}")
    assert (code, "'campaigns/nobody' does not exist" in said) == (5, True)
    code, said = bilevel("verify", "nobody", "--service", "outer", "--database", f"sqlite:///{database}")
    assert (code, "'campaigns/nobody' does not exist" in said) == (5, True)
    code, said = bilevel("verify", "--database", "nonsense")
    assert (code, "--database: must be a SQLAlchemy URL" in said) == (2, True)
    (tmp_path / "letter").write_text("Dear reader, " * 1000)
    code, said = bilevel("verify", "--database", f"sqlite:///{tmp_path / 'letter'}")
    assert (code, "Put back a copy" in said, "runs go on" in said) == (3, True, False)
    (tmp_path / "empty").touch()
    code, said = bilevel("verify", "--database", f"sqlite:///{tmp_path / 'empty'}")
    assert (code, "runs go on" in said, "Traceback" in said) == (1, False, False)


def test_damage_to_one_log_leaves_the_others_checked(database: Path) -> None:
    asked = ["--service", "outer", "--database", f"sqlite:///{database}"]
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE events SET payload = '{not json' WHERE stream = 'campaigns/a'")
        connection.execute("UPDATE campaigns SET state = 'failed' WHERE id = 'b'")
    for action in ("verify", "rebuild"):
        code, said = bilevel(action, *asked)
        assert (code, "Traceback" in said) == (1, False)
        assert "campaigns/a: event 1 cannot be read: it is not JSON: " in said
        assert ("campaigns/b: the row's state is failed" in said) is (action == "verify")
        assert f"2 campaigns, 2 events: {'2 differences' if action == 'verify' else '1 difference'}\n" in said
    assert "1 campaign, 1 event: numbers" in bilevel("verify", "b", *asked)[1]
