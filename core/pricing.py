"""What a call cost, in integer nano-dollars, and how sure that is. Pure: the price table is the installed package's.

A price that is not known is never 0: the cost is unpriced then, and shown as such. The installed version of
genai-prices is the table's version; it does not update itself here, and asks no network.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final

from core.outcomes import Cost, CostStatus, Usage

NANO: Final = Decimal(10**9)
PER: Final = Decimal(10**6)  # Prices are per million tokens.
LARGEST: Final = 2**63 - 1  # What the column holds.


def price(
    usage: Usage | None,
    *,
    model: str,
    provider_url: str,
    builtin: bool,
    at: datetime,
    own: tuple[Decimal | float, Decimal | float] | None,
) -> Cost:
    """The cost of one call that began at `at` (aware), answered by `model` behind `provider_url`.

    `own` are the prices of the settings, dollars per million input and output tokens: they come first, and know no
    rebate for cached tokens. Then the table, for the provider of the URL where it is known, else for the provider
    whose model this is by name. Money is rounded once, at the end, half to even.
    """
    if builtin:
        return Cost(CostStatus.NONE)
    if usage is None:
        return Cost(CostStatus.UNKNOWN)
    if own is not None:
        per_input, per_output = (Decimal(str(one)) for one in own)
        return _cost(lambda: (usage.input_total * per_input + usage.output_total * per_output) / PER, source="settings")
    return _by_table(usage, model, provider_url, at)


def warm() -> None:
    """Load the table now: it takes a second, which nobody should spend inside a transaction or an event loop."""
    _by_table(Usage(1, visible_output=1), "gpt-4o", "", datetime.min.replace(tzinfo=UTC))


def _by_table(usage: Usage, model: str, provider_url: str, at: datetime) -> Cost:
    import genai_prices  # Here, because only real models need it: see `warm`.
    from genai_prices.data_snapshot import get_snapshot

    table = get_snapshot()
    try:
        try:
            provider, how = table.find_provider(None, None, provider_url), "by address"
        except LookupError:
            provider, how = table.find_provider(model.lower(), None, None), "by model name"
        _, known = table.find_provider_model(model, provider, None, None)
    except LookupError:
        return Cost(CostStatus.UNPRICED)
    # The table wants totals with the cached tokens inside, and takes them out by itself.
    tokens = genai_prices.Usage(
        input_tokens=usage.input_total,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output_total,
    )

    def dollars() -> Decimal:
        parts = known.calc_price(tokens, provider, genai_request_timestamp=at)
        if (usage.input_total and not parts.input_price) or (usage.output_total and not parts.output_price):
            raise LookupError("the table names the model and leaves this price out")
        return parts.total_price

    return _cost(
        dollars,
        source=f"genai-prices {genai_prices.__version__}: {provider.id}/{known.id} {how}",
    )


def _cost(dollars: Callable[[], Decimal], *, source: str) -> Cost:
    try:
        with localcontext(prec=50):
            nano = int((dollars() * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))
    except (LookupError, ValueError, ArithmeticError):  # Numbers that no table can price.
        return Cost(CostStatus.UNPRICED)
    return Cost(CostStatus.PRICED, nano, source) if 0 <= nano <= LARGEST else Cost(CostStatus.UNPRICED)
