"""A team's own workflow is one file: the one printed in the README is run from form to rollback."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from core import actions, cases, outcomes, submissions, verify, workflow
from core.actions import Verdict
from core.outcomes import Answer, Receipt
from core.receivers import USUAL_RETENTION, Sending
from core.workflow import Effect, Flag, Mark, Prompt, Reversibility, Route, Strict, To, Workflow
from tests.conftest import Store
from tests.core import drive

README = Path(__file__).parents[2] / "README.md"
NAMES = (Annotated, Literal, Field, Effect, Flag, Mark, Prompt, Reversibility, Route, Strict, To, Workflow)


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> Workflow[Any, Any]:
    """The README's workflow, found as if its file lay in `core/workflows/`."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    space: dict[str, Any] = {getattr(name, "__name__", str(name)): name for name in NAMES}
    space |= {"Annotated": Annotated, "Literal": Literal, "POLICY": "Grant it.", "SYSTEMS": {"mail"}, "__name__": "own"}
    exec(compile(code, "README.md", "exec"), space)
    found: Workflow[Any, Any] = space["Access"]()
    monkeypatch.setitem(workflow.loaded(), found.name, found)
    return found


class Directory:
    """A receiver as a team would write it."""

    name = "directory"
    reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION
    keeps_keys = True

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def apply(self, sending: Sending) -> Answer:
        self.kept.setdefault(sending.key, sending.payload)
        return Answer("applied", receipt=Receipt(sending.key, f"D-{sending.key[:8]}"))

    undo = apply

    def find(self, *, key: str) -> Receipt | None:
        return Receipt(key, f"D-{key[:8]}") if key in self.kept else None


def test_the_readmes_workflow_goes_from_form_to_rollback(store: Store, access: Workflow[Any, Any]) -> None:
    directory = Directory()
    how = {
        "ask": drive.says(access.Proposal(verdict="grant", days=30)),  # type: ignore[arg-type]
        "receivers": {"directory": directory},
    }
    request = submissions.read_request("access", {"person": "Nora Nobody", "system": "mail", "reason": "Because."})
    made = submissions.submit(request, actor=store.submitter, settings=store.settings, workflow_name="access")

    drive.until_idle(store.settings, **how)
    actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)
    drive.until_idle(store.settings, **how)
    applied = drive.case(made.case_id)
    actions.roll_back(made.case_id, "Left the team.", actor=store.lead)
    drive.until_idle(store.settings, **how)

    assert (applied.state, applied.outcome) == ("completed", "applied")
    assert drive.case(made.case_id).state == "rolled_back"
    assert next(iter(directory.kept.values())) == '{"days":30,"system":"mail"}'
    assert verify.verify().holds


def test_a_stop_of_its_check_refuses_the_approval(store: Store, access: Workflow[Any, Any]) -> None:
    request = submissions.read_request("access", {"person": "Nora Nobody", "system": "vault", "reason": "Because."})
    made = submissions.submit(request, actor=store.submitter, settings=store.settings, workflow_name="access")
    drive.until_idle(store.settings, ask=drive.says(access.Proposal(verdict="grant", days=30)))  # type: ignore[arg-type]

    with pytest.raises(Exception, match="There is no such system"):
        actions.decide(made.case_id, Verdict.APPROVE, actor=store.reviewer, settings=store.settings)


def test_without_a_model_the_built_in_rules_say_that_they_do_not_know_it(
    sqlite_store: Store, access: Workflow[Any, Any]
) -> None:
    from core.model import Model

    store = sqlite_store
    request = submissions.read_request("access", {"person": "Nora Nobody", "system": "mail", "reason": "Because."})
    made = submissions.submit(request, actor=store.submitter, settings=store.settings, workflow_name="access")

    drive.until_idle(store.settings, ask=Model(store.settings).ask)

    seen = cases.view(made.case_id, actor=store.lead)
    assert (seen.case.state, seen.attempts[-1].kind) == ("escalated", str(outcomes.Kind.IMPOSSIBLE))
    assert "unsupported_workflow" in (seen.case.reason or "")
