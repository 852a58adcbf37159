"""What comes after a try that did not succeed, as tables, and as rules that hold for any numbers."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import breaker, outcomes, retry
from core.breaker import Breaker, Signal
from core.outcomes import Applied, Category, InDoubt, Kind, Later, Receipt, Refused, Reply, ToPerson

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Fixed:
    """Chance that always comes out the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


LEAST, MOST = Fixed(0.0), Fixed(1.0)


def decide(
    kind: Kind,
    category: Category,
    *,
    tries: int = 1,
    limit: int = 3,
    deadline: datetime | None = NOW + HOUR,
    rng: retry.Chance = MOST,
    earlier: tuple[str, ...] = (),
    retry_after: float | None = None,
    detail: str = "",
    probe: bool = False,
) -> Later | ToPerson:
    reply = Reply(kind, category=category, retry_after=retry_after, detail=detail)
    return retry.decide(
        reply, tries=tries, limit=limit, now=NOW, deadline=deadline, rng=rng, earlier=earlier, probe=probe
    )


def wait(outcome: object) -> float:
    assert isinstance(outcome, Later)
    return (outcome.at - NOW).total_seconds()


def lane_waits(signal: Signal) -> float:
    """Seconds for which a lane that was open lets nothing out after this."""
    lane = breaker.after(Breaker(), [signal], now=NOW, rng=LEAST)
    return (lane.until - NOW).total_seconds() if lane.until is not None else 0.0


# --- Replies of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "category", "reason"),
    [
        (Kind.REFUSED, Category.REFUSAL, "The model declined to answer; its words are kept with the attempt. Decide "
         "without a proposal, or re-run with a note."),
        (Kind.FILTERED, Category.FILTER, "The provider's content filter stopped the answer (400 content_filter). "
         "Decide without a proposal, or re-run with a note."),
        (Kind.IMPOSSIBLE, Category.IMPOSSIBLE, "The model's provider does not take this request (400 content_filter), "
         "and would not take it again. Decide without a proposal."),
    ],
)  # fmt: skip
def test_what_repeating_cannot_change_goes_to_a_person_at_once(kind: Kind, category: Category, reason: str) -> None:
    assert decide(kind, category, tries=1, detail="400 content_filter") == ToPerson(category, reason)


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        (Category.TIMEOUT, "The model's provider did not answer in time, three times. Decide without a proposal, or "
         "re-run."),
        (Category.PROVIDER, "The model's provider reported a fault of its own, three times. Decide without a proposal, "
         "or re-run."),
    ],
)  # fmt: skip
def test_after_the_last_try_a_person_is_told_what_happened(category: Category, reason: str) -> None:
    gone_before = (Kind.TRANSIENT, Kind.TRANSIENT)

    assert decide(Kind.TRANSIENT, category, tries=3, earlier=gone_before) == ToPerson(category, reason)


def test_the_last_of_mixed_tries_is_not_said_to_be_the_same_each_time() -> None:
    outcome = decide(Kind.TRANSIENT, Category.TIMEOUT, tries=3, earlier=(Kind.INVALID, Kind.TRANSIENT))

    assert isinstance(outcome, ToPerson)
    assert "did not answer in time; it was the last of three tries." in outcome.reason


@pytest.mark.parametrize(("tries", "most"), [(1, 2.0), (2, 4.0), (3, 8.0), (8, 256.0), (9, 300.0), (400, 300.0)])
def test_waits_double_with_full_jitter_up_to_five_minutes(tries: int, most: float) -> None:
    shortest = decide(Kind.TRANSIENT, Category.PROVIDER, tries=tries, limit=1_000, rng=LEAST)
    longest = decide(Kind.TRANSIENT, Category.PROVIDER, tries=tries, limit=1_000, rng=MOST)

    assert (wait(shortest), wait(longest)) == (0.0, most)
    assert isinstance(longest, Later)
    assert longest.spent
    assert longest.reason == "The model's provider reported a fault of its own. It is tried again."


def test_the_wait_that_a_provider_asks_for_is_its_lanes_so_that_cases_go_on_when_that_does() -> None:
    reply = Reply(Kind.TRANSIENT, category=Category.RATE_LIMIT, retry_after=600)

    assert wait(decide(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=600, rng=LEAST)) == 0
    assert wait(decide(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=600, rng=MOST)) == 2
    assert lane_waits(breaker.of_reply(uuid4(), reply)) >= 600


def test_a_try_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    outcome = decide(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=3_600, deadline=NOW + HOUR)

    assert outcome == ToPerson(
        Category.RATE_LIMIT,
        "The model's provider asked us to slow down, and the next try would come after the case's deadline. Decide "
        "without a proposal, or re-run.",
    )


def test_without_a_deadline_only_the_tries_count() -> None:
    assert wait(decide(Kind.TRANSIENT, Category.RATE_LIMIT, retry_after=3_600, deadline=None, tries=99)) <= 300


@pytest.mark.parametrize(("kind", "category"), [(Kind.INVALID, Category.INVALID), (Kind.TRUNCATED, Category.TRUNCATED)])
def test_an_unusable_answer_is_asked_for_once_more_and_no_more(kind: Kind, category: Category) -> None:
    first = decide(kind, category, tries=1)
    after_another_fault = decide(kind, category, tries=2, earlier=(Kind.TRANSIENT,))
    second = decide(kind, category, tries=2, earlier=(kind,))
    at_the_limit = decide(kind, category, tries=1, limit=1)

    assert isinstance(first, Later)
    assert isinstance(after_another_fault, Later)
    assert isinstance(second, ToPerson)
    assert ", twice. Decide without a proposal, or re-run." in second.reason
    assert isinstance(at_the_limit, ToPerson)
    assert ", once." in at_the_limit.reason


def test_an_answer_cut_off_is_asked_for_at_once_with_twice_the_length() -> None:
    outcome = decide(Kind.TRUNCATED, Category.TRUNCATED)

    assert wait(outcome) == 0
    assert retry.token_limit(2_000, ()) == 2_000
    assert retry.token_limit(2_000, (Kind.TRANSIENT, Kind.TRUNCATED)) == 4_000
    assert retry.token_limit(2_000, ("truncated",)) == 4_000  # As the store gives it back.


@pytest.mark.parametrize(("rng", "seconds"), [(LEAST, 0.0), (Fixed(0.5), 1.0), (MOST, 2.0)])
def test_a_blocked_lane_costs_a_case_nothing_however_often(rng: retry.Chance, seconds: float) -> None:
    outcome = decide(Kind.BLOCKED, Category.CONFIGURATION, tries=99, detail="429 insufficient_quota", rng=rng)

    assert wait(outcome) == seconds
    assert isinstance(outcome, Later)
    assert not outcome.spent
    assert outcome.reason == (
        "The model cannot be used now: key, credit or name of the model (429 insufficient_quota). The case waits."
    )


@pytest.mark.parametrize(
    ("category", "probe"), [(Category.RATE_LIMIT, False), (Category.TIMEOUT, True), (Category.PROVIDER, True)]
)
def test_a_try_that_failed_for_all_alike_is_not_used_up(category: Category, probe: bool) -> None:
    outcome = decide(Kind.TRANSIENT, category, tries=99, probe=probe)

    assert isinstance(outcome, Later)
    assert not outcome.spent


def test_a_probe_that_would_come_back_after_the_deadline_goes_to_a_person() -> None:
    outcome = decide(Kind.TRANSIENT, Category.TIMEOUT, tries=1, probe=True, deadline=NOW)

    assert isinstance(outcome, ToPerson)


def test_a_case_blocked_past_its_deadline_goes_to_a_person() -> None:
    outcome = decide(Kind.BLOCKED, Category.CONFIGURATION, deadline=NOW)

    assert isinstance(outcome, ToPerson)
    assert "until the case's deadline passed" in outcome.reason


def test_a_good_reply_needs_no_decision() -> None:
    with pytest.raises(ValueError, match="needs no decision"):
        retry.decide(Reply(Kind.OK), tries=1, limit=3, now=NOW, deadline=None, rng=MOST)


bad_kinds = st.sampled_from([kind for kind in Kind if kind is not Kind.OK])


def test_a_provider_that_names_a_time_costs_no_try_and_a_second_model_may_answer_before_it() -> None:
    reply = Reply(Kind.TRANSIENT, category=Category.PROVIDER, retry_after=900.0, detail="503")
    how: dict[str, Any] = {"tries": 3, "limit": 3, "now": NOW, "rng": LEAST}
    in_time: dict[str, Any] = how | {"deadline": NOW + HOUR}
    too_late: dict[str, Any] = how | {"deadline": NOW + timedelta(seconds=600)}

    for waits in (retry.decide(reply, **in_time), retry.decide(reply, **too_late, has_fallback=True)):
        assert isinstance(waits, Later)
        assert (wait(waits), waits.spent) == (0, False)
    assert isinstance(retry.decide(reply, **too_late), ToPerson)


@given(
    bad_kinds,
    st.sampled_from(list(Category)),
    st.integers(1, 30),
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(-10, 10_000)),
    st.one_of(st.none(), st.floats(0, 3_600)),
    st.lists(bad_kinds.map(str), max_size=30),
    st.integers(),
)
def test_every_decision_ends_keeps_the_floor_and_the_deadline_and_reads_as_sentences(
    kind: Kind,
    category: Category,
    tries: int,
    limit: int,
    deadline_in: int | None,
    retry_after: float | None,
    earlier: list[str],
    seed: int,
) -> None:
    deadline = None if deadline_in is None else NOW + timedelta(seconds=deadline_in)
    outcome = decide(
        kind, category, tries=tries, limit=limit, deadline=deadline, retry_after=retry_after,
        earlier=tuple(earlier), rng=random.Random(seed),
    )  # fmt: skip

    assert outcome.reason[0].isupper()
    assert outcome.reason.endswith(".")
    assert outcome.category is category
    if isinstance(outcome, Later):
        assert outcome.at >= NOW
        if kind in (Kind.TRANSIENT, Kind.BLOCKED) and retry_after:
            reply = Reply(kind, category=category, retry_after=retry_after)
            assert lane_waits(breaker.of_reply(uuid4(), reply)) >= retry_after - 1e-6
        if outcome.spent:
            assert tries < limit
            assert deadline is None or outcome.at < deadline
        else:
            waits = category is Category.RATE_LIMIT or retry_after is not None
            assert kind is Kind.BLOCKED or (kind is Kind.TRANSIENT and waits)
            assert deadline is None or deadline > NOW
    elif kind is Kind.BLOCKED:
        assert deadline is not None
        assert deadline <= NOW


# --- Answers of a receiver -------------------------------------------------------------------------------------------

RECEIPT = Receipt("k" * 64, "re_1")
UNCLEAR = "The receiver did not say clearly whether it applied this"


def after(
    answer: outcomes.Answer,
    *,
    tries: int = 1,
    limit: int = 10,
    earlier_unknown: bool = False,
    rng: retry.Chance = MOST,
    send_before: datetime | None = NOW + 20 * HOUR,
    keeps_keys: bool = True,
) -> Applied | Later | Refused | InDoubt:
    return retry.after_effect(
        answer, tries=tries, limit=limit, earlier_unknown=earlier_unknown, now=NOW, rng=rng, send_before=send_before,
        keeps_keys=keeps_keys,
    )  # fmt: skip


ANSWERS: list[tuple[outcomes.Answer, bool, type[Applied | Later | Refused | InDoubt]]] = [
    (outcomes.Answer("applied", RECEIPT), False, Applied),
    (outcomes.Answer("applied", RECEIPT), True, Applied),
    (outcomes.Answer("applied"), False, Later),
    (outcomes.Answer("rejected", detail="409 already refunded"), False, Refused),
    (outcomes.Answer("rejected", detail="409 already refunded"), True, InDoubt),
    (outcomes.Answer("unknown"), False, Later),
    (outcomes.Answer("unknown"), True, Later),
    (outcomes.Answer("not_sent"), False, Later),
    (outcomes.Answer("not_sent"), True, Later),
    (outcomes.Answer("held"), False, Later),
    (outcomes.Answer("held"), True, Later),
    (outcomes.Answer("broken"), False, InDoubt),
    (outcomes.Answer("broken"), True, InDoubt),
    (outcomes.Answer("pending"), False, Later),
    (outcomes.Answer("pending"), True, Later),
    (outcomes.Answer("partial", RECEIPT), False, InDoubt),
    (outcomes.Answer("partial", RECEIPT), True, InDoubt),
    (outcomes.Answer("misconfigured"), False, Later),
    (outcomes.Answer("misconfigured"), True, Later),
]


@pytest.mark.parametrize(("answer", "earlier_unknown", "ending"), ANSWERS)
def test_an_answer_means_what_the_protocol_says(
    answer: outcomes.Answer, earlier_unknown: bool, ending: type[Applied | Later | Refused | InDoubt]
) -> None:
    assert isinstance(after(answer, earlier_unknown=earlier_unknown), ending)


def test_a_receipt_is_handed_on() -> None:
    assert after(outcomes.Answer("applied", RECEIPT), earlier_unknown=True) == Applied(RECEIPT)


@pytest.mark.parametrize("late", [{"tries": 10}, {"send_before": NOW}, {"send_before": NOW - HOUR}])
@pytest.mark.parametrize(
    ("kind", "earlier_unknown", "ending"),
    [
        ("unknown", False, InDoubt),
        ("unknown", True, InDoubt),
        ("not_sent", True, InDoubt),
        ("not_sent", False, Refused),
    ],
)
def test_when_it_cannot_be_sent_again_only_what_never_left_counts_as_not_applied(
    late: dict[str, int | datetime], kind: str, earlier_unknown: bool, ending: type[object]
) -> None:
    answer = outcomes.Answer(kind)  # type: ignore[arg-type]

    assert isinstance(after(answer, earlier_unknown=earlier_unknown, **late), ending)  # type: ignore[arg-type]


def test_a_receiver_that_asks_us_to_wait_uses_up_no_tries_until_the_key_may_be_forgotten() -> None:
    held = outcomes.Answer("held", detail="429", retry_after=90.0)

    waiting = after(held, tries=99, rng=LEAST)
    too_late = after(held, send_before=NOW + timedelta(seconds=90), rng=LEAST)

    assert waiting == Later(
        NOW + timedelta(seconds=90),
        Category.EFFECT_NOT_SENT,
        "The receiver asked us to wait (429). It is sent again, with the same key.",
        spent=False,
    )
    assert isinstance(too_late, InDoubt)


def test_a_receiver_that_is_busy_with_the_key_and_names_no_time_is_given_a_moment() -> None:
    assert wait(after(outcomes.Answer("held"), rng=LEAST)) == retry.HELD_WAIT


def test_the_reasons_of_effects_say_what_is_known_and_what_to_do() -> None:
    in_doubt = after(outcomes.Answer("unknown", detail="504"), tries=10)
    late = after(outcomes.Answer("unknown"), send_before=NOW)
    never_sent = after(outcomes.Answer("not_sent", detail="connection refused"), tries=10)
    refused = after(outcomes.Answer("rejected", detail="amount above balance"))

    assert in_doubt == InDoubt(f"{UNCLEAR} (504); it was the last of ten tries.")
    assert late == InDoubt(f"{UNCLEAR}, and it is too late to send it again: the receiver may have forgotten the key.")
    assert never_sent == Refused(
        "The receiver could not be reached (connection refused); it was the last of ten tries. Nothing was sent."
    )
    assert refused == Refused("The receiver refused it (amount above balance).")


def test_what_is_pending_is_asked_about_until_the_key_may_be_forgotten() -> None:
    pending = outcomes.Answer("pending", detail="202")

    waiting = after(pending, tries=99, rng=LEAST)
    too_late = after(pending, send_before=NOW + timedelta(seconds=10))

    assert waiting == Later(
        NOW + timedelta(seconds=retry.PENDING_WAIT),
        Category.EFFECT_UNKNOWN,
        "The receiver has taken this and is not done with it yet (202). It is asked again, with the same key.",
        spent=False,
    )
    assert too_late == InDoubt(
        "The receiver has taken this and is not done with it yet (202), and it is too late to send it again: the "
        "receiver may have forgotten the key."
    )


def test_a_part_that_was_applied_is_told_with_both_amounts() -> None:
    outcome = after(outcomes.Answer("partial", RECEIPT, detail="20.00 EUR of 50.00 EUR"))

    assert outcome == InDoubt(
        "The receiver applied 20.00 EUR of 50.00 EUR as re_1. Make it whole there, or find that this part is what was "
        "applied; it is not sent again.",
        final=True,
    )


@pytest.mark.parametrize(("rng", "seconds"), [(LEAST, 0.0), (MOST, 2.0)])
def test_a_receiver_that_is_set_up_wrongly_costs_no_tries_and_says_what_to_settle(
    rng: retry.Chance, seconds: float
) -> None:
    outcome = after(outcomes.Answer("misconfigured", detail="401"), tries=99, rng=rng)

    assert outcome == Later(
        NOW + timedelta(seconds=seconds),
        Category.CONFIGURATION,
        "The receiver cannot be used as it is set up (401). Settle its address, its secret, its certificate or the "
        "clocks; the effect waits for that and is then sent.",
        spent=False,
    )


@pytest.mark.parametrize("earlier_unknown", [False, True])
def test_a_receiver_that_is_set_up_wrongly_never_makes_an_effect_refused(earlier_unknown: bool) -> None:
    answer = outcomes.Answer("misconfigured", detail="303")

    assert isinstance(after(answer, earlier_unknown=earlier_unknown, send_before=NOW), InDoubt)


@pytest.mark.parametrize(
    ("kind", "earlier_unknown", "ending"),
    [
        ("unknown", False, InDoubt),
        ("held", False, Later),
        ("held", True, InDoubt),
        ("pending", False, InDoubt),
        ("not_sent", False, Later),
        ("not_sent", True, InDoubt),
        ("misconfigured", False, Later),
        ("misconfigured", True, InDoubt),
        ("rejected", False, Refused),
        ("rejected", True, InDoubt),
    ],
)
def test_without_keys_only_what_surely_did_not_arrive_is_sent_again(
    kind: str, earlier_unknown: bool, ending: type[object]
) -> None:
    answer = outcomes.Answer(kind)  # type: ignore[arg-type]

    assert isinstance(after(answer, earlier_unknown=earlier_unknown, keeps_keys=False), ending)


KINDS = ["applied", "rejected", "unknown", "not_sent", "held", "broken", "pending", "partial", "misconfigured"]


@given(
    st.sampled_from(KINDS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 60),
    st.integers(1, 50),
    st.one_of(st.none(), st.integers(-100, 100_000)),
    st.one_of(st.none(), st.floats(0, 3_600)),
    st.integers(),
)
def test_no_effect_is_called_not_applied_while_any_send_is_in_doubt(
    kind: str,
    has_receipt: bool,
    earlier_unknown: bool,
    keeps_keys: bool,
    tries: int,
    limit: int,
    horizon: int | None,
    retry_after: float | None,
    seed: int,
) -> None:
    answer = outcomes.Answer(kind, RECEIPT if has_receipt else None, retry_after=retry_after)  # type: ignore[arg-type]
    send_before = None if horizon is None else NOW + timedelta(seconds=horizon)
    ending = after(
        answer, tries=tries, limit=limit, earlier_unknown=earlier_unknown, send_before=send_before,
        rng=random.Random(seed), keeps_keys=keeps_keys,
    )  # fmt: skip
    free = kind in ("held", "pending", "misconfigured")

    match ending:
        case Applied():
            assert kind == "applied"
        case Refused():
            assert not earlier_unknown
            assert kind in ("rejected", "not_sent")
        case Later():
            assert send_before is None or ending.at < send_before
            waited = max((ending.at - NOW).total_seconds(), lane_waits(breaker.of_answer(uuid4(), answer)))
            assert kind == "applied" or waited >= (retry_after or 0) - 1e-6
            assert ending.spent is not free
            assert free or tries < limit
            assert keeps_keys or (kind in ("not_sent", "held", "misconfigured") and not earlier_unknown)
        case InDoubt():
            assert kind != "applied" or not has_receipt
