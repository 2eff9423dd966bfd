"""A run in pandas, in a notebook, in Optuna and in MLflow: complete, faithful, and harmless."""

from __future__ import annotations

import builtins
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from bilevel.v1 import common_pb2, trace_pb2

from clients.optuna_study import best_trials, distributions_of, to_optuna, warm_start
from clients.report.record import RunRecord
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.parameters import Kind, Parameter, ParameterSpace, Scale
from service_kit.translate import configuration_to_proto
from tests.clients.conftest import HOSTILE

optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_table_has_a_row_for_every_trial_with_its_parameters(bilevel: RunRecord) -> None:
    pytest.importorskip("pandas")
    table = bilevel.trials_dataframe()
    assert list(table.index) == sorted(bilevel.history.trials)
    trial = bilevel.history.trials[8]
    assert table.loc[8, "outcome"] == "diverged"
    assert math.isnan(table.loc[8, "metric"])
    assert table.loc[1, "changed.WEIGHT_DECAY"]
    assert not table.loc[1, "changed.TOTAL_BATCH_SIZE"]
    assert table.loc[8, "param.WEIGHT_DECAY"] == trial.configuration.values["WEIGHT_DECAY"].double_value
    assert table["best"].iloc[-1] == bilevel.history.best_metric
    assert table["best"].dropna().is_monotonic_decreasing
    assert table["kept"].sum() == sum(t.state == trace_pb2.TRIAL_STATE_KEPT for t in bilevel.history.trials.values())
    assert "side.peak_memory_mb" in table
    assert str(table["started"].dtype).startswith("datetime64")


def test_an_empty_run_is_an_empty_table() -> None:
    pytest.importorskip("pandas")
    assert RunRecord([]).trials_dataframe().empty


def test_a_notebook_shows_the_run_and_escapes_what_was_generated(bilevel: RunRecord) -> None:
    html = bilevel._repr_html_()
    assert "no evidence for the method" in html
    assert "bilevel" in html
    assert "<script>" not in html
    assert "<b>" not in html
    hypotheses = [t.hypothesis for t in bilevel.history.trials.values()]
    assert HOSTILE in hypotheses
    short = RunRecord([event for event in bilevel.events if _number(event) < 5])._repr_html_()
    assert "&lt;script&gt;" in short


def _number(event: trace_pb2.TraceEvent) -> int:
    kind = event.WhichOneof("event") or ""
    body = getattr(event, kind)
    return int(body.trial.number) if kind == "trial_proposed" else int(getattr(body, "number", 0))


@pytest.mark.parametrize(
    ("module", "use", "extra"),
    [
        ("pandas", lambda record: record.trials_dataframe(), "pandas"),
        ("optuna", lambda record: record.to_optuna(), "optuna"),
        ("mlflow", lambda record: record.log_to_mlflow(), "mlflow"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(bare, monkeypatch, module, use, extra) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr("service_kit.extras.import_module", missing)
    with pytest.raises(ServiceError, match=f"{module} is not installed") as caught:
        use(bare)
    assert f"bilevel-autoresearch[{extra}]" in caught.value.hint


# Optuna


def test_a_study_holds_every_closed_trial_and_has_the_same_best(bilevel: RunRecord) -> None:
    study = bilevel.to_optuna()
    history = bilevel.history
    assert [trial.user_attrs["bilevel:number"] for trial in study.trials] == sorted(history.trials)
    assert study.best_value == history.best_metric
    assert study.best_trial.user_attrs["bilevel:number"] == history.best
    assert study.trials[8].state is optuna.trial.TrialState.FAIL
    assert study.trials[8].user_attrs["bilevel:message"]
    assert study.user_attrs["bilevel:scripted"] is True
    assert all(trial.datetime_complete >= trial.datetime_start for trial in study.trials)
    assert study.trials[1].params["WINDOW_PATTERN"] == "SSSL"


@pytest.mark.long
def test_optunas_own_plots_and_importances_read_it(bilevel: RunRecord) -> None:
    study = bilevel.to_optuna()
    assert optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=["TOTAL_BATCH_SIZE", "WEIGHT_DECAY"]
    )
    import matplotlib as mpl

    mpl.use("Agg")
    from optuna.visualization import matplotlib as plots

    points = plots.plot_optimization_history(study).collections[0].get_offsets()
    assert len(points) == sum(trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert plots.plot_slice(study, params=["WEIGHT_DECAY"]).get_xlabel() == "WEIGHT_DECAY"


@pytest.mark.long
def test_a_study_in_a_database_is_there_for_the_dashboard(bare: RunRecord, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    to_optuna(bare, storage=storage, study_name="level one")
    again = optuna.load_study(study_name="level one", storage=storage)
    assert again.best_value == bare.history.best_metric
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        to_optuna(bare, storage=storage, study_name="level one")


def test_a_cheap_measurement_never_passes_for_the_best(bare: RunRecord) -> None:
    events = []
    for event in bare.events:
        copy = trace_pb2.TraceEvent()
        copy.CopyFrom(event)
        if copy.WhichOneof("event") == "trial_proposed" and copy.trial_proposed.trial.number == bare.history.best:
            copy.trial_proposed.trial.budget_fraction = 0.1
        if copy.WhichOneof("event") == "trial_started" and copy.trial_started.number == bare.history.best:
            copy.trial_started.budget_fraction = 0.1
        events.append(copy)
    study = RunRecord(events).to_optuna()
    cheap = study.trials[bare.history.best or 0]
    assert cheap.state is optuna.trial.TrialState.PRUNED
    assert cheap.intermediate_values == {100: bare.history.best_metric}
    assert study.best_trial.number != cheap.number


def test_every_kind_of_parameter_has_a_distribution() -> None:
    space = ParameterSpace(
        (
            Parameter("depth", Kind.INTEGER, 4, minimum=1, maximum=16),
            Parameter("batch", Kind.INTEGER, 8, minimum=1, maximum=64, scale=Scale.LOG2),
            Parameter("heads", Kind.INTEGER, 4, minimum=2, maximum=12, step=2),
            Parameter("rate", Kind.REAL, 0.1, minimum=1e-4, maximum=1.0, scale=Scale.LOG10),
            Parameter("open", Kind.REAL, 0.5),
            Parameter("tied", Kind.BOOLEAN, True),
            Parameter("mode", Kind.CATEGORICAL, "a", choices=("a", "b")),
            Parameter("betas", Kind.LIST, (0.5, 0.5), minimum=0, maximum=1, length=2),
            Parameter("code", Kind.SOURCE, "x = 1"),
        )
    )
    trial = trace_pb2.Trial(
        configuration=configuration_to_proto({**space.defaults(), "open": 2.5, "betas": (0.1, 0.9), "code": "x = 2"})
    )
    kinds = optuna.distributions
    assert distributions_of(space, [trial]) == {
        "depth": kinds.IntDistribution(1, 16),
        "batch": kinds.IntDistribution(1, 64, log=True),
        "heads": kinds.IntDistribution(2, 12, step=2),
        "rate": kinds.FloatDistribution(1e-4, 1.0, log=True),
        "open": kinds.FloatDistribution(0.5, 2.5),
        "tied": kinds.CategoricalDistribution((False, True)),
        "mode": kinds.CategoricalDistribution(("a", "b")),
        "betas": kinds.CategoricalDistribution(("[0.5, 0.5]", "[0.1, 0.9]")),
        "code": kinds.CategoricalDistribution(("x = 1", "x = 2")),
    }


class HandDriven:
    """An inner client of which a warm start needs five methods: measures (x - 3)² and keeps what is better."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.said: list[str] = []
        self.incumbent: int | None = None

    async def get_run(self, name: str) -> trace_pb2.Run:
        run = trace_pb2.Run(name=name)
        run.task.space.parameters.add(name="x", kind=common_pb2.PARAMETER_KIND_REAL)
        run.task.space.parameters.add(name="betas", kind=common_pb2.PARAMETER_KIND_LIST)
        if self.incumbent is not None:
            run.incumbent_trial = f"{name}/trials/{self.incumbent}"
        return run

    async def propose(self, run: str, *, changes: Any = None, hypothesis: str = "") -> list[trace_pb2.Trial]:
        self.values.append((changes or {"x": 0.0})["x"])
        self.said.append(hypothesis)
        number = len(self.values) - 1
        return [trace_pb2.Trial(name=f"{run}/trials/{number}", number=number, state=trace_pb2.TRIAL_STATE_PROPOSED)]

    async def evaluate(self, trial: str) -> AsyncIterator[trace_pb2.TraceEvent]:
        yield trace_pb2.TraceEvent()

    async def accept(self, trial: str) -> trace_pb2.Trial:
        number = int(trial.rpartition("/")[2])
        metrics = [(x - 3.0) ** 2 for x in self.values]
        if self.incumbent is None or metrics[number] < metrics[self.incumbent]:
            self.incumbent = number
        return trace_pb2.Trial(name=trial, number=number, metric=metrics[number])

    async def get_trial(self, name: str) -> trace_pb2.Trial:
        x = self.values[int(name.rpartition("/")[2])]
        return trace_pb2.Trial(configuration=configuration_to_proto({"x": x, "betas": (0.5,)}))


async def test_a_warm_start_measures_a_studys_best_trials_again() -> None:
    study = optuna.create_study()
    for x, value in ((5.0, -100.0), (2.0, 1.0), (0.0, 9.0), (2.9, 0.01)):
        params = {"x": x, "betas": "[0.5]", "foreign": 1.0}
        distributions = {
            "x": optuna.distributions.FloatDistribution(-9, 9),
            "betas": optuna.distributions.CategoricalDistribution(("[0.5]",)),
            "foreign": optuna.distributions.FloatDistribution(0, 2),
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    inner = HandDriven()
    decided = await warm_start(inner, "runs/one", study, count=3)  # type: ignore[arg-type]
    assert inner.values == [0.0, 5.0, 2.9, 2.0]
    assert [round(trial.metric, 6) for trial in decided] == [9.0, 4.0, 0.01, 1.0]  # measured here, not believed
    assert "trial 0 of the Optuna study" in inner.said[1]
    assert inner.incumbent == 2


async def test_a_study_that_does_not_fit_is_refused() -> None:
    several = optuna.create_study(directions=["minimize", "maximize"])
    with pytest.raises(InvalidArgument, match="study: must have one objective; it has 2"):
        best_trials(several, 3)
    other = optuna.create_study()
    distributions = {"y": optuna.distributions.FloatDistribution(0, 1)}
    other.add_trial(optuna.trial.create_trial(params={"y": 0.5}, distributions=distributions, value=1.0))
    with pytest.raises(InvalidArgument, match="the task has betas, x"):
        await warm_start(HandDriven(), "runs/one", other)  # type: ignore[arg-type]


# MLflow


@pytest.mark.long
def test_mlflow_has_the_run_its_trials_and_the_curve(bilevel: RunRecord, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    parent = bilevel.log_to_mlflow(tracking_uri=uri, experiment="tests")
    client = tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests").experiment_id
    run = client.get_run(parent)
    assert (run.info.status, run.data.tags["bilevel.scripted"]) == ("FINISHED", "true")
    curve = [point.value for point in client.get_metric_history(parent, "best_val_bpb")]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == bilevel.history.best_metric
    nested = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
    assert len(nested) == len(bilevel.history.trials)
    by_trial = {run.data.tags["bilevel.trial"].rpartition("/")[2]: run for run in nested}
    assert by_trial["8"].info.status == "FAILED"
    assert "val_bpb" not in by_trial["8"].data.metrics
    assert by_trial["1"].data.params["WINDOW_PATTERN"] == "SSSL"
    assert by_trial["1"].data.metrics["peak_memory_mb"] == 512.0

    bilevel.log_to_mlflow(tracking_uri=uri, experiment="tests")
    assert len(client.search_runs([experiment], "tags.`bilevel.levels` != ''")) == 2
