"""Who may do what: the whole table, role by role, act by act, own case and another's."""

from uuid import UUID

import pytest

from core import lifecycle
from core.permissions import Act, Role, What, Who, may

ME, OTHER = UUID(int=1), UUID(int=2)

# For each act: the roles that may do it to another person's case, and to their own.
ALLOWED: dict[Act, tuple[str, str]] = {
    Act.SEE: ("reviewer lead administrator auditor", "submitter reviewer lead administrator auditor"),
    Act.ANSWER: ("lead", "submitter reviewer lead"),
    Act.WITHDRAW: ("lead", "submitter reviewer lead"),
    Act.DECIDE: ("reviewer lead", ""),
    Act.MANUAL: ("reviewer lead", ""),
    Act.TAKE_BACK: ("lead", "lead"),
    Act.RETRY: ("lead", ""),
    Act.REOPEN: ("lead", ""),
    Act.ROLL_BACK: ("lead", "lead"),
    Act.ACCEPT: ("lead", ""),
    Act.SETTLE: ("lead", ""),
    Act.LOOK_UP: ("lead", "lead"),
    Act.SEE_METRICS: ("reviewer lead administrator auditor", "reviewer lead administrator auditor"),
    Act.SEE_PROMPT: ("lead auditor", "lead auditor"),
    Act.CHOOSE_PROMPT: ("lead", "lead"),
    Act.SEE_LANES: ("lead administrator auditor", "lead administrator auditor"),
    Act.RUN_LANES: ("lead administrator", "lead administrator"),
    Act.MANAGE_PEOPLE: ("administrator", "administrator"),
    Act.SUBMIT: ("submitter reviewer lead", "submitter reviewer lead"),
}


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("own", [False, True])
def test_the_table_of_permissions(act: Act, role: Role, own: bool) -> None:
    what = What(lifecycle.WAITING, ME if own else OTHER)

    reason = may(Who(ME, role), act, what)

    assert (reason is None) == (role in ALLOWED[act][own].split()), reason


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("role", Role)
def test_an_account_that_is_switched_off_may_do_nothing(act: Act, role: Role) -> None:
    assert may(Who(ME, role, active=False), act, What(lifecycle.WAITING, OTHER)) is not None


def test_an_escalated_case_is_for_leads() -> None:
    what = What(lifecycle.ESCALATED_REVIEW, OTHER)

    assert may(Who(ME, Role.REVIEWER), Act.DECIDE, what) == "This case was escalated: a lead must decide it."
    assert may(Who(ME, Role.LEAD), Act.DECIDE, what) is None


def test_whoever_answered_does_not_decide() -> None:
    assert may(Who(ME, Role.LEAD), Act.DECIDE, What(lifecycle.WAITING, OTHER, answered_by={ME})) is not None


def test_the_approver_may_take_back_their_own_approval() -> None:
    assert may(Who(ME, Role.REVIEWER), Act.TAKE_BACK, What(lifecycle.PENDING_APPLY, OTHER, approved_by=ME)) is None
    assert may(Who(ME, Role.REVIEWER), Act.TAKE_BACK, What(lifecycle.PENDING_APPLY, OTHER, approved_by=OTHER))
