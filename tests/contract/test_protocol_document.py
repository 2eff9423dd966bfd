"""docs/protocol.md holds every RPC, state and reason of an error; every clause that can be seen has a check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bilevel.v1 import inner_pb2, outer_pb2, task_pb2, trace_pb2

from clients.conformance import common
from clients.conformance.inner import INNER
from clients.conformance.outer import OUTER
from clients.conformance.task import TASK
from service_kit.status import CODES

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CLAUSES = {match[1]: match[2] for match in re.finditer(r"^\* \*\*([A-Z]+-\d+\.\d+)\*\* (.+)$", DOCUMENT, re.MULTILINE)}
SUITES = (TASK, INNER, OUTER)
CHECKED = {check.clause for suite in SUITES for check in suite.checks}
SERVICES = {
    "task": task_pb2.DESCRIPTOR.services_by_name["TaskService"],
    "inner": inner_pb2.DESCRIPTOR.services_by_name["InnerLoopService"],
    "outer": outer_pb2.DESCRIPTOR.services_by_name["OuterLoopService"],
}
METHODS = [(folder, method.name) for folder, service in SERVICES.items() for method in service.methods]
UNCHECKED: dict[str, str] = {}
"""Methods that the conformance kit deliberately does not call, with the reason: "InnerLoopService/Name": "why"."""


def test_every_clause_has_a_number_of_its_own() -> None:
    listed = re.findall(r"^\* \*\*([A-Z]+-\d+\.\d+)\*\*", DOCUMENT, re.MULTILINE)
    assert len(listed) == len(set(listed)) == len(CLAUSES) > 60


def test_every_clause_says_must_or_should() -> None:
    assert not [clause for clause, text in CLAUSES.items() if "MUST" not in text and "SHOULD" not in text]


def test_every_check_cites_a_clause_of_the_document() -> None:
    assert not CHECKED - set(CLAUSES)


def test_every_clause_that_can_be_seen_from_outside_has_a_check() -> None:
    unseen = {clause for clause, text in CLAUSES.items() if text.startswith("†")}
    assert set(CLAUSES) - unseen - CHECKED == set()
    assert unseen & CHECKED == set()


@pytest.mark.parametrize(("folder", "method"), METHODS)
def test_every_rpc_is_described(folder: str, method: str) -> None:
    section = DOCUMENT.split(f"\n## {SERVICES[folder].name}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert [line for line in table if f"`{method}`" in line.split("|")[1]], (
        f"docs/protocol.md lacks a line for {method}"
    )


@pytest.mark.parametrize(("folder", "method"), METHODS)
def test_every_rpc_is_called_by_the_kit(folder: str, method: str) -> None:
    name = f"{SERVICES[folder].name}/{method}"
    sources = [file.read_text() for file in (ROOT / "clients" / "conformance" / folder).glob("*.py")]
    called = any(f'"{method}"' in source for source in sources)
    hint = f"add a clause to docs/protocol.md and a check to clients/conformance/{folder}, or name {name} in UNCHECKED"
    assert called != (name in UNCHECKED), hint


def test_every_reason_of_an_error_is_described_with_its_status() -> None:
    rows = {row[1]: row[2] for row in re.finditer(r"^\| ([A-Z_]+) \| ([A-Z_]+) \|", DOCUMENT, re.MULTILINE)}
    served = {reason: code.name for code, reason in CODES.values()} | {"INTERNAL": "INTERNAL"}
    assert rows == served
    assert set(rows) == common.REASONS


@pytest.mark.parametrize("enum", ["RunState", "TrialState", "MechanismState"])
def test_every_state_is_in_a_diagram(enum: str) -> None:
    _expect_states(trace_pb2.DESCRIPTOR.enum_types_by_name[enum])


def test_every_state_of_a_campaign_is_in_a_diagram() -> None:
    _expect_states(outer_pb2.DESCRIPTOR.enum_types_by_name["CampaignState"])


def _expect_states(enum: object) -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", DOCUMENT, re.DOTALL)
    first, *values = enum.values  # type: ignore[attr-defined]
    states = {value.name.removeprefix(first.name.removesuffix("UNSPECIFIED")) for value in values}
    drawn = [set(re.findall(r"\b[A-Z]{4,}\b", diagram)) for diagram in diagrams]
    assert any(states <= names for names in drawn), f"no diagram shows all of {sorted(states)}"
