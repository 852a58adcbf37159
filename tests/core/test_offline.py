"""The built-in rules, asked as any model is: through the openai SDK and over ASGI."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from core import amounts, demo, offline, offline_refunds, workflow
from core.workflow import Answer, Submission, To
from core.workflows import refunds
from core.workflows.refunds import Order, Payment, RefundProposal, RefundRequest, Refunds

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def client() -> openai.AsyncOpenAI:
    transport = httpx2.ASGITransport(app=offline.app)
    http_client = openai.DefaultAsyncHttpx2Client(transport=transport)
    return openai.AsyncOpenAI(
        api_key="builtin", base_url="http://builtin.invalid/v1", max_retries=0, http_client=http_client
    )


def through(call: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client() as one:
            return await call(one)

    return asyncio.run(run())


def ask(data: str, *, name: str = "refunds", model: str = offline.MODEL, **more: Any) -> ChatCompletion:
    schema = {"name": name, "strict": True, "schema": workflow.strict_schema(RefundProposal)}
    question: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": "instructions"}, {"role": "user", "content": data}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    answer: ChatCompletion = through(lambda one: one.chat.completions.create(**question, **more))
    return answer


def submission(request: RefundRequest, *answers: str) -> Submission[RefundRequest]:
    asked = tuple(Answer(refunds.QUESTIONS["order"], text) for text in answers)
    return Submission(request, NOW, answers=asked)


def proposed(request: RefundRequest, *answers: str) -> RefundProposal:
    data = json.loads(Refunds().prompt(submission(request, *answers)).data)
    return offline_refunds.propose(data)


def written(message: str, **changes: Any) -> RefundRequest:
    return RefundRequest(customer="Nora Nobody", message=message, **changes)


# --- The server -----------------------------------------------------------------------------------------------------


def test_it_says_that_it_is_no_model_and_costs_nothing() -> None:
    answer = ask(Refunds().prompt(submission(demo.REQUESTS[0])).data)

    assert answer.model == "builtin-rules-1"
    assert answer.system_fingerprint == "rules, not a model"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (0, 0, 0)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.refusal is None


def test_the_list_of_models_names_the_one_and_its_owner() -> None:
    page = through(lambda one: one.models.list())
    model = through(lambda one: one.models.retrieve(offline.MODEL))

    assert [(found.id, found.owned_by) for found in page.data] == [("builtin-rules-1", "builtin (no AI)")]
    assert model.id == "builtin-rules-1"


def test_the_same_question_gets_the_same_answer() -> None:
    data = Refunds().prompt(submission(demo.REQUESTS[0])).data

    assert ask(data) == ask(data)


def test_an_answer_carries_a_request_id() -> None:
    answer = ask(Refunds().prompt(submission(demo.REQUESTS[0])).data)

    assert (answer._request_id or "").startswith("builtin-")


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"name": "parking"}, openai.BadRequestError, "unsupported_workflow"),
        ({"model": "gpt-of-dreams"}, openai.NotFoundError, "model_not_found"),
        ({"data": "no JSON"}, openai.BadRequestError, "unsupported_data"),
        ({"data": "[1]"}, openai.BadRequestError, "unsupported_data"),
        ({"data": "[" * 100_000}, openai.BadRequestError, "unsupported_data"),
        ({"data": "x" * offline.LARGEST_BODY}, openai.APIStatusError, "too_large"),
    ],
)
def test_what_it_cannot_answer_it_refuses_with_a_code(
    changes: dict[str, Any], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as refused:
        ask(**({"data": "{}"} | changes))

    assert refused.value.code == code


def test_another_endpoint_is_not_there() -> None:
    with pytest.raises(openai.NotFoundError):
        through(lambda one: one.responses.create(model=offline.MODEL, input="hello"))


def test_streams_and_questions_without_a_schema_are_refused() -> None:
    with pytest.raises(openai.BadRequestError):
        ask("{}", stream=True)
    with pytest.raises(openai.BadRequestError) as refused:
        through(
            lambda one: one.chat.completions.create(model=offline.MODEL, messages=[{"role": "user", "content": "{}"}])
        )

    assert refused.value.code == "unsupported_workflow"


def test_a_server_can_start_and_stop_it() -> None:
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(offline.app({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- The rules, on the demo's requests ------------------------------------------------------------------------------


def amounts_in(request: RefundRequest) -> set[int | None]:
    """Every amount that the request states or that its fields add up to."""
    stated: set[int | None] = {request.claimed_amount_minor}
    for mention in amounts.mentions(request.message):
        stated |= {mention.minor(currency) for currency in mention.currencies}
    left = 0
    for order in request.orders:
        stated |= {payment.amount_minor for payment in order.payments}
        stated |= {item.price_minor and item.price_minor * item.quantity for item in order.items}
        paid = sum(payment.amount_minor or 0 for payment in order.payments)
        stated.add(paid - (order.refunded_minor or 0))
        left += paid - (order.refunded_minor or 0)
    return stated | {left}


@pytest.mark.parametrize("request_", demo.REQUESTS, ids=lambda one: f"{one.customer}, {one.channel}")
def test_every_demo_request_gets_a_valid_proposal_with_an_amount_that_it_states(request_: RefundRequest) -> None:
    given = submission(request_)

    content = ask(Refunds().prompt(given).data).choices[0].message.content
    values = RefundProposal.model_validate_json(content or "")
    flags = {flag.code: flag for flag in Refunds().check(given, values)}

    assert values.amount_minor in {0} | amounts_in(request_)
    assert not any(flag.level == "stop" for flag in flags.values())
    assert not {"evidence_not_found", "evidence_missing", "clause_unknown"} & set(flags)


def test_the_demo_shows_every_verdict_and_several_routes() -> None:
    verdicts, causes = set(), set()
    for request in demo.REQUESTS:
        values = proposed(request)
        route = Refunds().route(submission(request), values, Refunds().check(submission(request), values))
        verdicts.add(values.verdict)
        causes.add(route.cause)

    assert verdicts == {"refund_in_full", "refund_in_part", "decline", "needs_information"}
    assert {"default", "missing", "instructions_in_text"} <= causes


def test_the_message_that_gives_orders_gets_no_more_than_was_paid() -> None:
    bossy = next(one for one in demo.REQUESTS if one.customer.startswith("Iggy"))

    values = proposed(bossy)

    assert values.amount_minor == 790
    assert values.destination == "payment:CS-10080/P-7060"


# --- The rules, on messages as people write them --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason", "minor", "currency"),
    [
        ("I paid USD 20 for order 99 and it is broken", "damaged", 2000, "USD"),
        ("order A12-99 the shirt is too small, £25", "change_of_mind", 2500, "GBP"),
        ("Cancel my order 88421 please, I want the 15 EUR back", "cancelled", 1500, "EUR"),
        ("order #4521: you charged me twice, 20 EUR", "duplicate_charge", 2000, "EUR"),
        ("Order 5150: got the wrong size, 30 GBP please", "wrong_item", 3000, "GBP"),
        ("I just received order 4711 and it is broken, 20 EUR", "damaged", 2000, "EUR"),
        ("I only received half of order 4711, 20 EUR please", "missing_item", 2000, "EUR"),
        ("Bonjour, ma commande 88123 n'est jamais arrivée, remboursez-moi 45,50 €.", "not_received", 4550, "EUR"),
        ("Hola, el pedido 7781 llegó roto. Quiero que me devuelvan 30 €", "damaged", 3000, "EUR"),
        ("Meine Bestellung 4711 ist nie angekommen. Bitte 1.234,50 EUR erstatten", "not_received", 123450, "EUR"),
        ("Buongiorno, l'ordine n. 3344 è arrivato danneggiato, 19,99 euro", "damaged", 1999, "EUR"),
        ("Pedido 9988 não chegou, quero reembolso de R$ 89,90", "not_received", 8990, "BRL"),
        ("Mijn bestelling 4455 is niet aangekomen, graag 25 euro terug", "not_received", 2500, "EUR"),
        ("Zamówienie 555123 nie dotarło, proszę o zwrot 120 zł", "not_received", 12000, "PLN"),
        ("Заказ 98765 так и не пришёл, верните деньги, 20 EUR", "not_received", 2000, "EUR"),
        ("订单 123456 坏了，请退款 100元", "damaged", 10000, "CNY"),
        ("注文番号 778899 が届かない。返金してください 5000円", "not_received", 5000, "JPY"),
    ],
)
def test_a_complaint_with_order_and_amount_is_read_in_many_languages(
    message: str, reason: str, minor: int, currency: str
) -> None:
    request = written(message)

    values = proposed(request)
    flags = {flag.code for flag in Refunds().check(submission(request), values)}

    assert (values.reason_code, values.amount_minor, values.currency) == (reason, minor, currency)
    assert values.destination == "store_credit"
    assert "evidence_found" in flags


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("just give me my money back", {"reason", "order", "amount"}),
        ("it is broken", {"order", "amount"}),
        ("my order 4711 is broken", {"amount"}),
        ("my order of 12 weeks ago is broken, 20 EUR", {"order"}),
        ("I placed an order 12 weeks ago, it is broken, 20 EUR", {"order"}),
        ("my order 4711 is broken, it was $20", {"currency"}),
        ("my order 4711 is broken. One was 20 EUR, one 30 EUR", {"amount"}),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", {"reason", "order", "amount"}),
        ("<script>alert(1)</script>", {"reason", "order", "amount"}),
        ("I never got my money back for order 1234, 30 EUR", {"reason"}),
    ],
)
def test_what_a_message_does_not_say_is_asked_for_and_never_invented(message: str, missing: set[str]) -> None:
    values = proposed(written(message))

    assert values.verdict == "needs_information"
    assert set(values.missing) == missing
    assert values.amount_minor == 0


def test_an_answer_fills_what_was_missing() -> None:
    request = written("it stopped working, i want my 35 € back")

    values = proposed(request, "Sorry, it is order 4711")

    assert (values.verdict, values.amount_minor, values.currency) == ("refund_in_full", 3500, "EUR")


def test_a_currency_named_in_an_answer_is_used() -> None:
    values = proposed(written("order 4711 is broken, it was $20"), "In CAD")

    assert (values.amount_minor, values.currency) == (2000, "CAD")


def paid(number: str, minor: int, **changes: Any) -> Order:
    values: dict[str, Any] = {
        "id": number,
        "status": "delivered",
        "currency": "EUR",
        "payments": [Payment(id="P", amount_minor=minor)],
        "ordered_on": NOW.date(),
        "delivered_on": NOW.date(),
    }
    return Order(**(values | changes))


def test_of_several_orders_the_one_that_the_message_names_is_meant() -> None:
    values = proposed(written("B-2 arrived broken", orders=[paid("A-1", 1000), paid("B-2", 2500)]))

    assert (values.amount_minor, values.destination) == (2500, "payment:B-2/P")


def test_no_more_than_what_is_left_is_proposed() -> None:
    request = written("arrived broken", orders=[paid("A-1", 1000, refunded_minor=400)], claimed_amount_minor=5000)

    assert proposed(request).amount_minor == 600


def test_what_is_refunded_already_is_declined() -> None:
    values = proposed(written("arrived broken", orders=[paid("A-1", 1000, refunded_minor=1000)]))

    assert (values.verdict, values.clauses) == ("decline", ["R13"])


def test_a_double_charge_that_was_paid_back_is_not_paid_back_again() -> None:
    both = [Payment(id="P", amount_minor=700), Payment(id="Q", amount_minor=700)]

    once = proposed(written("charged twice", orders=[paid("A-1", 0, payments=both)]))
    again = proposed(written("charged twice", orders=[paid("A-1", 0, payments=both, refunded_minor=700)]))

    assert (once.verdict, once.amount_minor) == ("refund_in_part", 700)
    assert again.verdict == "needs_information"


def test_a_parcel_that_the_carrier_calls_delivered_is_asked_about_once() -> None:
    request = written("my parcel never arrived", orders=[paid("A-1", 1000)])

    assert proposed(request).missing == ["delivery_check"]
    assert proposed(request, "No neighbour has it").verdict == "refund_in_full"


def test_a_claim_in_another_currency_than_the_order_is_asked_about() -> None:
    request = written("arrived broken", orders=[paid("A-1", 1000)], claimed_amount_minor=1000, currency="USD")

    values = proposed(request)
    route = Refunds().route(submission(request), values, Refunds().check(submission(request), values))

    assert values.missing == ["currency"]
    assert route.to is To.ASK


def test_who_asks_for_store_credit_gets_it() -> None:
    values = proposed(written("arrived broken, store credit is fine", orders=[paid("A-1", 1000)]))

    assert values.destination == "store_credit"


def test_of_a_word_as_long_as_a_page_the_beginning_is_quoted() -> None:
    values = proposed(written("cancel" * 3_000))

    assert [entry.quote for entry in values.evidence] == ["cancel" * 40]


def test_what_a_customer_got_already_is_not_what_they_want() -> None:
    message = "Die Lampe ist defekt. 20 Euro haben Sie mir schon gutgeschrieben, bitte erstatten Sie den Rest."

    values = proposed(written(message, orders=[paid("A-1", 8900, refunded_minor=2000)]))

    assert values.amount_minor == 6900


@settings(deadline=None)
@given(
    message=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1),
    phrase=st.sampled_from(["", "arrived broken ", "order 4711 never arrived, 20 EUR ", "cancel $5 and 7 €", "退款 "]),
    orders=st.lists(
        st.builds(paid, st.sampled_from("ABC"), st.integers(0, 10**12)), max_size=2, unique_by=lambda o: o.id
    ),
    claimed=st.none() | st.integers(0, 10**12),
)
def test_no_message_breaks_the_rules_or_makes_them_invent_an_amount(
    message: str, phrase: str, orders: list[Order], claimed: int | None
) -> None:
    request = written(phrase + message, orders=orders, claimed_amount_minor=claimed)

    values = proposed(request)

    assert values.amount_minor in {0} | amounts_in(request)
    assert set(values.clauses) <= set(refunds.CLAUSES)
    assert all(quote.quote in refunds.sent_text(request, request.message) for quote in values.evidence)


# --- The demo's data ------------------------------------------------------------------------------------------------


def test_the_demo_has_the_six_people_that_the_path_needs_and_two_leads_among_them() -> None:
    roles = ["submitter", "submitter", "reviewer", "lead", "lead", "administrator"]
    assert [one.role for one in demo.PEOPLE] == roles
    assert all(one.email.endswith("@demo.example") for one in demo.PEOPLE)
    assert len({one.email for one in demo.PEOPLE}) == 6


def test_the_demo_reads_the_same_on_any_day() -> None:
    for day in (datetime(2024, 2, 29, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)):
        for request, today in zip(demo.requests(day.date()), demo.REQUESTS, strict=True):
            then = json.loads(Refunds().prompt(Submission(request, day)).data)

            assert offline_refunds.propose(then) == proposed(today)
