"""Review: what is shown, what may be decided, and what is refused."""

from collections.abc import Callable

from core import actions, cases
from core.actions import Verdict
from core.lifecycle import Outcome, State
from core.workflows.refunds import RefundRequest
from pages.parts.verdicts import Asked, Shown
from tests.conftest import Store
from tests.core import drive
from tests.pages.conftest import Visit, in_markdown, words


def test_an_empty_queue_says_that_nothing_waits(visit: Visit, sqlite_store: Store) -> None:
    at = visit("review", sqlite_store.reviewer)

    assert not at.exception
    assert "Nothing is waiting for review." in words(at)
    assert not [button for button in at.button if button.label == "Approve"]


def test_the_request_the_proposal_and_the_effect_are_side_by_side(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()

    at = visit("review", sqlite_store.reviewer, case=number)

    assert not at.exception
    shown = words(at)
    assert "The lamp arrived broken." in shown
    assert "Credit 49.90 EUR to store credit." in shown
    assert field(at, number, sqlite_store, "amount_minor").value == "49.90"


def test_an_approval_goes_to_the_receiver(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    button(at, "Approve").click().run()

    assert not at.exception
    seen = view(sqlite_store, number)
    assert (seen.case.state, seen.case.step) == (State.PENDING, "apply")
    assert seen.decisions[-1].edits == "unchanged"
    assert f"Case {number}: Approved." in words(at)


def test_an_edited_amount_is_shown_with_what_it_was_and_is_what_is_approved(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    field(at, number, sqlite_store, "amount_minor").set_value("20.00")
    at.button(key="review.check").click().run()

    assert "49.90 EUR" in words(at)
    assert "edited, was" in words(at)
    assert "Credit 20.00 EUR to store credit." in words(at)
    button(at, "Approve with 1 edit").click().run()
    seen = view(sqlite_store, number)
    assert seen.case.step == "apply"
    assert seen.decisions[-1].values is not None
    assert seen.decisions[-1].values["amount_minor"] == 2000
    assert seen.decisions[-1].edits == "material"


def test_an_amount_that_is_no_amount_is_refused_beside_its_field(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    field(at, number, sqlite_store, "amount_minor").set_value("1,000")
    button(at, "Approve").click().run()

    assert "write the amount with digits and a decimal point only" in words(at)
    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_more_than_was_paid_is_stopped(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    field(at, number, sqlite_store, "amount_minor").set_value("99.90")
    button(at, "Approve").click().run()

    assert "This cannot be approved" in words(at)
    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_two_verdicts_in_one_run_apply_neither(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    shown = shown_of(sqlite_store, number)

    # What the panel's button records, and Approve pressed before the run begins.
    at.session_state["review.asked"] = [Asked(Verdict.REJECT, shown, note="No.")]
    button(at, "Approve").click().run()

    assert "Two answers arrived at once, so neither was given." in words(at)
    seen = view(sqlite_store, number)
    assert seen.case.state == State.WAITING_FOR_REVIEW
    assert not seen.decisions


def test_a_double_click_in_one_run_is_one_decision(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    shown = shown_of(sqlite_store, number)

    # Both presses are recorded before the run begins.
    at.session_state["review.asked"] = [Asked(Verdict.REJECT, shown, note="No.") for _ in range(2)]
    at.run()

    assert not at.exception
    assert f"Case {number}: Rejected" in words(at)
    assert "Two answers arrived at once" not in words(at)
    assert [one.verdict for one in view(sqlite_store, number).decisions] == ["reject"]


def test_the_second_press_of_a_double_click_may_come_in_a_run_of_its_own(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    shown = shown_of(sqlite_store, number)
    button(at, "Approve").click().run()

    at.session_state["review.asked"] = [Asked(Verdict.APPROVE, shown)]
    at.run()

    assert not at.exception
    assert f"Case {number}: Approved" in words(at)
    assert "was moved by" not in words(at)
    seen = view(sqlite_store, number)
    assert [one.verdict for one in seen.decisions] == ["approve"]
    assert "refused" not in [one.kind for one in seen.events]


def test_a_stale_decision_is_told_who_was_faster_and_the_edits_are_kept(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    seen = view(sqlite_store, number)
    actions.decide(
        seen.case.id, Verdict.REJECT, actor=sqlite_store.lead, settings=sqlite_store.settings, note="I was faster."
    )

    field(at, number, sqlite_store, "reply", seen).set_value("Words that took a while to write")
    button(at, "Approve").click().run()

    assert f"Case {number} was moved by Lead" in words(at)
    assert "Words that took a while to write" in words(at)
    assert view(sqlite_store, number).case.outcome == Outcome.DECLINED


def test_edits_of_an_earlier_proposal_can_be_put_into_the_new_one(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)
    seen = view(sqlite_store, number)
    actions.decide(
        seen.case.id, Verdict.RERUN, actor=sqlite_store.lead, settings=sqlite_store.settings, note="Look again."
    )
    drive.until_idle(sqlite_store.settings)
    field(at, number, sqlite_store, "reply", seen).set_value("My careful reply")
    button(at, "Approve").click().run()

    at.button(key="review.use_kept").click().run()

    assert field(at, number, sqlite_store, "reply").value == "My careful reply"
    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW


def test_nobody_decides_their_own_case(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting(who=sqlite_store.reviewer)

    at = visit("review", sqlite_store.reviewer, case=number)

    assert "Nobody decides a case of their own" in words(at)
    assert not [one for one in at.button if one.label.startswith("Approve")]


def test_a_submitter_may_not_open_review(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()

    at = visit("review", sqlite_store.submitter, case=number)

    assert "The lamp arrived broken." not in words(at)
    assert not [one for one in at.button if one.label.startswith("Approve")]


def test_a_rejection_wants_a_note(visit: Visit, sqlite_store: Store, waiting: Callable[..., int]) -> None:
    number = waiting()
    at = visit("review", sqlite_store.reviewer, case=number)

    at.button(key="review.reject").click().run()
    assert button(at, "Approve").disabled
    at.button(key=f"panel.reject.{number}.confirm").click().run()

    assert view(sqlite_store, number).case.state == State.WAITING_FOR_REVIEW
    at.text_area(key=f"panel.reject.{number}.text").set_value("Outside the policy.")
    at.button(key=f"panel.reject.{number}.confirm").click().run()
    at.run()
    seen = view(sqlite_store, number)
    assert seen.case.outcome == Outcome.DECLINED
    assert seen.decisions[-1].note == "Outside the policy."


def test_a_case_without_a_proposal_is_approved_with_typed_values(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    from core.outcomes import Kind

    number = waiting(kind=Kind.IMPOSSIBLE)
    assert view(sqlite_store, number).case.state == State.ESCALATED
    at = visit("review", sqlite_store.lead, case=number)
    assert not at.exception

    field(at, number, sqlite_store, "verdict").set_value("refund_in_full")
    field(at, number, sqlite_store, "amount_minor").set_value("49.90")
    field(at, number, sqlite_store, "currency").set_value("EUR")
    field(at, number, sqlite_store, "destination").set_value("store_credit")
    field(at, number, sqlite_store, "reason_code").set_value("damaged")
    field(at, number, sqlite_store, "reply").set_value("We refund you.")
    button(at, "Approve").click().run()

    assert not at.exception
    seen = view(sqlite_store, number)
    assert (seen.case.state, seen.case.step) == (State.PENDING, "apply")
    assert seen.decisions[-1].edits == "no_proposal"


def test_outside_text_is_shown_only_by_widgets_that_read_no_markdown(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    evil = "![beacon](http://evil.example/p.png)"
    body = drive.request(
        customer=f"Bob {evil}", message=f"{evil} <img src=x onerror=alert(1)> I want my 49.90 EUR back."
    )
    number = waiting(body=body, value=drive.proposal(reply=f"Sorry {evil}"))

    for page in ("review", "case", "rollback", "inbox", "cases"):
        who = sqlite_store.lead
        at = visit(page, who, case=number)

        assert not at.exception, page
        assert in_markdown(at, "evil.example") == [], page
        assert "<img" not in words(at), page


def test_an_order_id_that_reads_as_a_link_stays_text(
    visit: Visit, sqlite_store: Store, waiting: Callable[..., int]
) -> None:
    orders = [one.model_copy(update={"id": "http://evil.example/A"}) for one in drive.request().orders]
    number = waiting(body=RefundRequest.model_validate(drive.request().model_dump() | {"orders": orders}, strict=False))

    at = visit("review", sqlite_store.reviewer, case=number)

    assert not at.exception
    assert in_markdown(at, "evil.example") == []


# --- Steps ----------------------------------------------------------------------------------------------------------


def view(store: Store, number: int) -> cases.View:
    return cases.view(cases.resolve(number), actor=store.lead)


def shown_of(store: Store, number: int, seen: cases.View | None = None) -> Shown:
    seen = seen or view(store, number)
    tail = seen.proposal.id.hex[-12:] if seen.proposal else "none"
    return Shown(seen.case.id, number, seen.digest, seen.case.version, tail)


def field(at, number: int, store: Store, name: str, seen: cases.View | None = None):  # type: ignore[no-untyped-def]
    """The widget of a field of the proposal."""
    key = f"review.{number}.{shown_of(store, number, seen).proposal}.{name}"
    for kind in (at.text_input, at.text_area, at.selectbox, at.multiselect):
        for widget in kind:
            if widget.key == key:
                return widget
    raise AssertionError(f"no field {name}")


def button(at, label: str):  # type: ignore[no-untyped-def]
    """The button with this label."""
    return next(one for one in at.button if one.label == label)
