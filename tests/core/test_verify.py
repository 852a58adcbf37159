"""Somebody changes rows behind the program's back; `verify` says so each time, and names what was touched."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session

from core import actions, audit, cases, installation, moves, verify
from core.actions import Verdict
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import database, events
from storage.tables import Event
from tests.conftest import Store, populate, postgres_database
from tests.core import drive


def _work(store: Store) -> None:
    """A case rolled back, one applied, one declined, one refused by the receiver, one that waits, one asked."""
    for key in "abcd":
        drive.submit(store, key=key, body=drive.request(message=f"Broken: {key}. I want my 49.90 EUR back.", orders=[]))
    drive.until_idle(store.settings)
    rows = sorted(cases.listed(store.lead), key=lambda row: row.case.number)
    settings = store.settings
    for row in rows[:2]:
        actions.decide(row.case.id, Verdict.APPROVE, actor=store.reviewer, settings=settings)
    actions.decide(rows[2].case.id, Verdict.REJECT, actor=store.reviewer, settings=settings, note="No.")
    drive.until_idle(settings)
    actions.roll_back(rows[0].case.id, "Wrong.", actor=store.lead)
    drive.until_idle(settings)
    drive.submit(store, key="e", body=drive.request(orders=[]))
    nothing = drive.proposal(
        verdict="needs_information", amount_minor=0, currency=None, destination=None, evidence=[], missing=["order"]
    )
    drive.until_idle(settings, ask=drive.says(nothing))
    asked = cases.listed(store.submitter, states=["needs_information"])[0]
    actions.answer(asked.case.id, "Order A-1.", actor=store.submitter, settings=settings)
    drive.until_idle(settings)
    refused = drive.submit(store, key="f", body=drive.request(message="I want my 49.90 EUR back.", orders=[]))
    drive.until_idle(settings)
    actions.decide(refused.case_id, Verdict.APPROVE, actor=store.reviewer, settings=settings)
    refusing = drive.Scripted(Ledger(settings.ledger_store_url), "refuse")
    drive.until_idle(settings, receivers={"ledger": refusing})


_snapshots: dict[str, tuple[Path, str, Store]] = {}


@pytest.fixture
def worked(settings: Settings, tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Store]:
    """An installation in which something of everything has happened: made once for each kind of store, then copied."""
    kind = "postgres" if settings.database_url else "sqlite"
    with ExitStack() as stack:
        if kind not in _snapshots:
            installation.open_(settings, create=True)
            made = populate(settings)
            _work(made)
            database.use(None)
            folder = shutil.copytree(settings.home, tmp_path_factory.mktemp(kind) / "home")
            url = _kept.enter_context(postgres_database(postgres_server, _name(settings))) if kind == "postgres" else ""
            _snapshots[kind] = (Path(folder), url, made)
        folder, url, made = _snapshots[kind]
        shutil.copytree(folder, settings.home, dirs_exist_ok=True)
        if url:
            copy = stack.enter_context(postgres_database(postgres_server, _name(Settings(database_url=url))))
            settings = settings.model_copy(update={"database_url": copy})
        installation.open_(settings, create=False)
        yield replace(made, settings=settings)
        database.use(None)


_kept = ExitStack()


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    _snapshots.clear()
    _kept.close()


def _name(settings: Settings) -> str:
    return settings.database_url.split("?")[0].rsplit("/", 1)[1]


def check(store: Store, anchor: tuple[int, str] | None = None) -> verify.Report:
    return verify.verify(ledger=Ledger(store.settings.ledger_store_url), anchor=anchor)


def broken(report: verify.Report) -> set[str]:
    return {one.id for one in report.checks if not one.holds}


def test_an_untouched_store_holds_and_every_check_looked_at_something(worked: Store) -> None:
    report = check(worked)

    assert report.holds, report.as_text()
    idle = {one.id for one in report.checks if one.looked_at == 0}
    assert idle == {"I16", "I19", "I22"}  # Nothing is pending or in work here, and no model was paid.
    assert "Everything holds." in report.as_text()


STATEMENTS: dict[str, tuple[str, str]] = {
    # What is done behind our back: the statement, and one invariant that must break.
    "an event is edited": ("UPDATE events SET kind = 'approve' WHERE seq = 12", "I18"),
    "an event is dated back": ("UPDATE events SET at = (SELECT at FROM events WHERE seq = 1) WHERE seq = 20", "I18"),
    "an event's facts are edited": ("UPDATE events SET data = '{}' WHERE kind = 'approve'", "I18"),
    "an event is deleted": ("DELETE FROM events WHERE seq = 15", "I18"),
    "the newest events are cut off": ("DELETE FROM events WHERE seq > (SELECT MAX(seq) - 3 FROM events)", "I18"),
    "the head is set back": ("UPDATE installation SET head_seq = head_seq - 1", "I18"),
    "a case is moved": ("UPDATE cases SET state = 'escalated' WHERE state = 'waiting_for_review'", "I1"),
    "a version is set": ("UPDATE cases SET version = version + 1 WHERE number = 1", "I1"),
    "a case is removed": ("DELETE FROM cases WHERE number = 4", "I1"),
    "a decision is added": (
        "INSERT INTO decisions (id, case_id, round, seat, actor_kind, person_id, verdict, displayed_digest, edits,"
        " case_version, at) SELECT case_id, case_id, round + 50, 1, 'person', person_id, 'approve',"
        " displayed_digest, 'unchanged', 1, at FROM decisions WHERE verdict = 'reject'",
        "I3",
    ),
    "a decision is given to the submitter": (
        "UPDATE decisions SET person_id = (SELECT submitted_by FROM cases WHERE number = 1) WHERE verdict = 'reject'",
        "I4",
    ),
    "decided values are edited": ("UPDATE decisions SET body = '{\"amount\": 1}' WHERE verdict = 'approve'", "I6"),
    "a verdict is edited": ("UPDATE decisions SET verdict = 'approve' WHERE verdict = 'reject'", "I6"),
    "a payload is edited": ("UPDATE effects SET payload = '{}' WHERE kind = 'apply'", "I6"),
    "an effect's key is replaced": ("UPDATE effects SET key = 'f' WHERE kind = 'undo'", "I7"),
    "an attempt is removed": ("DELETE FROM attempts WHERE step = 'undo'", "I8"),
    "what was sent is said to be of less": ("UPDATE effects SET amount_minor = 1 WHERE kind = 'apply'", "I9"),
    "what is over is in doubt": ("UPDATE effects SET state = 'in_doubt' WHERE kind = 'undo'", "I23"),
    "a receipt is removed": ("DELETE FROM receipts", "I9"),
    "an attempt is renumbered": ("UPDATE attempts SET n = 9 WHERE step = 'undo'", "I10"),
    "an applied effect is called refused": ("UPDATE effects SET state = 'rejected' WHERE kind = 'apply'", "I13"),
    "an undo is given another amount": ("UPDATE effects SET amount_minor = 1 WHERE kind = 'undo'", "I14"),
    "an amount is made absurd": ("UPDATE effects SET amount_minor = 9000000000000 WHERE kind = 'apply'", "I17"),
    "a request is edited": ("UPDATE requests SET body = '{\"customer\": \"X\", \"message\": \"Y\"}'", "I17"),
    "an answer is edited": ("UPDATE answers SET text = 'Something else.'", "I17"),
    "a proposal is edited": ("UPDATE proposals SET body = '{\"amount_minor\": 1}'", "I17"),
    "a day's spending is made less": (
        "INSERT INTO spending (day, scope, nano_dollars) SELECT '2026-11-02', id, 7 FROM people WHERE role = 'lead'",
        "I19",
    ),
    "a cost is edited": ("UPDATE attempts SET cost_status = 'priced', cost_nano_dollars = 5, builtin = (1 = 0) "
        "WHERE step = 'propose'", "I19"),
    "due work is put on another lane": (
        "UPDATE cases SET state = 'pending', step = 'propose', due_at = created_at, lane = 'ledger', "
        "finished_at = NULL, outcome = NULL WHERE number = 1",
        "I22",
    ),
    "a counter is set": ("UPDATE counters SET value = value + 1 WHERE name = 'completed/apply'", "I21"),
    "a request is removed": ("DELETE FROM requests", "I21"),
}  # fmt: skip


def behind_our_back(act: Callable[[Session], object]) -> None:
    """Change rows with the guards that a determined person would switch off too."""
    with Session(database.current().writer) as session:
        if database.current().is_sqlite:
            session.connection().exec_driver_sql("COMMIT")
            session.connection().exec_driver_sql("PRAGMA foreign_keys=0")
            session.connection().exec_driver_sql("PRAGMA ignore_check_constraints=1")
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        else:
            session.connection().exec_driver_sql("SET session_replication_role = replica")
        act(session)
        session.commit()
    database.current().writer.dispose()


@pytest.mark.either
@pytest.mark.parametrize("what", STATEMENTS)
def test_tampering_is_found(worked: Store, what: str) -> None:
    statement, invariant = STATEMENTS[what]
    touched: list[int] = []

    behind_our_back(lambda session: touched.append(session.execute(text(statement)).rowcount))  # type: ignore[attr-defined]
    report = check(worked)

    assert touched[0] > 0, "the tampering touched nothing"
    assert not report.holds
    assert invariant in broken(report), report.as_text()


def test_two_events_that_changed_places_are_found(worked: Store) -> None:
    def swap(session: Session) -> None:
        for wrong, right in ((10, 9_000), (11, 10), (9_000, 11)):
            session.execute(text("UPDATE events SET seq = :right WHERE seq = :wrong"), {"right": right, "wrong": wrong})

    behind_our_back(swap)

    assert "I18" in broken(check(worked))


def test_a_ledger_line_that_was_never_sent_from_here_is_found(worked: Store) -> None:
    ledger = Ledger(worked.settings.ledger_store_url)
    payload = '{"account":"store_credit","holder":"Mallory","amount_minor":5,"currency":"EUR"}'
    ledger.apply(drive.sending("f" * 64, payload))

    assert "R2" in broken(check(worked))


def test_a_ledger_line_that_is_gone_is_found(worked: Store) -> None:
    ledger = Ledger(worked.settings.ledger_store_url)
    with ledger._store.writer.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger_entries")
        connection.exec_driver_sql("DELETE FROM ledger_transfers")

    assert {"R3"} <= broken(check(worked))


def test_a_chain_that_was_rewritten_whole_is_found_by_an_anchor(worked: Store) -> None:
    before = check(worked)

    def rewrite(session: Session) -> None:
        previous = audit.GENESIS
        for event in list(events.in_order(session)):
            row = session.get(Event, event.seq)
            assert row is not None
            if row.kind == "reject":
                row.actor = "somebody-else"
            record = row.model_dump() | {"at": row.at}
            row.prev_hash, row.hash = previous, audit.chain(previous, moves.hashed_fields(record))
            previous = row.hash
            session.add(row)
            session.flush()
        session.execute(text("UPDATE installation SET head_hash = :head"), {"head": previous})

    behind_our_back(rewrite)

    assert "I18" not in broken(check(worked))  # Nothing inside the store can tell: this is what anchors are for.
    assert "I18" in broken(check(worked, anchor=(before.head_seq, before.head_hash)))


def test_the_report_for_people_names_what_is_broken(worked: Store) -> None:
    behind_our_back(lambda session: session.execute(text("UPDATE cases SET version = 99 WHERE number = 1")))

    shown = check(worked).as_text()

    assert "BROKEN I1" in shown
    assert "case 1" in shown
    assert "NOT everything holds" in shown
