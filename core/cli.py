"""The same actions from a terminal: one command per verb, JSON with `--json`; exit 0 done, 1 refused with one clear
line on stderr, 2 wrong usage."""

import base64
import json
import os
import secrets
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import (
    actions,
    backups,
    cases,
    clock,
    doubts,
    effects,
    errors,
    imports,
    installation,
    lifecycle,
    metrics,
    migrating,
    operating,
    outage,
    people,
    reconcile,
    settling,
    standing,
    submissions,
    telling,
    verify,
    waiting,
)
from core.actions import Verdict
from core.permissions import Act, Role
from core.receivers.ledger import Ledger
from core.settings import is_signing_secret
from core.settling import Finding
from core.terminal import As, CaseId, Json, Reason, Version
from core.terminal import done as _done
from core.terminal import opened as _opened
from core.terminal import print_json as _print
from core.terminal import refusals as _refusals
from core.terminal import refuse as _refuse
from core.trials import scratch
from storage import database

if TYPE_CHECKING:
    from core.worker import Worker

app = typer.Typer(
    name="countersign",
    help="The model proposes, a person countersigns, every effect can be undone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
person_app = typer.Typer(help="People who may sign in and act.", no_args_is_help=True)
app.add_typer(person_app, name="person")
app.add_typer(operating.lane_app, name="lane")
app.add_typer(operating.doubt_app, name="doubt")
app.add_typer(operating.prompt_app, name="prompt")


def main() -> None:
    """The console script."""
    try:
        app()
    finally:
        _end_quietly()


def _end_quietly() -> None:
    """Write what is left; whoever reads may have had enough, such as `head`, and is not told about it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


# --- The installation -----------------------------------------------------------------------------------------------


@app.command()
def init() -> None:
    """Create the database of an installation, or bring an existing one up to date."""
    with _opened(create=True) as settings:
        print(f"Ready: {database.shown(settings.store_url)}")
        if not installation.has_people():
            print("Nobody can sign in yet: countersign person add EMAIL --name NAME --role lead --password-stdin")


@app.command()
def demo() -> None:
    """Fill an empty installation with demo people and demo cases; the people are plainly invented."""
    from core import seeding

    with _opened(create=True) as settings:
        seeded = seeding.seed(settings)
        print(f"{seeded} demo cases are there." if seeded else "There are people already: nothing was added.")


@app.command()
def serve(
    demo_: Annotated[bool, typer.Option("--demo", help="Create and seed an empty installation first.")] = False,
) -> None:
    """Serve the console and work on cases, on the loopback port COUNTERSIGN_PORT."""
    with _opened(create=demo_) as settings:
        if demo_:
            from core import seeding

            seeding.seed(settings)
    # The server takes this process over, so that a signal to it is a signal to the server.
    os.execv(sys.executable, [sys.executable, "-m", "app"])


@app.command()
def worker(
    until_idle: Annotated[
        bool,
        typer.Option(
            "--until-idle",
            help="End when nothing is due, held or waiting for another try; exit 1 when all of it waits for a lane "
            "that only a person can open.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="With --until-idle: at most.")] = 600,
) -> None:
    """Work on cases without a console; SIGTERM drains. What keeps work from going out is said on stderr, once for each
    change."""
    from core.worker import Worker  # The client of the models comes with it, which takes longer to load than most here.

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with _opened() as settings:
        running = Worker(settings, receivers=installation.receivers(settings))
        watch = waiting.Watch(standing.of_lanes(settings))
        running.start()
        began = looked = time.monotonic()
        try:
            while not ended.wait(0.05 if until_idle else 1.0):
                if until_idle and running.is_idle():
                    return
                if until_idle and time.monotonic() - began > timeout:
                    _refuse(f"not idle after {timeout:g} seconds: {_left()}")
                if time.monotonic() - looked > 1.0:
                    looked = time.monotonic()
                    _look_at_lanes(running, watch, until_idle)
        finally:
            running.stop()


def _look_at_lanes(running: "Worker", watch: waiting.Watch, until_idle: bool) -> None:
    """Say what keeps work from going out; end where nobody but a person can change that."""
    try:
        is_working, found = running.is_working(), standing.of_lanes(running.settings)
    except outage.Away:
        return  # The worker says so, and goes on when it is back.
    if until_idle and not is_working and watch.is_hopeless(found, clock.now()):
        shut = " ".join(waiting.in_words(one) for one in found if one.waiting)
        _refuse(f"{shut} Left: {_left()}. Nothing was lost; begin again when that is settled.")
    for words in watch.changes(found):
        print(words, file=sys.stderr, flush=True)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder; nothing is ever written over.")],
    as_json: Json = False,
) -> None:
    """Back the installation up while it runs: the whole store as one file, the ledger's file where there is one, and a
    manifest. The copy is checked before it gets its name."""
    with _opened(moved=True) as settings:
        made = backups.take(settings, folder, said=_said)
        if as_json:
            _print(made.model_dump(mode="json"))
        else:
            print(f"{folder} holds {_cases(made.cases)} and verifies; anchor {made.head.seq}:{made.head.hash}")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False)],
    with_ledger: Annotated[
        bool, typer.Option("--with-ledger", help="The ledger was lost too: bring its copy back as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a backup back into an empty installation, in restored mode: nothing is sent until the receivers were asked
    what they hold. The ledger is left alone: it is a receiver, and knows what was really applied."""
    with _refusals() as settings:
        made = backups.restore(settings, folder, with_ledger=with_ledger, said=_said)
        if as_json:
            _print(made.model_dump(mode="json"))
            return
        print(
            f"Restored {_cases(made.cases)} as of {made.created_at:%F %T} UTC into "
            f"{database.shown(settings.store_url)}."
        )
        print("The ledger was put back too." if with_ledger else "The ledger was left alone.")
        print("Everybody is signed out. Nothing is sent until `countersign reconcile` ran; a worker runs it first.")


@app.command("reconcile")
def reconcile_(
    receiver: Annotated[str, typer.Option("--receiver", metavar="NAME", help="Ask this one alone.")] = "",
    as_json: Json = False,
) -> None:
    """Compare our effects with what the receivers hold; after a restore, leave restored mode. Exit 1: people must look
    at a difference."""
    with _opened() as settings:
        report = reconcile.run(settings=settings, receivers=installation.receivers(settings), only=receiver or None)
        _print(report.as_json()) if as_json else print(report.as_text())
        if report.findings:
            raise typer.Exit(1)


@app.command("migrate-store")
def migrate_store(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="An empty PostgreSQL database.")],
    ledger_to: Annotated[
        str, typer.Option("--ledger-to", metavar="URL", help="Copy the ledger too; it may be the same database.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Move a SQLite installation to PostgreSQL with every case, and check that all of it arrived. Nobody may work on
    it meanwhile; the file stays, marked as moved."""
    with _opened() as settings:
        moved = migrating.move_store(settings, to, ledger_to=ledger_to, said=_said)
        if as_json:
            _print({"to": database.shown(to), "head": moved.head.model_dump(), "rows": moved.rows})
            return
        print(f"Moved {_cases(moved.rows['cases'])} to {database.shown(to)}; everything verifies there.")
        print("Set COUNTERSIGN_DATABASE_URL to it for every process.")
        if moved.transfers is None:
            print("The ledger stays where it is; for more than one machine move it too, with --ledger-to.")
        else:
            print(
                f"{moved.transfers:,} transfers were copied: set COUNTERSIGN_LEDGER_URL to {database.shown(ledger_to)}"
            )


@app.command("verify")
def verify_(
    as_json: Json = False,
    anchor: Annotated[
        str, typer.Option("--anchor", metavar="SEQ:HASH", help="What an earlier run printed: is it still there?")
    ] = "",
) -> None:
    """Recompute the audit chain and check every invariant, the ledger included."""
    with _opened() as settings:
        try:
            held = verify.parse_anchor(anchor) if anchor else None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        ledger = Ledger(settings.ledger_store_url)
        if database.current().is_sqlite:
            report = verify.verify_copy(settings.store_url, ledger=ledger, anchor=held)
        else:
            report = verify.verify(ledger=ledger, anchor=held)
        _print(report.as_json()) if as_json else print(report.as_text())
        if not report.holds:
            raise typer.Exit(1)


@app.command()
def bench(
    store: Annotated[scratch.Kind, typer.Option("--store", help="sqlite or postgres.")] = "sqlite",
    count: Annotated[int, typer.Option("--cases", min=100, help="The backlog that is worked off.")] = 10_000,
    past: Annotated[
        list[int] | None, typer.Option("--past", help="Ask the queries over so many past cases: 1000 and 100000.")
    ] = None,
    url: Annotated[
        str, typer.Option("--url", help="A PostgreSQL on which databases may be made; empty: our own.")
    ] = "",
    wal: Annotated[
        bool, typer.Option("--wal", help="Force SQLite's write-ahead log, which this library may corrupt.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="Measure only what has this in its title.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine on scratch installations: your own is not touched."""
    from core.trials import bench as trial

    try:
        made = trial.run(
            store,
            count=count,
            past=past or (1_000, 100_000),
            url=url,
            wal=wal,
            only=only or (),
            say=lambda what: print(what, file=sys.stderr),
        )
    except errors.StartError as error:
        _refuse(str(error))
    if as_json:
        _print(made.as_json())
    else:
        print(made.as_text())


@app.command()
def torture(
    store: Annotated[scratch.Kind, typer.Option("--store", help="sqlite or postgres.")] = "sqlite",
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="When these are over, no further trial begins.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the order of the pairs.")] = 1,
    url: Annotated[
        str, typer.Option("--url", help="A PostgreSQL on which databases may be made; empty: our own.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Kill and stop workers at every point of a case's life, on scratch installations: your own is not touched. Exit 1:
    a promise was not kept."""
    from core.trials import torture as trial

    try:
        made = trial.run(store, seconds=minutes * 60, seed=seed, url=url, say=lambda what: print(what, file=sys.stderr))
    except errors.StartError as error:
        _refuse(str(error))
    _print(made.as_json()) if as_json else print(made.as_text())
    if not made.holds:
        raise typer.Exit(1)


# --- A receiver of your own -----------------------------------------------------------------------------------------


@app.command()
def secret() -> None:
    """Print a fresh secret to sign requests to a receiver with; both ends need it."""
    print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii"))


@app.command("reference-receiver")
def reference_receiver(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 finds a free one.")] = 8600,
    file: Annotated[Path, typer.Option("--file", help="Its records; made when it is not there.")] = Path("receiver.db"),
) -> None:
    """Run the reference receiver on this machine, with the secrets of COUNTERSIGN_RECEIVER_SECRETS (one, or two with a
    space while one is replaced). SIGTERM ends it."""
    given = os.environ.get("COUNTERSIGN_RECEIVER_SECRETS", "").split()
    if not given or not all(map(is_signing_secret, given)):
        _refuse(
            "COUNTERSIGN_RECEIVER_SECRETS holds no secret that signs: "
            'export COUNTERSIGN_RECEIVER_SECRETS="$(countersign secret)"'
        )
    import uvicorn

    from core.receivers import reference

    try:
        receiver = reference.app(given, str(file))
    except sqlite3.Error as error:
        _refuse(f"{file} cannot be used: {error}")
    # The server ends on SIGTERM and then raises it again: by then all is answered, and all is well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = uvicorn.Server(uvicorn.Config(receiver, host="127.0.0.1", port=port, log_level="warning"))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(100)
        except OSError as error:
            _refuse(f"port {port} cannot be used: {error.strerror}")
        print(f"The receiver listens on http://127.0.0.1:{listening.getsockname()[1]}; its log: /log", flush=True)
        server.run(sockets=[listening])


# --- People ---------------------------------------------------------------------------------------------------------


@person_app.command("add")
def person_add(
    email: str,
    name: Annotated[str, typer.Option("--name")],
    role: Annotated[Role, typer.Option("--role")],
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read a password from standard input; without it nobody can sign in."),
    ] = False,
) -> None:
    """Add a person."""
    with _opened():
        password = sys.stdin.readline().rstrip("\n") if password_stdin else None
        who = people.add(email, name=name, role=role, password=password)
        print(f"Added {email.strip().casefold()} as {who.role}.")


@person_app.command("list")
def person_list(as_json: Json = False) -> None:
    """All people."""
    with _opened():
        rows = [
            {"email": one.email, "name": one.name, "role": one.role, "active": one.active, "demo": one.demo}
            for one in people.everyone()
        ]
        if as_json:
            _print(rows)
        for row in [] if as_json else rows:
            print(f"{row['email']:<36} {row['role']:<14} {'' if row['active'] else 'off  '}{row['name']}")


@person_app.command("off")
def person_off(email: str) -> None:
    """Switch a person off: their next action is refused."""
    with _opened():
        people.set_active(people.find(email).id, False, actor=None)
        print(f"{email.strip()} is off.")


@person_app.command("on")
def person_on(email: str) -> None:
    """Switch a person on again."""
    with _opened():
        people.set_active(people.find(email).id, True, actor=None)
        print(f"{email.strip()} is on.")


# --- Cases in -------------------------------------------------------------------------------------------------------


@app.command()
def submit(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="One JSON object, or many as JSON lines.")],
    as_: As,
    workflow: Annotated[str, typer.Option("--workflow")] = "refunds",
    key: Annotated[str, typer.Option("--key", help="The same key gives the same case again.")] = "",
    as_json: Json = False,
) -> None:
    """Submit a case, or many."""
    with _opened() as settings:
        actor = people.find(as_)
        bodies = list(_bodies(_text_of(file)))
        refused = 0
        for number, body in bodies:
            own_key = f"{key}:{number}" if key and len(bodies) > 1 else key or None
            try:
                request = submissions.read_request(workflow, body)
                made = submissions.submit(request, actor=actor, settings=settings, workflow_name=workflow, key=own_key)
            except errors.ActionError as error:
                refused += 1
                print(f"line {number}: {error}" if len(bodies) > 1 else str(error), file=sys.stderr)
                continue
            if as_json:
                line = {"case": str(made.case_id), "number": made.number, "state": made.state}
                _print(line | {"duplicate": made.duplicate, "similar": list(made.similar)}, indent=None)
            else:
                again = " (it was there already)" if made.duplicate else ""
                like = f"; open cases about the same: {', '.join(map(str, made.similar))}" if made.similar else ""
                print(f"Case {made.number} is {made.state}{again}{like}")
        if refused:
            raise typer.Exit(1)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv|FILE.jsonl", exists=True, dir_okay=False, readable=True)],
    as_: As,
    workflow: Annotated[str, typer.Option("--workflow")] = "refunds",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of each row; make nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Submit every row of a file; a bad row never stops the others."""
    with _opened() as settings:
        lines = imports.run(
            file.name,
            file.read_bytes(),
            actor=people.find(as_),
            settings=settings,
            workflow_name=workflow,
            dry_run=dry_run,
        )
        for line in lines:
            if as_json:
                _print(line.as_json(), indent=None)
            else:
                print(
                    f"row {line.row}: {line.status}{f' (case {line.case})' if line.case else ''} {line.reason}".rstrip()
                )
        if any(line.status == "invalid" for line in lines):
            bad = sum(line.status == "invalid" for line in lines)
            _refuse(f"{bad} of {len(lines)} rows are invalid; the others {'would be' if dry_run else 'were'} taken")


# --- Cases out ------------------------------------------------------------------------------------------------------


@app.command("cases")
def cases_(
    state: Annotated[lifecycle.State | None, typer.Option("--state")] = None,
    step: Annotated[lifecycle.Step | None, typer.Option("--step")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """List cases, newest first."""
    with _opened():
        rows = cases.listed(None, states=[str(state)] if state else (), step=str(step) if step else None, limit=limit)
        listed = [
            {
                "id": str(row.case.id), "number": row.case.number, "workflow": row.case.workflow,
                "state": row.case.state, "step": row.case.step, "outcome": row.case.outcome,
                "reason": row.case.reason, "category": row.case.category, "version": row.case.version,
                "amount_minor": row.case.amount_minor, "currency": row.case.currency,
                "submitted_at": row.case.created_at.isoformat(), "demo": row.case.demo,
            }
            for row in rows
        ]  # fmt: skip
        if as_json:
            _print(listed)
        for one in [] if as_json else listed:
            ending = f" ({one['outcome']})" if one["outcome"] else ""
            print(f"{one['number']:>7}  {one['state']}/{one['step']}{ending}  {one['reason'] or ''}".rstrip())


@app.command("case")
def case_(id_: CaseId, as_json: Json = False) -> None:
    """One case with everything that happened to it, in the words of its page."""
    with _opened() as settings:
        seen = cases.view(cases.resolve(id_), actor=None)
        if as_json:
            _print(cases.as_json(seen))
            return
        print(telling.as_text(seen, settings))


# --- Acting on a case -----------------------------------------------------------------------------------------------


@app.command()
def decide(
    id_: CaseId,
    verdict: Verdict,
    as_: As,
    note: Annotated[str, typer.Option("--note", metavar="TEXT")] = "",
    values: Annotated[str, typer.Option("--values", metavar="FILE|-", help="The edited proposal, as JSON.")] = "",
    reply: Annotated[
        str, typer.Option("--reply", metavar="TEXT", help="With reject: what the customer is told, by mail.")
    ] = "",
    digest: Annotated[
        str, typer.Option("--digest", help="What was shown; refused when the case is not that now.")
    ] = "",
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Give a verdict on a case that waits for one."""
    with _opened() as settings:
        edited = _object(_text_of(values)) if values else None
        _done(
            lambda actor: actions.decide(
                cases.resolve(id_), verdict, actor=actor, settings=settings, note=note, values=edited, reply=reply,
                digest=digest or None, version=version,
            ),
            as_, as_json,
        )  # fmt: skip


@app.command()
def answer(
    id_: CaseId,
    as_: As,
    text: Annotated[str, typer.Option("--text")],
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Answer the question that a case waits for."""
    with _opened() as settings:
        _done(
            lambda actor: actions.answer(cases.resolve(id_), text, actor=actor, settings=settings, version=version),
            as_,
            as_json,
        )


@app.command()
def withdraw(id_: CaseId, as_: As, version: Version = None, as_json: Json = False) -> None:
    """Withdraw a case that nothing has left from."""
    with _opened():
        _done(lambda actor: actions.withdraw(cases.resolve(id_), actor=actor, version=version), as_, as_json)


@app.command("take-back")
def take_back(id_: CaseId, as_: As, version: Version = None, as_json: Json = False) -> None:
    """Take an approval back inside the hold."""
    with _opened() as settings:
        _done(
            lambda actor: actions.take_back(cases.resolve(id_), actor=actor, settings=settings, version=version),
            as_,
            as_json,
        )


@app.command()
def retry(id_: CaseId, as_: As, version: Version = None, as_json: Json = False) -> None:
    """Try again what failed: the proposal, the refused effect with a new key, or the undo."""
    with _opened() as settings:
        _done(
            lambda actor: actions.retry(cases.resolve(id_), actor=actor, settings=settings, version=version),
            as_,
            as_json,
        )


@app.command()
def reopen(id_: CaseId, as_: As, reason: Reason, version: Version = None, as_json: Json = False) -> None:
    """Bring a declined case back to review."""
    with _opened() as settings:
        _done(
            lambda actor: actions.reopen(cases.resolve(id_), reason, actor=actor, settings=settings, version=version),
            as_,
            as_json,
        )


@app.command()
def accept(id_: CaseId, as_: As, reason: Reason, version: Version = None, as_json: Json = False) -> None:
    """Accept what stands after the receiver refused the rest, or refused to take it back."""
    with _opened():
        _done(
            lambda actor: actions.accept(cases.resolve(id_), reason, actor=actor, version=version),
            as_,
            as_json,
        )


@app.command()
def settle(
    id_: CaseId,
    finding: Finding,
    as_: As,
    evidence: Annotated[str, typer.Option("--evidence", metavar="TEXT", help="What was found, and where.")],
    reference: Annotated[
        str, typer.Option("--reference", metavar="ID", help="The receiver's own, if applied; a rollback needs it.")
    ] = "",
    part: Annotated[str, typer.Option("--part", metavar="AMOUNT", help="What was applied, if not all: 6.00.")] = "",
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Settle an effect in doubt; takes effect when a second lead finds the same. The receiver is asked first."""
    with _opened() as settings:
        receivers = installation.receivers(settings)
        _done(
            lambda actor: doubts.settle(
                cases.resolve(id_),
                finding,
                evidence,
                actor=actor,
                settings=settings,
                receivers=receivers,
                reference=reference,
                part=part,
                version=version,
            ),
            as_,
            as_json,
        )


@app.command()
def question(id_: CaseId, as_: As, reason: Reason, version: Version = None, as_json: Json = False) -> None:
    """Put in doubt again what two leads settled, or what the receiver's record contradicts."""
    with _opened():
        _done(
            lambda actor: settling.question(cases.resolve(id_), reason, actor=actor, version=version),
            as_,
            as_json,
        )


@app.command()
def rollback(
    id_: CaseId,
    as_: As,
    reason: Reason,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be undone; do nothing.")] = False,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Undo what a case did."""
    with _opened():
        if not dry_run:
            _done(
                lambda actor: actions.roll_back(cases.resolve(id_), reason, actor=actor, version=version),
                as_,
                as_json,
            )
            return
        actor = people.find(as_)
        seen = cases.view(cases.resolve(id_), actor=actor)
        why_not = cases.refusal(seen, Act.ROLL_BACK, actor)
        if why_not is not None:
            raise errors.Forbidden(why_not)
        preview = [
            {"effect": one.effect.key, "sentence": one.sentence, "possible": one.possible,
             "amount_minor": one.effect.amount_minor, "currency": one.effect.currency}
            for one in cases.preview_rollback(seen)
        ]  # fmt: skip
        is_open = any(map(effects.may_have_arrived, seen.effects))
        if as_json:
            _print({"case": seen.case.number, "outcome_is_open": is_open, "would_undo": preview})
            return
        for line in preview:
            print(line["sentence"])
        if is_open:
            print("It is not known of everything whether it was applied; a rollback is kept and starts when it is.")
        elif not preview:
            print("Nothing stands applied in this case.")


@app.command("metrics")
def metrics_(
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="ISO 8601; default: 30 days ago.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="ISO 8601; default: now.")] = "",
    include_demo: Annotated[bool, typer.Option("--include-demo")] = False,
    as_json: Json = False,
) -> None:
    """The numbers of the metrics page, by the same functions."""
    with _opened() as settings:
        now = clock.now()
        report = metrics.report(
            since=_time(since, now - timedelta(days=30)),
            until=_time(until, now),
            bucket=None,
            settings=settings,
            include_demo=include_demo,
        )
        body = metrics.as_json(report)
        if as_json:
            _print(body)
            return
        print(metrics.as_text(report))


# --- What the commands share ----------------------------------------------------------------------------------------


def _cases(number: int) -> str:
    return f"{number:,} case{'' if number == 1 else 's'}"


def _said(table: str, rows: int) -> None:
    """How far a long copy is, for whoever watches."""
    if sys.stderr.isatty():
        print(f"{table}: {rows:,} rows", file=sys.stderr)


def _text_of(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise errors.NotFound(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.Incomplete(f"{file} is not UTF-8 text") from None


def _bodies(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """One JSON object, or one on each line."""
    try:
        yield 1, _object(text)
        return
    except errors.Incomplete:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if len(lines) < 2:
            raise
    for number, line in lines:
        try:
            yield number, _object(line)
        except errors.Incomplete as error:
            raise errors.Incomplete(f"line {number}: {error}") from None


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Incomplete(f"this is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise errors.Incomplete("this is not a JSON object")
    return found


def _time(text: str, default: datetime) -> datetime:
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-11-01 or 2026-11-01T08:30+01:00") from None


def _left() -> str:
    places = cases.overview().places
    open_ = {place: n for place, n in places.items() if n and place.startswith(("pending", "processing", "retrying"))}
    return ", ".join(f"{n} {place}" for place, n in open_.items()) or "nothing is left"
