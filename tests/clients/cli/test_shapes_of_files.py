"""What commands about files print as JSON: no service is needed for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clients.cli import app
from tests.clients.cli.shape_check import check


def printed(name: str, *arguments: str) -> Any:
    done = CliRunner().invoke(app, [*name.split(), *arguments, "--json"], prog_name="bilevel")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    check(name, document)
    return document


def test_certificates_are_named_by_their_paths(tmp_path: Path) -> None:
    for path in printed("certs", "--out", str(tmp_path / "certs")).values():
        assert Path(path).exists()


def test_a_token_is_made_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = printed("tokens add", "ada", "--role", "read", "--expires", "never")
    assert made["token"]
    assert (made["roles"], made["expires"]) == (["read"], None)
    assert made["token"] not in (tmp_path / "tokens.toml").read_text()
    assert printed("tokens list") == {"ada": {"roles": ["read"], "expires": None}}
    assert printed("tokens remove", "ada") == {"removed": "ada", "file": "tokens.toml"}
    assert printed("tokens list") == {}


@pytest.mark.long
@pytest.mark.parametrize("round_", ["explore", "propose", "procedure"])
def test_a_prompt_of_the_written_example_is_json_too(round_: str) -> None:
    command = [sys.executable, "-c", "from clients.cli import main; main()"]
    done = subprocess.run([*command, "prompts", "show", "--example", "--round", round_, "--json"],
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    document = json.loads(done.stdout)
    check("prompts show", document)
    assert document["estimated_tokens"] > 0
