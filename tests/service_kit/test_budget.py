"""A budget is never exceeded, whatever is in flight and whatever becomes of it."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import InvalidArgument
from service_kit.llm.budget import COMPLETION_TOKENS, Budget
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.prices import Price, Prices
from service_kit.llm.structured import ask
from service_kit.llm.tokens import estimate, estimate_messages
from service_kit.llm.usage import Usage
from service_kit.settings import ModelSettings
from tests.service_kit.llm_endpoint import Endpoint, answer, refusal
from tests.service_kit.test_language_model import GOOD, HELLO, Proposal


def used(tokens: int, cost: float | None = 0.0) -> Usage:
    return Usage(1, tokens, 0, 0, cost)


def test_what_is_in_flight_counts_until_it_is_settled() -> None:
    budget = Budget(max_tokens=100)
    with budget.reserve(used(60)) as first:
        assert budget.in_flight.total_tokens == 60
        with pytest.raises(ModelError, match="call: 0 are used, and it may use 50 where 40 are left") as caught:
            budget.reserve(used(50))
        assert caught.value.kind is Failure.BUDGET_SPENT
        first.settle(used(10))
    assert (budget.used.total_tokens, budget.in_flight.total_tokens) == (10, 0)
    with budget.reserve(used(90)):
        pass
    assert budget.used.total_tokens == 10


def test_a_budget_in_money_needs_a_known_price() -> None:
    with pytest.raises(ModelError, match="the model's price is unknown"):
        Budget(max_cost_usd=1.0).reserve(used(1, None))
    with pytest.raises(ModelError, match="the model's price is unknown"):
        Budget(max_cost_usd=1.0, used=used(1, None)).reserve(used(1, 0.1))
    with pytest.raises(ModelError, match=r"may cost 0\.2 where 0\.1 are left"):
        Budget(max_cost_usd=1.0, used=used(1, 0.9)).reserve(used(1, 0.2))
    Budget(max_tokens=10).reserve(used(1, None))


@given(
    limit=st.integers(1, 200),
    calls=st.lists(st.tuples(st.integers(0, 80), st.floats(0, 1), st.booleans()), max_size=30),
)
def test_no_order_of_calls_exceeds_a_budget(limit: int, calls: list[tuple[int, float, bool]]) -> None:
    budget = Budget(max_tokens=limit)
    in_flight = []
    for most, share, ends_now in calls:
        try:
            held = budget.reserve(used(most))
        except ModelError:
            continue
        in_flight.append((held, int(most * share)))
        if ends_now:
            ended, tokens = in_flight.pop(0)
            with ended:
                ended.settle(used(tokens))
        assert budget.used.total_tokens + budget.in_flight.total_tokens <= limit
    for ended, tokens in in_flight:
        with ended:
            ended.settle(used(tokens))
    assert budget.used.total_tokens <= limit


async def test_a_call_that_does_not_fit_is_not_made(endpoint: Endpoint) -> None:
    model = endpoint.model(answer(GOOD), max_tokens=50)
    budget = Budget(max_tokens=estimate_messages(HELLO) + 50 - 1)
    with pytest.raises(ModelError) as caught:
        await model.complete("propose", HELLO, budget=budget)
    assert (caught.value.kind, endpoint.requests) == (Failure.BUDGET_SPENT, [])
    budget.max_tokens += 1
    await model.complete("propose", HELLO, budget=budget)
    assert budget.used.total_tokens == 120


async def test_calls_at_the_same_time_share_a_budget(endpoint: Endpoint) -> None:
    model = endpoint.model(answer(), max_tokens=500)
    budget = Budget(max_tokens=1100)
    calls = [model.complete("propose", HELLO, budget=budget) for _ in range(4)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    spent = [error for error in ended if isinstance(error, ModelError)]
    assert [error.kind for error in spent] == [Failure.BUDGET_SPENT] * 2
    assert (len(endpoint.requests), budget.used.total_tokens, budget.in_flight.total_tokens) == (2, 240, 0)


async def test_the_repair_turn_that_does_not_fit_is_not_made_and_the_first_one_is_counted(endpoint: Endpoint) -> None:
    budget = Budget(max_tokens=900)
    model = endpoint.model(answer("no"), max_tokens=600)
    with pytest.raises(ModelError) as caught:
        await ask(model, "propose", HELLO, Proposal, budget=budget)
    assert (caught.value.kind, caught.value.usage.total_tokens, len(endpoint.requests)) == (
        Failure.BUDGET_SPENT,
        120,
        1,
    )


async def test_under_a_budget_an_answer_has_a_longest_length(endpoint: Endpoint) -> None:
    await endpoint.model(answer()).complete("propose", HELLO, budget=Budget(max_tokens=10**6))
    assert endpoint.requests[0]["max_tokens"] == COMPLETION_TOKENS


async def test_an_attempt_that_may_have_been_charged_counts_in_full(endpoint: Endpoint) -> None:
    budget = Budget(max_tokens=10**6)
    model = endpoint.model(endpoint.hang, timeout=0.05, retries=1, max_tokens=70)
    with pytest.raises(ModelError) as caught:
        await model.complete("propose", HELLO, budget=budget)
    assert caught.value.usage.estimated_calls == 2
    assert caught.value.usage.total_tokens == budget.used.total_tokens == 2 * (estimate_messages(HELLO) + 70)
    refused = Budget(max_tokens=10**6)
    with pytest.raises(ModelError):
        await endpoint.model(refusal(400)).complete("propose", HELLO, budget=refused)
    assert refused.used.total_tokens == 0


def settings(**fields: object) -> ModelSettings:
    return ModelSettings.load(base_url="http://127.0.0.1:1/v1", model="served", **fields)


def test_cached_tokens_have_a_price_of_their_own() -> None:
    price = Prices.of(settings(price_input=2.0, price_cached=0.5, price_output=8.0)).price("served")
    assert price is not None
    assert price.cost(1_000_000, 1_000_000, 400_000) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 8)
    assert Price(input=2.0, output=8.0).cost(1_000_000, 0, 400_000) == pytest.approx(2.0)


def test_a_table_of_prices_is_looked_up_by_either_name(tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('[served-2026]\ninput = 1\noutput = 2\n["vendor/other"]\ninput = 3\noutput = 4\n')
    prices = Prices.of(settings(prices=table))
    assert prices.price("served-2026", "served") == Price(input=1, output=2)
    assert prices.price("reported", "vendor/other") == Price(input=3, output=4)
    assert prices.price("served") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[served]\ninput = 1\n", "served.output: Field required"),
        ("[served]\ninput = -1\noutput = 2\n", "served.input: Input should be greater than or equal to 0"),
        ("[served]\ninput = 1\noutput = 2\ncache = 3\n", "served.cache: Extra inputs are not permitted"),
        ("[served\n", "must name a readable TOML file"),
    ],
)
def test_wrong_prices_name_the_file_and_the_field(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "prices.toml"
    table.write_text(text)
    with pytest.raises(InvalidArgument, match="BILEVEL_PRICES") as caught:
        Prices.of(settings(prices=table))
    assert said in str(caught.value)


def test_half_a_price_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="BILEVEL_PRICE_OUTPUT: must be set as well"):
        Prices.of(settings(price_input=1.0))
    with pytest.raises(InvalidArgument, match="BILEVEL_PRICE_INPUT: must be set where"):
        Prices.of(settings(price_cached=1.0))


def test_estimates_lean_to_the_high_side() -> None:
    assert estimate("x" * 300) == 100
    assert estimate("你好") == 2
    assert estimate_messages([Message("user", ""), Message("user", "abc")]) == 8 + 9
