"""Demo people and demo cases for an empty installation: plainly invented, marked as demo, left out of the metrics."""

from core import actions, cases, clock, demo, installation, people, submissions
from core.actions import Verdict
from core.lifecycle import State
from core.permissions import Role, Who
from core.settings import Settings
from core.worker import Worker

PASSWORD = "countersign-demo"


def seed(settings: Settings) -> int:
    """Add the demo people and cases, each case by the actions that people use. Returns how many cases; 0, and nothing
    is added, where there are people already."""
    if installation.has_people():
        return 0
    accounts = {
        one.email: people.add(one.email, name=one.name, role=one.role, password=PASSWORD, demo=True)
        for one in demo.PEOPLE
    }
    submitters = [who for who in accounts.values() if who.role is Role.SUBMITTER]
    by_role = {who.role: who for who in reversed(accounts.values())}  # The first of each.
    # The demo costs nothing and waits for nothing, whatever is configured: built-in rules, no hold.
    quick = settings.model_copy(update={"model": "", "hold_seconds": 0})
    running = Worker(quick, receivers=installation.receivers(quick))
    running.start()
    try:
        made = [
            submissions.submit(
                request, actor=submitters[i % len(submitters)], settings=quick, key=f"demo:{i}", demo=True
            )
            for i, request in enumerate(demo.requests(clock.now().date()))
        ]
        running.wake()
        _until_idle(running)
        _decide(by_role[Role.REVIEWER], by_role[Role.LEAD], quick, running)
    finally:
        running.stop()
    return len(made)


def _decide(reviewer: Who, lead: Who, settings: Settings, running: Worker) -> None:
    """Leave some cases decided, so that every state has an example; most still wait, they are for the visitor."""
    waiting = cases.waiting(reviewer)
    payable = [row for row in waiting if row.case.amount_minor]
    for row in payable[:2]:
        actions.decide(row.case.id, Verdict.APPROVE, actor=reviewer, settings=settings, note="Clear from the order.")
    rest = [row for row in waiting if row not in payable[:2]]
    if rest:
        note = "Outside the policy, and the customer was told so by phone."
        actions.decide(rest[-1].case.id, Verdict.REJECT, actor=reviewer, settings=settings, note=note)
    if len(rest) > 3:
        note = "Unusual: please look at the second order."
        actions.decide(rest[0].case.id, Verdict.ESCALATE, actor=reviewer, settings=settings, note=note)
    running.wake()
    _until_idle(running)
    applied = cases.listed(lead, states=[str(State.COMPLETED)], step="apply")
    if applied:
        actions.roll_back(applied[0].case.id, "Credited to the wrong order.", actor=lead)
    running.wake()
    _until_idle(running)


def _until_idle(running: Worker) -> None:
    if not running.wait_until_idle(60):
        raise RuntimeError("the demo cases were not finished within a minute")
