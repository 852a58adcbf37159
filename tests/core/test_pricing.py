"""A cost is exact, dated, never doubled, and never 0 for want of a price."""

from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import pricing
from core.outcomes import Cost, CostStatus, Usage

AT = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
OPENAI = "https://api.openai.com/v1"
LOOPBACK = "http://127.0.0.1:4010/v1"


def price(
    usage: Usage | None,
    *,
    model: str = "gpt-4o",
    url: str = OPENAI,
    builtin: bool = False,
    at: datetime = AT,
    own: tuple[Decimal | float, Decimal | float] | None = None,
) -> Cost:
    return pricing.price(usage, model=model, provider_url=url, builtin=builtin, at=at, own=own)


def test_cached_tokens_are_counted_once() -> None:
    usage = Usage(fresh_input=17_903 - 17_817, cache_read=17_817, visible_output=300)

    booked = price(usage)

    assert booked.nano_dollars == 25_486_250  # 0.0255 dollars; counting the cached twice would give 0.0700.
    assert booked.status is CostStatus.PRICED
    assert booked.source == f"genai-prices {genai_prices.__version__}: openai/gpt-4o by address"


def test_reasoning_is_output_and_priced_as_such() -> None:
    assert price(Usage(10, reasoning=5)) == price(Usage(10, visible_output=5))


@pytest.mark.parametrize(
    ("model", "url", "nano", "source"),
    [
        ("gpt-4.1-mini-2025-04-14", OPENAI, 400 * 1_000 + 1_600 * 100, "openai/gpt-4.1-mini by address"),
        ("GPT-4.1-Mini", OPENAI, 400 * 1_000 + 1_600 * 100, "openai/gpt-4.1-mini by address"),
        ("gpt-4o-2024-08-06", LOOPBACK, 2_500 * 1_000 + 10_000 * 100, "openai/gpt-4o by model name"),
        ("gpt-4o", "https://own.openai.azure.com/openai/v1", 2_500 * 1_000 + 10_000 * 100, "azure/gpt-4o by address"),
        ("openai/gpt-4o", "https://openrouter.ai/api/v1", None, "openrouter/"),
    ],
)
def test_the_model_is_found_by_address_then_by_name(model: str, url: str, nano: int | None, source: str) -> None:
    booked = price(Usage(fresh_input=1_000, visible_output=100), model=model, url=url)

    assert booked.status is CostStatus.PRICED
    assert source in booked.source
    assert booked.nano_dollars
    assert nano is None or booked.nano_dollars == nano


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("no-such-model", OPENAI),
        ("no-such-model", LOOPBACK),
        ("ft:gpt-4o-mini:acme::abc123", LOOPBACK),
        ("", LOOPBACK),
        ("", ""),
        ("gpt-4o", "https://api.groq.com/openai/v1"),  # Known by address, and not sold there.
        ("davinci", "https://own.openai.azure.com/openai/v1"),  # The table has a price for its input only.
    ],
)
def test_what_has_no_price_is_unpriced_and_never_free(model: str, url: str) -> None:
    assert price(Usage(fresh_input=1_000, visible_output=100), model=model, url=url) == Cost(CostStatus.UNPRICED)


def test_no_usage_is_unknown_and_the_built_in_rules_cost_nothing_to_speak_of() -> None:
    assert price(None) == Cost(CostStatus.UNKNOWN)
    assert price(None, own=(1, 1)) == Cost(CostStatus.UNKNOWN)
    assert price(Usage(), builtin=True) == Cost(CostStatus.NONE)
    assert price(Usage(5, 0, 0, 5), builtin=True, own=(1, 1)) == Cost(CostStatus.NONE)


def test_the_price_of_the_settings_comes_first_and_is_exact() -> None:
    usage = Usage(fresh_input=100, cache_read=20, cache_write=3, visible_output=7, reasoning=2)

    booked = price(usage, own=(0.1, 0.7))

    assert booked == Cost(CostStatus.PRICED, 123 * 100 + 9 * 700, "settings")


def test_a_price_of_zero_in_the_settings_is_a_price() -> None:
    assert price(Usage(5, 0, 0, 5), own=(0, 0)) == Cost(CostStatus.PRICED, 0, "settings")


@pytest.mark.parametrize(("per_million", "nano"), [("0.0005", 0), ("0.0015", 2), ("0.0025", 2), ("0.0026", 3)])
def test_half_a_nano_dollar_goes_to_the_even_side(per_million: str, nano: int) -> None:
    assert price(Usage(1), own=(Decimal(per_million), 0)).nano_dollars == nano


def test_the_price_is_that_of_the_day_of_the_call() -> None:
    a_million_each = Usage(10**6, 0, 0, 10**6)

    before = price(a_million_each, model="o3", at=datetime(2025, 6, 9, 23, 59, tzinfo=UTC))
    after = price(a_million_each, model="o3", at=datetime(2025, 6, 10, 0, 1, tzinfo=UTC))

    assert (before.nano_dollars, after.nano_dollars) == (50 * 10**9, 10 * 10**9)


def test_a_usage_that_no_table_can_price_is_unpriced() -> None:
    assert price(Usage(fresh_input=-5, cache_read=10)) == Cost(CostStatus.UNPRICED)
    assert price(Usage(fresh_input=10**30), own=(1, 1)) == Cost(CostStatus.UNPRICED)
    assert price(Usage(fresh_input=10), own=(float("nan"), 1)) == Cost(CostStatus.UNPRICED)


def test_the_table_can_be_loaded_ahead() -> None:
    pricing.warm()


tokens = st.integers(0, 10**9)


@given(st.builds(Usage, tokens, tokens, tokens, tokens, tokens), st.sampled_from(["gpt-4o", "gpt-4.1-mini", "o3"]))
def test_a_cost_lies_between_all_cached_and_none_cached(usage: Usage, model: str) -> None:
    booked = price(usage, model=model)
    if booked.status is CostStatus.UNPRICED:
        assert usage.input_total == 0 or usage.output_total == 0 or booked.nano_dollars is None
        return

    total, output = usage.input_total, usage.output_total
    cheapest = price(Usage(cache_read=total, visible_output=output), model=model).nano_dollars
    dearest = price(Usage(fresh_input=total, visible_output=output), model=model).nano_dollars
    assert booked.nano_dollars is not None
    assert cheapest is not None
    assert dearest is not None
    assert cheapest <= booked.nano_dollars <= dearest


@given(
    st.builds(Usage, tokens, tokens, tokens, tokens, tokens),
    st.decimals(0, 1_000, places=6),
    st.decimals(0, 1_000, places=6),
)
def test_own_prices_are_a_sum_rounded_once(usage: Usage, per_input: Decimal, per_output: Decimal) -> None:
    booked = price(usage, own=(per_input, per_output)).nano_dollars

    exact = (usage.input_total * per_input + usage.output_total * per_output) * 1_000
    assert booked is not None
    assert abs(booked - exact) <= Decimal("0.5")
