"""A benchmark-like space, and a bare level 1 that runs the researcher's own proposals on a made-up landscape."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from clients.scripted_researcher.answers import answer
from mechanisms.interface import Origin, TrialRecord
from service_kit.parameters import Direction, Kind, Objective, Outcome, Parameter, ParameterSpace, Scale

ROWS = Scale.LOG2


def integer(name: str, default: int, low: int, high: int, *, locked: bool = False) -> Parameter:
    return Parameter(name, Kind.INTEGER, default, "", locked, low, high, Scale.LOG2)


def rate(name: str, default: float, low: float, high: float) -> Parameter:
    return Parameter(name, Kind.REAL, default, "", False, low, high, Scale.LOG10)


BENCHMARK = ParameterSpace(
    (
        integer("DEPTH", 2, 1, 64, locked=True),
        integer("HEAD_DIM", 32, 8, 64),
        Parameter("WINDOW_PATTERN", Kind.TEXT, "SSSL", max_length=16, pattern="[SL]+"),
        integer("TOTAL_BATCH_SIZE", 2**13, 2**7, 2**17),
        rate("EMBEDDING_LR", 0.6, 1e-3, 10),
        rate("UNEMBEDDING_LR", 0.004, 1e-5, 1),
        rate("MATRIX_LR", 0.04, 1e-4, 1),
        rate("SCALAR_LR", 0.5, 1e-3, 10),
        Parameter("WEIGHT_DECAY", Kind.REAL, 0.2, "", False, 0.0, 2.0),
        Parameter("ADAM_BETAS", Kind.LIST, (0.8, 0.95), minimum=0.0, maximum=0.9999, length=2),
        Parameter("WARMDOWN_RATIO", Kind.REAL, 0.5, "", False, 0.0, 1.0),
        integer("DEVICE_BATCH_SIZE", 32, 1, 512),
    ),
    ("TOTAL_BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE × 128 tokens (the context).",),  # noqa: RUF001
)

PLAIN = ParameterSpace(
    (
        Parameter("temperature", Kind.REAL, 3.0, minimum=0.0, maximum=10.0),
        Parameter("depth", Kind.INTEGER, 4, minimum=1, maximum=9),
        Parameter("kernel", Kind.CATEGORICAL, "rbf", choices=("rbf", "linear", "poly")),
        Parameter("bias", Kind.BOOLEAN, True),
        Parameter("rate", Kind.REAL, 0.01, minimum=1e-5, maximum=1.0, scale=Scale.LOG10),
    )
)


def batch_valley(values: Mapping[str, Any]) -> float:
    """Smaller batches are better down to 2^11; everything else hardly matters."""
    return 2.05 + 0.1 * abs(math.log2(values["TOTAL_BATCH_SIZE"]) - 11) + 0.01 * abs(values["WEIGHT_DECAY"] - 0.2)


def low_temperature(values: Mapping[str, Any]) -> float:
    """Larger is better here: the metric falls with the temperature."""
    return float(10 - values["temperature"] - abs(values["depth"] - 4))


@dataclass
class Level1:
    """A greedy search that asks the researcher for every trial."""

    space: ParameterSpace
    landscape: Callable[[Mapping[str, Any]], float]
    objective: Objective = field(default_factory=lambda: Objective("val_bpb"))
    trials: list[TrialRecord] = field(default_factory=list)
    frozen: tuple[str, ...] = ()
    guidance: str = ""
    mechanisms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        start = self.space.defaults()
        self._decide(start, {}, Origin.BASELINE)

    @property
    def incumbent(self) -> TrialRecord:
        return [trial for trial in self.trials if trial.kept][-1]

    def run(self, count: int) -> "Level1":
        for _ in range(count):
            candidate = self.ask("propose")["candidates"][0]
            changes = {change["parameter"]: change["value"] for change in candidate["changes"]}
            self.decide(changes)
        return self

    def refuse(self, changes: Mapping[str, Any]) -> None:
        """A candidate that a veto or the space refused: it never ran."""
        self._lost(changes, None)

    def fail(self, changes: Mapping[str, Any], outcome: Outcome) -> None:
        """A trial that ran and ended without a metric."""
        self._lost(changes, outcome)

    def _lost(self, changes: Mapping[str, Any], outcome: Outcome | None) -> None:
        configuration = self.space.apply(self.incumbent.configuration, changes)
        kept, bar = None if outcome is None else False, self.incumbent.metric
        number = len(self.trials)
        record = TrialRecord(number, configuration, changes, "", Origin.MODEL, "", outcome, None, kept, bar)
        self.trials.append(record)

    def decide(self, changes: Mapping[str, Any], origin: Origin = Origin.MODEL) -> None:
        configuration = self.space.apply(self.incumbent.configuration, changes)
        self._decide(configuration, self.space.changes(self.incumbent.configuration, configuration), origin)

    def _decide(self, configuration: Mapping[str, Any], changes: Mapping[str, Any], origin: Origin) -> None:
        bar = self.incumbent.metric if self.trials else None
        metric = self.landscape(configuration)
        kept = bar is None or self.objective.better(metric, bar)
        number, outcome = len(self.trials), Outcome.SUCCEEDED
        record = TrialRecord(number, configuration, changes, "", origin, "", outcome, metric, kept, bar)
        self.trials.append(record)

    def state(self, **more: Any) -> dict[str, Any]:
        """The search-state block of a prompt."""
        parameters = [
            {**encoded, "active": not encoded["locked"] and encoded["name"] not in self.frozen}
            for encoded in self.space.to_json()["parameters"]
        ]
        incumbent = self.incumbent.to_json()
        return {
            "task": "made-up",
            "objective": {"metric": self.objective.metric, "direction": self.objective.direction.value, "unit": ""},
            "parameters": parameters,
            "constraints": list(self.space.constraints),
            "incumbent": {key: incumbent[key] for key in ("number", "metric", "configuration")},
            "best": {key: incumbent[key] for key in ("number", "metric", "configuration")},
            "baseline_metric": self.trials[0].metric,
            "trials": [self._trial(trial) for trial in self.trials],
            "frozen": list(self.frozen),
            "strategy": "",
            "guidance": self.guidance,
            "mechanisms": list(self.mechanisms),
            "trials_left": 20,
            "count": 1,
            "refused": [],
            **more,
        }

    def _trial(self, trial: TrialRecord) -> dict[str, Any]:
        encoded = trial.to_json()
        del encoded["configuration"]
        before = [t for t in self.trials if t.kept and t.number < trial.number]
        directions = {}
        for name, new in trial.changes.items():
            old = before[-1].configuration[name]
            ordered = type(new) in (int, float)
            directions[name] = ("increase" if new > old else "decrease") if ordered else "change"  # type: ignore[operator]
        return {**encoded, "directions": directions}

    def messages(self, report: str = "", **more: Any) -> list[dict[str, str]]:
        block = json.dumps(self.state(**more))
        content = f"The search so far:\n\n```json search-state\n{block}\n```\n\n{report}\nAnswer."
        return [{"role": "user", "content": content}]

    def ask(self, purpose: str, answers: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
        said = [{"role": "assistant", "content": json.dumps(one)} for one in answers]
        return answer(purpose, [*said, *self.messages(**more)])


@pytest.fixture
def benchmark_search() -> Level1:
    return Level1(BENCHMARK, batch_valley)


@pytest.fixture
def plain_search() -> Level1:
    return Level1(PLAIN, low_temperature, Objective("score", Direction.MAXIMIZE))


@pytest.fixture(scope="session")
def benchmark_space_search() -> Callable[[], Level1]:
    """Makes a new search on the benchmark-like space."""
    return lambda: Level1(BENCHMARK, batch_valley)
