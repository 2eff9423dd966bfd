"""What the researcher reads of a prompt: the fenced ``json search-state`` block, typed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from service_kit.parameters import (
    Configuration,
    Direction,
    Kind,
    Objective,
    Outcome,
    Parameter,
    Scale,
    configuration_from_json,
    value_from_json,
)

_BLOCK = re.compile(r"^```json search-state[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


_SAME_TITLE = re.compile(r"-[0-9a-f]{6}$")


class BadRequest(Exception):
    """A request that the researcher cannot answer; ``param`` names the wrong field as OpenAI's errors do."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A decided or rejected trial."""

    number: int
    changes: Configuration
    directions: Mapping[str, str]
    """Parameter to ``increase``, ``decrease`` or ``change``; empty where the prompt does not say."""
    origin: str
    outcome: str | None
    metric: float | None
    kept: bool | None
    incumbent_metric: float | None
    message: str

    @property
    def rejected(self) -> bool:
        """Whether it was refused before it ran."""
        return self.outcome is None and self.kept is not True

    @property
    def failed(self) -> bool:
        """Whether it ran and ended without a metric; a cancelled one says nothing about its configuration."""
        return self.outcome not in (None, Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.STOPPED_EARLY)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            number=data["number"],
            changes=configuration_from_json(data["changes"]),
            directions=data.get("directions", {}),
            origin=data["origin"],
            outcome=data["outcome"],
            metric=data["metric"],
            kept=data["kept"],
            incumbent_metric=data["incumbent_metric"],
            message=data["message"],
        )


@dataclass(frozen=True, slots=True)
class Installed:
    """A mechanism of the run, removed ones included."""

    name: str
    state: str
    prompt: str
    """What its prompt hook says; only with ``propose``."""


@dataclass(frozen=True, slots=True)
class KnownLesson:
    """A lesson of earlier searches."""

    id: str
    statement: str


@dataclass(frozen=True, slots=True)
class Offered:
    """A mechanism that the library offers."""

    choice: str
    """What the critique says to choose it: its collection, a colon and its name."""
    judged: int
    """Times that it was tried and judged."""
    kept: int
    """Those after which it stayed."""

    @property
    def tried_before(self) -> bool:
        """Whether an earlier search had it accepted: it does not only ship with the system."""
        return self.choice.startswith("library:") or self.judged > 0

    @property
    def name(self) -> str:
        """Its title; what tells entries of one title apart is left out."""
        return _SAME_TITLE.sub("", self.choice.partition(":")[2])

    @property
    def record(self) -> str:
        """What became of it, in words."""
        return f"stayed {self.kept} of {self.judged} times before" if self.judged else "was never judged before"


@dataclass(frozen=True, slots=True)
class SearchState:
    """The search as the prompt describes it."""

    objective: Objective
    parameters: Mapping[str, Parameter]
    active: tuple[str, ...]
    constraints: tuple[str, ...]
    incumbent_number: int
    incumbent: Configuration
    trials: tuple[PastTrial, ...]
    frozen: tuple[str, ...]
    strategy: str
    guidance: str
    mechanisms: tuple[Installed, ...]
    count: int
    refused: tuple[Configuration, ...]
    lessons: tuple[KnownLesson, ...]
    """The most relevant first."""
    library: tuple[Offered, ...] = ()
    under_way: tuple[Configuration, ...] = ()
    """Changes of the incumbent that are being measured now."""

    @classmethod
    def read(cls, messages: Sequence[Mapping[str, str]]) -> Self:
        """The block of the newest user message that has one. Raises :class:`BadRequest` when there is none."""
        for message in reversed(messages):
            if message["role"] == "user" and (block := _BLOCK.search(message["content"])):
                try:
                    return cls.from_json(json.loads(block[1]))
                except (ValueError, KeyError, TypeError) as error:
                    raise BadRequest(f"the search-state block cannot be read: {error!r}", "messages") from None
        wanted = "the last user message must hold a block that begins with the line ```json search-state"
        raise BadRequest(f"{wanted}: the scripted researcher reads nothing else", "messages")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        goal, incumbent = data["objective"], data["incumbent"]
        mechanisms = data.get("mechanisms", ())
        return cls(
            objective=Objective(goal["metric"], Direction(goal["direction"]), goal.get("unit", "")),
            parameters={p["name"]: _parameter(p) for p in data["parameters"]},
            active=tuple(p["name"] for p in data["parameters"] if p["active"] and not p["locked"]),
            constraints=tuple(data.get("constraints", ())),
            incumbent_number=incumbent["number"],
            incumbent=configuration_from_json(incumbent["configuration"]),
            trials=tuple(PastTrial.from_json(trial) for trial in data["trials"]),
            frozen=tuple(data.get("frozen", ())),
            strategy=data.get("strategy", ""),
            guidance=data.get("guidance", ""),
            mechanisms=tuple(Installed(m["name"], m["state"], m.get("prompt", "")) for m in mechanisms),
            count=data.get("count", 1),
            refused=tuple(_changes(refusal["changes"]) for refusal in data.get("refused", ())),
            lessons=tuple(KnownLesson(lesson["id"], lesson["statement"]) for lesson in data.get("lessons", ())),
            library=tuple(
                Offered(offer["choice"], offer["judged"], offer["kept"]) for offer in data.get("library", ())
            ),
            under_way=tuple(configuration_from_json(trial["changes"]) for trial in data.get("under_way", ())),
        )

    def tried_since_incumbent(self) -> list[Configuration]:
        """The changes that were tried on the present incumbent."""
        return [trial.changes for trial in self.trials if trial.number > self.incumbent_number]


def _parameter(data: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=data["name"],
        kind=Kind(data["kind"]),
        default=value_from_json(data["default"]),
        documentation=data.get("documentation", ""),
        locked=data["locked"],
        minimum=data.get("minimum"),
        maximum=data.get("maximum"),
        scale=Scale(data.get("scale") or "linear"),
        step=data.get("step"),
        choices=tuple(data.get("choices") or ()),
        length=data.get("length"),
        max_length=data.get("max_length") or 4096,
        pattern=data.get("pattern") or "",
    )


def _changes(changes: Any) -> Configuration:
    """Changes as a mapping, or as the list of parameter and value that answers use."""
    if isinstance(changes, Mapping):
        return configuration_from_json(changes)
    return {change["parameter"]: value_from_json(change["value"]) for change in changes}
