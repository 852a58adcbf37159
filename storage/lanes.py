"""Statements over lanes, over what went through them lately, and over what a day has cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, text, update
from sqlmodel import Session, col, func, select

from storage.tables import DUE, Attempt, Case, Effect, Lane, LaneAct, Spending, table

_LANES, _SPENDING, _ATTEMPTS = table(Lane), table(Spending), table(Attempt)
_GET = select(Lane).where(col(Lane.name) == bindparam("lane")).execution_options(populate_existing=True)
_GET_LOCKED = _GET.with_for_update()
_SINCE = (
    select(
        func.count(),
        func.coalesce(func.sum(_ATTEMPTS.c.retry), 0),
        func.coalesce(
            func.sum(
                func.coalesce(
                    _ATTEMPTS.c.fresh_input + _ATTEMPTS.c.cache_read + _ATTEMPTS.c.cache_write
                    + _ATTEMPTS.c.visible_output + _ATTEMPTS.c.reasoning,
                    _ATTEMPTS.c.reserved_tokens,
                    0,
                )
            ),
            0,
        ),
    ).where(
        _ATTEMPTS.c.started_at > bindparam("since"),
        _ATTEMPTS.c.started_at <= bindparam("until"),
        _ATTEMPTS.c.lane == bindparam("lane"),
    )
)  # fmt: skip
_ADD = (
    update(_SPENDING)
    .where(_SPENDING.c.day == bindparam("of_day"), _SPENDING.c.scope == bindparam("of_scope"))
    .values(nano_dollars=_SPENDING.c.nano_dollars + bindparam("delta"))
)


def get(session: Session, *, name: str, lock: bool = False) -> Lane | None:
    """The lane, fresh from the store; with `lock` no other worker is let through it meanwhile. It is locked before any
    case, by whoever locks it."""
    return session.exec(_GET_LOCKED if lock else _GET, params={"lane": name}).first()


def every(session: Session) -> Sequence[Lane]:
    """All lanes by name."""
    return session.exec(select(Lane).order_by(col(Lane.name))).all()


def make(session: Session, *, names: Sequence[str]) -> None:
    """Make the lanes that are not there yet."""
    have = set(session.exec(select(Lane.name)).all())
    rows = [{"name": name, "failures": 0, "stops": 0} for name in sorted(set(names) - have)]
    if rows:
        session.connection().execute(insert(_LANES), rows)


def change(session: Session, *, name: str, values: Mapping[str, Any]) -> None:
    """Give the lane, which the caller has locked, these values."""
    session.connection().execute(update(_LANES).where(_LANES.c.name == name).values(**values))


def acts(session: Session, *, ids: Sequence[UUID]) -> dict[UUID, LaneAct]:
    """These acts on lanes, by id."""
    return {one.id: one for one in session.exec(select(LaneAct).where(col(LaneAct.id).in_(ids))).all()}


@dataclass(frozen=True)
class Traffic:
    """What went through a lane since a moment: calls, how many of them were retries, tokens used or set aside."""

    calls: int
    retries: int
    tokens: int


def traffic(session: Session, *, name: str, since: datetime, now: datetime) -> Traffic:
    """What was claimed for this lane after `since`, until now: what a wrong clock has dated later does not count."""
    counted = session.connection().execute(_SINCE, {"since": since, "until": now, "lane": name})
    calls, retries, tokens = counted.one()
    return Traffic(int(calls), int(retries), int(tokens))


def mixed_up(session: Session, *, name: str, since: datetime, until: datetime) -> list[tuple[int, str]]:
    """The effects of which the receiver of this lane said in this time that it knows their key with other contents: the
    number of the case and the key of each, the latest first."""
    statement = (
        select(Case.number, Effect.key)
        .join(Effect, col(Effect.case_id) == col(Case.id))
        .join(Attempt, col(Attempt.effect_id) == col(Effect.id))
        .where(Attempt.lane == name, Attempt.kind == "broken", Attempt.started_at > since, Attempt.started_at <= until)
        .order_by(col(Attempt.started_at).desc())
    )
    return list(session.exec(statement).all())


def waiting(session: Session, *, due_by: datetime | None = None) -> dict[str, int]:
    """How many cases wait to go out through each lane, whatever else they wait for; with `due_by` only those that wait
    for nothing else by then."""
    statement = select(Case.lane, func.count()).where(text(DUE)).group_by(Case.lane)
    if due_by is not None:
        statement = statement.where(col(Case.due_at) <= due_by)
    return dict(session.exec(statement).all())


# --- Spending ---------------------------------------------------------------------------------------------------------

ALL = "all"
DEAREST = "dearest"  # The cost of the dearest call of the day that cost more than was set aside for it.


def spent(session: Session, *, day: str) -> dict[str, int]:
    """Nano-dollars of this day by scope, with what is set aside for calls in flight; and the dearest call."""
    return {row.scope: row.nano_dollars for row in session.exec(select(Spending).where(Spending.day == day)).all()}


def spent_on(session: Session, *, case_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Nano-dollars that each of these cases has cost so far; a call whose cost nobody knows counts with the most that
    it can have cost."""
    if not case_ids:
        return {}
    cost = func.coalesce(_ATTEMPTS.c.cost_nano_dollars, _ATTEMPTS.c.reserved_nano_dollars, 0)
    statement = (
        select(_ATTEMPTS.c.case_id, func.sum(cost))
        .where(_ATTEMPTS.c.case_id.in_(case_ids), _ATTEMPTS.c.cost_status.is_distinct_from("none"))
        .group_by(_ATTEMPTS.c.case_id)
    )
    return {case_id: int(total) for case_id, total in session.connection().execute(statement)}


def spend(session: Session, *, deltas: Mapping[tuple[str, str], int]) -> None:
    """Add each delta (by day and scope), always in the same order, so that nobody waits for another in a ring."""
    for day, scope in sorted(deltas):
        row = {"of_day": day, "of_scope": scope, "delta": deltas[day, scope]}
        if session.connection().execute(_ADD, row).rowcount == 0:
            _first(session, day, scope)
            session.connection().execute(_ADD, row)


def raise_dearest(session: Session, *, day: str, nano_dollars: int) -> None:
    """Say that a call of this day cost so much, more than was set aside for it."""
    _first(session, day, DEAREST)
    row = (_SPENDING.c.day == day) & (_SPENDING.c.scope == DEAREST) & (_SPENDING.c.nano_dollars < nano_dollars)
    session.connection().execute(update(_SPENDING).where(row).values(nano_dollars=nano_dollars))


def _first(session: Session, day: str, scope: str) -> None:
    """Make the row; another transaction may make it at the same moment."""
    statement = text(
        "INSERT INTO spending (day, scope, nano_dollars) VALUES (:day, :scope, 0) ON CONFLICT (day, scope) DO NOTHING"
    )
    session.connection().execute(statement, {"day": day, "scope": scope})
