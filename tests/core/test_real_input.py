"""Real messages, naughty strings and injections, through the request model, file import, worker and ledger."""

import csv
import io
import json
from collections.abc import Sequence

import pytest

from core import cases, clock, errors, imports, installation, provider, submissions, verify
from core.lifecycle import State
from core.outcomes import Kind
from core.receivers.ledger import Ledger
from core.worker import Worker
from core.workflows.refunds import RefundProposal, RefundRequest
from tests import material
from tests.conftest import Store
from tests.counterparts.scripted_model import completion

pytestmark = pytest.mark.timeout(1_800)  # The real lists may be long.


def run_all(store: Store, requests: Sequence[RefundRequest]) -> list[submissions.Submitted]:
    """Submit everything, let a real worker with the built-in rules finish, and check what must hold of every case."""
    worker = Worker(store.settings, receivers=installation.receivers(store.settings))
    worker.start()
    try:
        made = [
            submissions.submit(one, actor=store.submitter, settings=store.settings, key=f"real:{n}")
            for n, one in enumerate(requests)
        ]
        worker.wake()
        assert worker.wait_until_idle(60 + len(requests)), "not idle in time"
    finally:
        worker.stop()
    return made


def every_case_ended_well(store: Store, made: Sequence[submissions.Submitted]) -> None:
    assert len({one.case_id for one in made}) == len(made), "a case was lost"
    rows = cases.listed(store.auditor, limit=len(made) + 1)
    assert len(rows) == len(made)
    for row in rows:
        assert row.case.state in (State.WAITING_FOR_REVIEW, State.NEEDS_INFORMATION, State.ESCALATED), row.case
        assert row.case.reason, f"case {row.case.number} has no reason"
    ledger = Ledger(store.settings.ledger_store_url)
    assert ledger.transfers() == []  # Nobody countersigned anything.
    report = verify.verify(ledger=ledger)
    assert report.holds, report.as_text()


def test_messages_in_every_shape_end_in_a_state_with_a_reason(store: Store) -> None:
    requests = [material.request_of(line) for line in material.OWN_LINES]

    made = run_all(store, requests)

    every_case_ended_well(store, made)
    assert [len(one.orders) for one in requests] == [0, 0, 0, 2, 2, 1, 0, 0, 2, 0, 1, 0]
    claimed = [one.claimed_amount_minor for one in requests]
    assert claimed == [None, 2000, None, None, 3050, None, None, None, None, None, 1250, None]
    assert [one.message for one in requests[7:]] == [
        "hi\nrefund pls", "Twice!", "Only words, under a key of their own", "I was billed twice", "words",
    ]  # fmt: skip


@pytest.mark.slow
def test_every_real_case_ends_in_a_state_with_a_reason(sqlite_store: Store) -> None:
    requests = [one for path in material.needed("*refund*.jsonl") for one in material.requests(path)]

    made = run_all(sqlite_store, requests)

    every_case_ended_well(sqlite_store, made)


def test_naughty_strings_pass_through_the_request_unharmed(sqlite_store: Store) -> None:
    strings = [one[:20_000] for one in material.naughty()]
    requests = [RefundRequest(customer=one.strip()[:200] or "x", message=one) for one in strings]

    made = run_all(sqlite_store, requests)

    every_case_ended_well(sqlite_store, made)
    for one, text in zip(made, strings, strict=True):
        assert cases.view(one.case_id, actor=sqlite_store.reviewer).submission.request.message == text


@pytest.mark.parametrize("text", material.UNSTORABLE)
def test_what_no_database_can_store_is_refused_with_what_to_do(sqlite_store: Store, text: str) -> None:
    with pytest.raises(errors.Incomplete, match=r"remove it|cannot be read"):
        submissions.read_request("refunds", {"customer": "N", "message": text})


def test_naughty_strings_pass_through_a_csv_file_unharmed(sqlite_store: Store) -> None:
    strings = [one for one in material.naughty() if len(one) <= 20_000]
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(["customer", "message"])
    rows.writerows([["Nora Nobody", one] for one in strings])

    lines = imports.run(
        "n.csv", file.getvalue().encode(), actor=sqlite_store.submitter, settings=sqlite_store.settings, dry_run=False
    )

    assert [line.status for line in lines] == ["new"] * len(strings), [line for line in lines if line.reason]
    for line, text in zip(lines, strings, strict=True):
        seen = cases.view(cases.resolve(str(line.case)), actor=sqlite_store.reviewer)
        assert seen.submission.request.message == text


def test_no_malformed_json_becomes_a_case(sqlite_store: Store) -> None:
    for content in material.malformed():
        for name in ("f.jsonl", "f.csv"):
            try:
                lines = imports.run(
                    name, content, actor=sqlite_store.submitter, settings=sqlite_store.settings, dry_run=False
                )
            except errors.Incomplete:
                continue  # The file as a whole was refused.

            assert all(line.status == "invalid" and line.reason for line in lines), content[:200]
    assert cases.listed(sqlite_store.auditor) == []


def test_no_malformed_json_is_taken_for_an_answer() -> None:
    for content in material.malformed():
        inside = json.dumps(completion(content.decode("utf-8", "surrogateescape"))).encode()

        for body in (content, inside):
            reply = provider.reply_of(body, {}, RefundProposal, now=clock.now())

            assert reply.kind in (Kind.INVALID, Kind.TRANSIENT), content[:200]
            assert reply.category is not None
            assert reply.detail


def test_no_injection_changes_who_decides_or_what_is_sent(store: Store) -> None:
    requests = [
        RefundRequest.model_validate_json(
            json.dumps(
                {
                    "customer": "Mallory Madeup",
                    "message": text[:20_000],
                    "orders": [
                        {
                            "id": f"A-{n}", "status": "delivered", "currency": "EUR",
                            "payments": [{"id": "p1", "method": "card", "amount_minor": 1000}],
                        }
                    ],
                }
            )
        )
        for n, text in enumerate(material.injections())
    ]  # fmt: skip

    made = run_all(store, requests)

    every_case_ended_well(store, made)  # A person decides each of them, and the ledger is empty.
    for one in made:
        seen = cases.view(one.case_id, actor=store.reviewer)
        assert [e.actor_kind for e in seen.events if e.kind in ("approve", "straight_on")] == []
        for proposal in seen.proposals:
            assert proposal.values["amount_minor"] <= 1000
            assert proposal.values["destination"] in (None, "store_credit", f"payment:A-{made.index(one)}/p1")
