"""The ablation's folder: the plan that it was begun with, so that the same command goes on with it.

What has been run is not kept here: the services know it, by request ids and labels that follow from the plan's id.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.ablation.design import Cell, Design
from service_kit.errors import InvalidArgument
from service_kit.given_files import unwritable

FORMAT = "bilevel-ablation/1"


@dataclass(frozen=True, slots=True)
class Plan:
    """An ablation with its identity."""

    id: str
    design: Design
    folder: Path

    def request_id(self, cell: Cell) -> str:
        """The same for the same cell, so that its run is created once."""
        return f"ablate-{self.id}-{cell.group.name}-{cell.repeat}"

    def labels(self, cell: Cell) -> dict[str, str]:
        """What a run says about its place in the ablation."""
        return {"ablation": self.id, "group": cell.group.name, "repeat": str(cell.repeat)}


def begin(folder: Path, design: Design) -> tuple[Plan, bool]:
    """The folder's plan and whether it was begun before; a new one where there is none.

    Raises :class:`InvalidArgument` when the folder holds another design.
    """
    if not _file(folder).exists():
        plan = Plan(secrets.token_hex(4), design, folder)
        _write(plan)
        return plan, False
    plan = resumable(folder)
    differences = plan.design.differences(design)
    if differences:
        raise InvalidArgument.of(
            "--out",
            f"holds another ablation: {'; '.join(differences)}",
            hint="--resume goes on with the folder's own plan; another folder begins a new one.",
        )
    return plan, True


def resumable(folder: Path) -> Plan:
    """The folder's plan. Raises :class:`InvalidArgument` where there is none that can be read."""
    file = _file(folder)
    if not file.exists():
        raise InvalidArgument.of("--out", f"must be the folder of an ablation; there is no {file}")
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(found["format"])
        return Plan(found["id"], Design.from_json(found["design"]), folder)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument.of("--out", f"holds a plan that this version cannot read: {file}: {error}") from None


def _write(plan: Plan) -> None:
    """Whole or not at all, also when the process is killed meanwhile."""
    file = _file(plan.folder)
    text = json.dumps({"format": FORMAT, "id": plan.id, "design": plan.design.to_json()}, indent=2)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise unwritable(file, "--out", error, hint="Choose another folder with --out.") from None


def _file(folder: Path) -> Path:
    return folder / "ablation.json"
