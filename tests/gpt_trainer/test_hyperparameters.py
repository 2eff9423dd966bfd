"""Which values and combinations the trainer takes, and what it says about the others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trainer.architecture import Architecture
from gpt_trainer.clock import REFERENCE_CORE, ClockKind
from gpt_trainer.hyperparameters import PUBLISHED, Hyperparameters, check, parameter_space
from gpt_trainer.presets import PRESETS, budget_seconds, find_preset
from gpt_trainer.trial import TrialRequest, plan
from service_kit.errors import InvalidArgument
from service_kit.parameters import InvalidConfiguration, Value

LAPTOP = PRESETS["laptop"]


def complaint(changes: Mapping[str, Value]) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        check(LAPTOP, changes)
    return str(caught.value)


def test_the_published_values_are_the_karpathy_preset() -> None:
    assert check(PRESETS["karpathy"], {}) == dict(PUBLISHED)


def test_the_published_model_has_the_published_size() -> None:
    karpathy, laptop = (
        Hyperparameters.from_configuration(check(PRESETS[name], {})).architecture(PRESETS[name])
        for name in ("karpathy", "laptop")
    )
    assert karpathy.parameters / 1e6 == pytest.approx(50.3, abs=0.05)
    assert laptop.parameters == 294_980
    assert laptop.flops_per_token / 1e6 == pytest.approx(1.13, abs=0.005)


def test_depth_and_aspect_ratio_are_locked() -> None:
    assert "locked at 2" in complaint({"DEPTH": 1})
    assert "locked at 32" in complaint({"ASPECT_RATIO": 64})


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    assert "did you mean MATRIX_LR?" in complaint({"MATRX_LR": 0.1})


def test_a_value_outside_its_range_is_answered_with_the_range() -> None:
    assert complaint({"MATRIX_LR": 50.0}) == "MATRIX_LR: must be a number from 0.0001 to 1; got 50.0"


@pytest.mark.parametrize("head_dim", [9, 24, 48])
def test_a_head_size_that_does_not_divide_the_locked_width_is_refused(head_dim: int) -> None:
    assert "divide the width 64: one of 8, 16, 32, 64" in complaint({"HEAD_DIM": head_dim})


def test_an_indivisible_batch_says_which_device_batches_fit() -> None:
    assert "set DEVICE_BATCH_SIZE to at most 16 (one of 16, 8, 4, 2, 1)" in complaint({"TOTAL_BATCH_SIZE": 2**11})
    assert "a multiple of 4096" in complaint({"TOTAL_BATCH_SIZE": 5000})


def test_every_violation_is_reported_at_once() -> None:
    text = complaint({"HEAD_DIM": 24, "TOTAL_BATCH_SIZE": 2**11})
    assert "HEAD_DIM" in text
    assert "TOTAL_BATCH_SIZE" in text


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_accepted_configuration_changes_the_size_of_the_model(data: st.DataObject) -> None:
    """Heads have a gate of their own each, so the count may move by a thousandth and not more."""
    space = parameter_space(LAPTOP)
    default = Hyperparameters.from_configuration(check(LAPTOP, {})).architecture(LAPTOP)
    changes: dict[str, Value] = {
        "HEAD_DIM": data.draw(st.integers(8, 64)),
        "TOTAL_BATCH_SIZE": 2 ** data.draw(st.integers(7, 17)),
        "DEVICE_BATCH_SIZE": data.draw(st.integers(1, 512)),
        "WINDOW_PATTERN": data.draw(st.from_regex(r"[SL]{1,16}", fullmatch=True)),
    }
    assert set(changes) <= set(space.names)
    try:
        built = Hyperparameters.from_configuration(check(LAPTOP, changes)).architecture(LAPTOP)
    except InvalidConfiguration:
        return
    assert (built.depth, built.width) == (default.depth, default.width)
    assert abs(built.parameters - default.parameters) <= default.parameters / 1000


@given(rows=st.integers(1, 512), head_dim=st.sampled_from([8, 16, 32, 64]))
@settings(deadline=None)
def test_the_virtual_clock_charges_more_for_more_rows_and_for_more_heads(rows: int, head_dim: int) -> None:
    model = Architecture(2, 64, head_dim, 128, 1024, "SSSL")
    cost = REFERENCE_CORE.micro_step(model, rows)
    assert cost < REFERENCE_CORE.micro_step(model, rows + 1) < 2 * cost
    if head_dim > 8:
        assert cost < REFERENCE_CORE.micro_step(Architecture(2, 64, head_dim // 2, 128, 1024, "SSSL"), rows)


def test_a_step_that_the_budget_cannot_pay_is_infeasible_and_says_what_is_affordable() -> None:
    request = TrialRequest({"TOTAL_BATCH_SIZE": 2**17}, seed=0, budget=1.0)
    with pytest.raises(InvalidConfiguration, match="raise the budget, or lower TOTAL_BATCH_SIZE"):
        plan(LAPTOP, request)
    assert plan(LAPTOP, TrialRequest({"TOTAL_BATCH_SIZE": 2**17}, 0, 1.0, ClockKind.WALL)).micro_steps == 32


def test_requests_survive_the_pipe() -> None:
    request = TrialRequest({"ADAM_BETAS": (0.9, 0.99), "WINDOW_PATTERN": "SL"}, 3, 2.5, ClockKind.WALL)
    assert TrialRequest.from_json(request.to_json()) == request


def test_budgets_are_names_or_seconds() -> None:
    assert budget_seconds(LAPTOP, "short") == LAPTOP.budgets["short"]
    assert budget_seconds(LAPTOP, "10") == 10.0
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(InvalidArgument, match=r"short \(4 s\)"):
            budget_seconds(LAPTOP, wrong)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="laptop, workstation, karpathy"):
        find_preset("lapto")
