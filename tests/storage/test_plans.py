"""The hot statements are answered from an index, however long the past is: asked of the stores themselves, over 20,000
past cases, with the plan that each says it would use."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from core import cases, claims, clock, doubts, installation, submissions
from core.permissions import Who
from core.trials import bench, past, scratch
from core.workflow import loaded
from storage import database

PAST = 20_000
SETTINGS = scratch.settings(Path())
# What a plan may read whole: tables of a few rows, and what is already narrowed down.
SMALL = {
    "people", "installation", "counters", "workers", "lanes", "prompt_versions", "prompt_choices", "sign_ins", "drafts",
    "alembic_version",
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("plans")),
        pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.xdist_group("pg")]),
    ],
)
def long_past(request: pytest.FixtureRequest) -> Iterator[Who]:
    """An open installation with many past cases and some work; its reviewer."""
    loaded()["bench"] = bench.Bench()
    server = scratch.Server(request.getfixturevalue("postgres_server")) if request.param == "postgres" else None
    with scratch.site(request.param, server=server) as site, site.copy() as settings:
        installation.open_(settings, create=False)
        try:
            submitter = scratch.person("submitter")
            for n in range(30):
                note = bench.Note(text=f"case {n}")
                submissions.submit(note, actor=submitter, settings=settings, workflow_name="bench", key=f"key {n}")
            past.fill(PAST)
            yield scratch.person("reviewer")
        finally:
            database.use(None)
            del loaded()["bench"]


def _asked(work: Callable[[], object]) -> list[tuple[str, Any]]:
    """The statements that `work` sends, each with its parameters."""
    found: list[tuple[str, Any]] = []

    def before(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
        if not many and re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)", statement):
            found.append((statement, parameters))

    engines = {database.current().writer, database.current().reader}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", before)
    try:
        work()
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", before)
    return found


def _whole_tables(statement: str, parameters: Any) -> set[str]:
    """The tables that the store would read from one end to the other for this statement."""
    whole = r"SCAN (?!CONSTANT)(\w+)\b(?! USING)" if database.current().is_sqlite else r"\bSeq Scan on (\w+)"
    return {match[1] for line in _plan(statement, parameters) if (match := re.search(whole, line))} - SMALL


def _plan(statement: str, parameters: Any) -> list[str]:
    """How the store would answer this statement, line by line."""
    with database.current().writer.connect() as connection:
        if database.current().is_sqlite:
            found = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()]
        else:
            found = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()]
        connection.rollback()
    return found


WORK: dict[str, Callable[[Who], object]] = {
    "claim": lambda who: claims.claim(
        holder="plans", lane="model", limit=5, settings=SETTINGS, now=clock.now()
    ),
    "claim to send": lambda who: claims.claim(
        holder="plans", lane="ledger", limit=5, settings=SETTINGS, now=clock.now()
    ),
    "rescue": lambda who: claims.rescue(
        claims.Watch(), settings=SETTINGS, now=clock.now(), seconds=0.0, monotonic=1.0
    ),
    "expire": lambda who: claims.expire(settings=SETTINGS, now=clock.now()),
    "straighten": lambda who: claims.straighten(now=clock.now()),
    "inbox": lambda who: cases.waiting(who, limit=50),
    "list": lambda who: cases.listed(who, limit=50),
    "next page": lambda who: cases.listed(who, below=10_000, limit=50),
    "case": lambda who: cases.view(cases.resolve("77"), actor=who),
    "overview": lambda who: cases.overview(),
    "doubts": lambda who: (doubts.listed(None), doubts.count()),
    "stuck": lambda who: cases.stuck(scratch.person("lead")),
    "submit": lambda who: submissions.submit(
        bench.Note(text="one more"), actor=scratch.person("submitter"), settings=SETTINGS,
        workflow_name="bench", key="one more",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WORK)
def test_no_hot_statement_reads_a_whole_table(long_past: Who, name: str) -> None:
    statements = _asked(lambda: WORK[name](long_past))
    assert statements, "nothing was asked"

    whole = {statement: read for statement, parameters in statements if (read := _whole_tables(statement, parameters))}

    assert whole == {}


@pytest.mark.slow
def test_a_look_for_effects_to_send_does_not_walk_over_the_proposals_that_are_due(long_past: Who) -> None:
    statements = _asked(lambda: WORK["claim to send"](long_past))
    looks = [(text, parameters) for text, parameters in statements if "due_at <=" in text]
    assert len(looks) == 2, "one for each step"

    for text, parameters in looks:
        plan = " ".join(_plan(text, parameters))
        assert re.search(
            r"ix_cases_due \(lane=\? AND step=\? AND due_at<\?\)|Index Cond: \(\(\(lane\)::text = .*due_at <=", plan
        ), plan


@pytest.mark.slow
def test_the_check_finds_a_statement_that_reads_a_whole_table(long_past: Who) -> None:
    found = _whole_tables("SELECT count(*) FROM events WHERE hash = 'y'", ())

    assert found == {"events"}
