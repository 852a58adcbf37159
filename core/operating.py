"""What operators do from a terminal: lanes, effects in doubt, prompt versions."""

import sys
from typing import Annotated

import typer

from core import admission, cases, clock, doubts, figures, installation, people, prompts, standing
from core.terminal import As, CaseId, Json, Reason, done, opened, print_json

lane_app = typer.Typer(help="The ways out, to models and receivers: what stops them.", no_args_is_help=True)
doubt_app = typer.Typer(help="Effects of which nobody knows whether they were applied.", no_args_is_help=True)
prompt_app = typer.Typer(help="Prompt versions: who wrote them, and which one is used.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="model, fallback, or a receiver.")]
Workflow = Annotated[str, typer.Option("--workflow")]


def _begin(as_json: bool) -> None:
    """What keeps everything from going on: restored mode, and that no worker runs. Beside JSON it goes to stderr."""
    seen = cases.overview()
    restored = installation.restored_in_words(seen.restored_at) if seen.restored_at else ""
    for words in filter(None, (restored, seen.no_worker)):
        print(words, file=sys.stderr if as_json else sys.stdout)


# --- Lanes ------------------------------------------------------------------------------------------------------------


@lane_app.command("list")
def lane_list(as_json: Json = False) -> None:
    """Every lane: open, or what stops it, since when, why, and what to do."""
    with opened() as settings:
        found = standing.of_lanes(settings)
        _begin(as_json)
        if as_json:
            print_json([one.as_json() for one in found])
        for one in [] if as_json else found:
            since = f" since {clock.exact(one.since)}" if one.since else ""
            print(f"{one.name:<12} {one.state}{since}  {one.waiting} waiting")
            if one.why:
                print(f"             {one.why} {one.do}{one.next_try()}")


@lane_app.command("pause")
def lane_pause(name: Name, as_: As, reason: Reason) -> None:
    """Let nothing out through a lane until somebody resumes it; what is under way ends."""
    with opened():
        print(admission.pause(name, reason, actor=people.find(as_)))


@lane_app.command("resume")
def lane_resume(name: Name, as_: As, reason: Reason) -> None:
    """Let a paused lane out again; one that stopped by itself tries at once."""
    with opened():
        print(admission.resume(name, reason, actor=people.find(as_)))


# --- Doubts -----------------------------------------------------------------------------------------------------------


@doubt_app.command("list")
def doubt_list(as_json: Json = False) -> None:
    """Every effect of which it is not known whether it was applied: receiver, key, since when, what is known, what a
    first lead found. Two leads settle one in doubt with `countersign settle`; the others a worker sends again."""
    with opened():
        found, total = doubts.listed(None), doubts.count()
        _begin(as_json)
        if as_json:
            print_json([one.as_json() for one in found])
        elif not found:
            print("Of every effect that was sent it is known what became of it, or a worker is sending it now.")
        for one in [] if as_json else found:
            print(f"case {one.number}  {one.kind} at {one.receiver} since {clock.exact(one.since)}  {one.amount}")
            if one.reason:
                print(f"    {one.reason}")
            print(f"    key {one.key}, tried {figures.times(one.tries)}, last answer: {one.last_answer or 'none'}")
            if one.state == "sending":
                again = f"at {clock.exact(one.next_try)}" if one.next_try else "as soon as it can"
                print(f"    not clear yet: a worker sends it again with the same key, {again}")
                continue
            print(f"    first finding: {one.first_finding or 'nobody yet; two leads must find the same'}")
            if one.not_applied_from:
                print(f"    may be under way; can be found not applied from {one.not_applied_from:%T} UTC on")
        if len(found) < total and not as_json:
            print(f"These are {len(found):,} of {total:,}; settle them and the others follow.")


@doubt_app.command("lookup")
def doubt_lookup(id_: CaseId, as_: As, as_json: Json = False) -> None:
    """Ask the receiver now; what it holds with our key is taken over as applied."""
    with opened() as settings:
        receivers = installation.receivers(settings)
        done(
            lambda actor: doubts.look_up(cases.resolve(id_), actor=actor, settings=settings, receivers=receivers),
            as_,
            as_json,
        )


# --- Prompts ----------------------------------------------------------------------------------------------------------


@prompt_app.command("list")
def prompt_list(workflow: Workflow = "refunds", as_json: Json = False) -> None:
    """Every prompt version of a workflow, newest first; * is the one in use, with its copies for other models."""
    with opened():
        found = prompts.listed(workflow, actor=None)
        if as_json:
            print_json([
                {"digest": one.digest, "model": one.model, "registered_at": one.registered_at.isoformat(),
                 "written_by": one.written_by, "why": one.why, "chosen": one.chosen, "attempts": one.attempts}
                for one in found
            ])  # fmt: skip
        elif not found:
            print("No prompt was used or written yet; the program has its own.")
        elif prompts.is_program_chosen(workflow) and not any(one.chosen for one in found):
            print("* program       the program's own, not used yet")
        for one in [] if as_json else found:
            mark = "*" if one.chosen else " "
            whose = f"written by {one.written_by}: {one.why}" if one.written_by else "came with the program"
            used = figures.show(one.attempts, "attempts")
            print(f"{mark} {one.digest[:12]}  {one.registered_at:%F %T}  {one.model}  {used}  {whose}")


@prompt_app.command("show")
def prompt_show(
    digest: Annotated[str, typer.Argument(metavar="DIGEST|program", help="Or the program's own.")],
    workflow: Workflow = "refunds",
) -> None:
    """The instructions of one version, as they are sent."""
    with opened():
        print(prompts.instructions(workflow, None if digest == "program" else digest))


@prompt_app.command("write")
def prompt_write(
    file: Annotated[typer.FileText, typer.Argument(metavar="FILE|-", help="The instructions, as text.")],
    as_: As,
    reason: Reason,
    workflow: Workflow = "refunds",
) -> None:
    """Register a version; nothing uses it until it is chosen."""
    with opened() as settings:
        written = prompts.write(workflow, file.read(), reason, actor=people.find(as_), settings=settings)
        print(written.digest)
        if written.already:
            print(written.already, file=sys.stderr)


@prompt_app.command("choose")
def prompt_choose(
    digest: Annotated[str, typer.Argument(metavar="DIGEST|program", help="Or the program's own.")],
    as_: As,
    reason: Reason,
    workflow: Workflow = "refunds",
) -> None:
    """Use this version from the next call on."""
    with opened():
        wanted = None if digest == "program" else digest
        prompts.choose(workflow, wanted, reason, actor=people.find(as_))
        print("The program's own prompt is used." if wanted is None else f"{digest} is used.")
