"""A long past for a scratch installation: cases that were applied or declined, a thousand a day until today.

The rows are made by the database itself, because a million of them through the front door would take an hour. They are
as the front door would leave them, but for the hashes of their events: `verify` does not hold on them.
"""

from datetime import datetime

from sqlmodel import Session

from core import clock, lifecycle
from storage import cases, database

A_DAY = 1_000  # Cases.
_LATER = 3_600  # The first seconds of a case's life are done this long after the last case began.


def fill(number: int, *, workflow: str = "bench", now: datetime | None = None) -> None:
    """Write so many past cases, each with request, proposal, decision, attempts and events; nine of ten with an effect
    and its receipt. Two submitters' worth of people must be there."""
    first = (now or clock.now()).timestamp() - number / A_DAY * 86_400 - _LATER
    with database.transaction() as session:
        sql: _Sqlite | _Postgres = _Sqlite(first) if database.current().is_sqlite else _Postgres(first)
        run = session.connection().exec_driver_sql
        after = int(run("SELECT coalesce(max(number), 0) FROM cases").scalar_one())
        head = int(run("SELECT head_seq FROM installation").scalar_one())
        person = "(SELECT id FROM people WHERE role = 'submitter' ORDER BY id LIMIT 1)"
        reviewer = "(SELECT id FROM people WHERE role = 'reviewer' ORDER BY id LIMIT 1)"
        applied = "i / 10 * 10 <> i"
        for table, columns, values, where in (
            ("cases", "id, number, workflow, state, step, outcome, version, demo, submitted_by, created_at, since, "
             "finished_at, tries, epoch, beat, amount_minor, currency",
             f"{sql.id('c')}, {after} + i, '{workflow}', 'completed', {sql.pick(applied, 'apply', 'review')}, "
             f"{sql.pick(applied, 'applied', 'declined')}, {sql.number(applied, 6, 4)}, {sql.no}, {person}, "
             f"{sql.at(0)}, {sql.at(180)}, {sql.at(180)}, 0, 2, 0, 4990, 'EUR'", ""),
            ("requests", "case_id, body, salt, seal", f"{sql.id('c')}, '{{\"text\": \"past\"}}', 'x', 'x'", ""),
            ("case_references", "case_id, reference, workflow",
             f"{sql.id('c')}, 'order ' || ({after} + i), '{workflow}'", ""),
            ("attempts", "id, case_id, n, step, epoch, kind, eligible_at, started_at, ended_at, seconds, calls, "
             "builtin, cost_status, model_asked, model_answered, cost_nano_dollars, fresh_input, visible_output",
             f"{sql.id('a')}, {sql.id('c')}, 1, 'propose', 1, 'ok', {sql.at(0)}, {sql.at(1)}, {sql.at(4)}, 3.0, 1, "
             f"{sql.no}, 'priced', 'm', 'm', 1000000 + i, 1000, 200", ""),
            ("answers", "id, case_id, asked_at, question, person_id, answered_at, text, salt",
             f"{sql.id('q')}, {sql.id('c')}, {sql.at(2)}, 'Which?', {person}, {sql.at(3)}, 'That.', 'x'",
             "i / 10 * 10 = i"),
            ("proposals", "id, case_id, attempt_id, body, flags, route, effects, digest, created_at",
             f"{sql.id('p')}, {sql.id('c')}, {sql.id('a')}, '{{}}', '[]', '{{}}', "
             f"{sql.pick(applied, '[1]', '[]')}, 'x', {sql.at(4)}", ""),
            ("decisions", "id, case_id, round, seat, actor_kind, person_id, verdict, displayed_digest, proposal_id, "
             "edits, case_version, at",
             f"{sql.id('d')}, {sql.id('c')}, 1, 1, 'person', {reviewer}, {sql.pick(applied, 'approve', 'reject')}, "
             f"'x', {sql.id('p')}, 'unchanged', 3, {sql.at(100)}", ""),
            ("effects", "id, case_id, decision_id, kind, ordinal, revision, receiver, key, payload, payload_digest, "
             "amount_minor, currency, reversibility, sentence, state, attempts, planned_at",
             f"{sql.id('e')}, {sql.id('c')}, {sql.id('d')}, 'apply', 1, 1, 'nowhere', 'past ' || ({after} + i), "
             f"'{{}}', 'x', 4990, 'EUR', 'reversible', 'Past.', 'applied', 1, {sql.at(100)}", applied),
            ("attempts", "id, case_id, n, step, epoch, effect_id, kind, eligible_at, started_at, ended_at, calls, "
             "builtin",
             f"{sql.id('b')}, {sql.id('c')}, 2, 'apply', 2, {sql.id('e')}, 'applied', {sql.at(130)}, {sql.at(131)}, "
             f"{sql.at(132)}, 1, {sql.no}", applied),
            ("receipts", "effect_id, receiver, reference, body, at",
             f"{sql.id('e')}, 'nowhere', 'past ' || ({after} + i), '{{}}', {sql.at(132)}", applied),
        ):  # fmt: skip
            only = f" WHERE {where}" if where else ""
            run(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {sql.series(number)}{only}")
        _events(session, sql, number, head, person, reviewer)
        cases.add_to_counters(
            session,
            deltas={
                cases.LAST_NUMBER: number,
                str(lifecycle.COMPLETED_APPLY): number - number // 10,
                str(lifecycle.COMPLETED_REVIEW): number // 10,
            },
        )
        run(f"UPDATE installation SET head_seq = head_seq + {6 * number}")
    with database.current().writer.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def _events(session: Session, sql: "_Sqlite | _Postgres", number: int, head: int, person: str, reviewer: str) -> None:
    """Submit, claim, propose, decide; and where something was applied, claim and applied."""
    applied = "i / 10 * 10 <> i"
    moves = (
        ("submit", "NULL", "NULL", "'pending'", "'propose'", 0, person, "{}", ""),
        ("claim", "'pending'", "'propose'", "'processing'", "'propose'", 1, "'bench'", "{}", ""),
        ("propose", "'processing'", "'propose'", "'waiting_for_review'", "'review'", 4, "'bench'",
         '{"route": "review", "cause": "everything"}', ""),
        ("approve", "'waiting_for_review'", "'review'", "'pending'", "'apply'", 100, reviewer,
         '{"edits": "unchanged"}', applied),
        ("reject", "'waiting_for_review'", "'review'", "'completed'", "'review'", 180, reviewer,
         '{"edits": "unchanged"}', "i / 10 * 10 = i"),
        ("claim", "'pending'", "'apply'", "'processing'", "'apply'", 131, "'bench'", "{}", applied),
        ("applied", "'processing'", "'apply'", "'completed'", "'apply'", 180, "'bench'", "{}", applied),
    )  # fmt: skip
    versions = (1, 2, 3, 4, 4, 5, 6)
    for version, (kind, state, step, to_state, to_step, seconds, actor, data, where) in zip(
        versions, moves, strict=True
    ):
        human = kind in ("submit", "approve", "reject")
        session.connection().exec_driver_sql(
            "INSERT INTO events (seq, case_id, case_version, at, actor_kind, actor, kind, from_state, from_step, "
            "to_state, to_step, data, prev_hash, hash) "
            f"SELECT {head} + 6 * (i - 1) + {version}, {sql.id('c')}, {version}, {sql.at(seconds)}, "
            f"'{'person' if human else 'worker'}', {sql.text(actor)}, '{kind}', {state}, {step}, {to_state}, "
            f"{to_step}, '{data}', 'x', 'x' FROM {sql.series(number)}" + (f" WHERE {where}" if where else "")
        )


class _Sql:
    """The few words in which the two stores differ."""

    no = "0"

    def __init__(self, first: float) -> None:
        self.first = first

    def pick(self, condition: str, one: str, other: str) -> str:
        return f"CASE WHEN {condition} THEN '{one}' ELSE '{other}' END"

    def number(self, condition: str, one: int, other: int) -> str:
        return f"CASE WHEN {condition} THEN {one} ELSE {other} END"

    def moment(self, seconds: float) -> str:
        return f"{self.first:.3f} + i * {86_400 / A_DAY} + {seconds}"


class _Sqlite(_Sql):
    def id(self, letter: str) -> str:
        return f"printf('{ord(letter):02x}%030x', i)"

    def at(self, seconds: float) -> str:
        return f"strftime('%Y-%m-%d %H:%M:%f', {self.moment(seconds)}, 'unixepoch') || '000'"

    def series(self, number: int) -> str:
        return f"(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {number}) SELECT i FROM s)"

    def text(self, value: str) -> str:
        return value


class _Postgres(_Sql):
    no = "false"

    def id(self, letter: str) -> str:
        return f"('{ord(letter):02x}' || lpad(to_hex(i), 30, '0'))::uuid"

    def pick(self, condition: str, one: str, other: str) -> str:
        kind = "::json" if one.startswith("[") else ""
        return f"(CASE WHEN {condition} THEN '{one}' ELSE '{other}' END){kind}"

    def at(self, seconds: float) -> str:
        return f"to_timestamp({self.moment(seconds)})"

    def series(self, number: int) -> str:
        return f"generate_series(1, {number}) AS s(i)"

    def text(self, value: str) -> str:
        return f"({value})::text"
