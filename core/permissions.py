"""Who may do what, and to which case: one function that gives the reason when the answer is no. Pure.

A page asks it to grey a button, an action asks it inside its transaction with the person as they are now; the same
function, so the two cannot disagree.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from core.lifecycle import Place, State


class Role(StrEnum):
    SUBMITTER = "submitter"
    REVIEWER = "reviewer"
    LEAD = "lead"  # All that a reviewer can, and roll back, retry, reopen.
    ADMINISTRATOR = "administrator"  # People and settings; decides nothing by being one.
    AUDITOR = "auditor"  # Sees everything, changes nothing.


class Act(StrEnum):
    """What a person can ask for."""

    SUBMIT = "submit"
    SEE = "see"
    ANSWER = "answer"
    WITHDRAW = "withdraw"
    DECIDE = "decide"
    TAKE_BACK = "take back"
    RETRY = "retry"
    MANUAL = "take by hand"
    REOPEN = "reopen"
    ROLL_BACK = "roll back"
    ACCEPT = "accept"
    SETTLE = "settle"
    LOOK_UP = "look up"
    SEE_METRICS = "see the metrics of"
    SEE_PROMPT = "see the exact text sent for"
    CHOOSE_PROMPT = "choose the prompt of"
    SEE_LANES = "see the lanes of"
    RUN_LANES = "pause and resume lanes of"
    MANAGE_PEOPLE = "manage people of"


@dataclass(frozen=True)
class Who:
    """A person as the rules see them."""

    id: UUID
    role: Role
    active: bool = True
    name: str = ""


@dataclass(frozen=True)
class What:
    """A case as the rules see it: where it is, whose it is, and who answered a question about it."""

    place: Place
    submitted_by: UUID
    answered_by: Collection[UUID] = ()
    approved_by: UUID | None = None


_DECIDERS = frozenset({Role.REVIEWER, Role.LEAD})
_SEE_ALL = frozenset({Role.REVIEWER, Role.LEAD, Role.ADMINISTRATOR, Role.AUDITOR})
_ROLES: dict[Act, frozenset[Role]] = {
    Act.SUBMIT: frozenset({Role.SUBMITTER, Role.REVIEWER, Role.LEAD}),
    Act.SEE: frozenset(Role),
    Act.ANSWER: frozenset({Role.SUBMITTER, Role.REVIEWER, Role.LEAD}),
    Act.WITHDRAW: frozenset({Role.SUBMITTER, Role.REVIEWER, Role.LEAD}),
    Act.DECIDE: _DECIDERS,
    Act.TAKE_BACK: _DECIDERS,
    Act.RETRY: frozenset({Role.LEAD}),
    Act.MANUAL: _DECIDERS,
    Act.REOPEN: frozenset({Role.LEAD}),
    Act.ROLL_BACK: frozenset({Role.LEAD}),
    Act.ACCEPT: frozenset({Role.LEAD}),
    Act.SETTLE: frozenset({Role.LEAD}),
    Act.LOOK_UP: frozenset({Role.LEAD}),
    Act.SEE_METRICS: frozenset({Role.LEAD, Role.ADMINISTRATOR, Role.AUDITOR, Role.REVIEWER}),
    Act.SEE_PROMPT: frozenset({Role.LEAD, Role.AUDITOR}),
    Act.CHOOSE_PROMPT: frozenset({Role.LEAD}),
    Act.SEE_LANES: frozenset({Role.LEAD, Role.ADMINISTRATOR, Role.AUDITOR}),
    Act.RUN_LANES: frozenset({Role.LEAD, Role.ADMINISTRATOR}),
    Act.MANAGE_PEOPLE: frozenset({Role.ADMINISTRATOR}),
}
_OF_ALL = frozenset({Act.SEE_METRICS, Act.CHOOSE_PROMPT, Act.SEE_LANES, Act.RUN_LANES, Act.MANAGE_PEOPLE})
_OWN_ONLY = frozenset({Act.ANSWER, Act.WITHDRAW})
_NOT_OWN = frozenset({Act.DECIDE, Act.MANUAL, Act.RETRY, Act.REOPEN, Act.ACCEPT, Act.SETTLE})


def may(who: Who, act: Act, what: What | None = None) -> str | None:
    """None when allowed; otherwise one sentence that says why not, fit to show."""
    if not who.active:
        return "This account is not active any more; ask an administrator."
    if who.role not in _ROLES[act]:
        whole = "cases" if act is Act.SUBMIT else "this installation" if act in _OF_ALL else "this"
        return f"{an(who.role)} may not {act} {'this case' if what else whole}."
    if what is None:
        return None
    own = who.id == what.submitted_by
    if act is Act.SEE and not own and who.role not in _SEE_ALL:
        return "Only the person who submitted this case may see it."
    if act in _OWN_ONLY and not own and who.role is not Role.LEAD:
        return f"Only the person who submitted this case, or a lead, may {act} it."
    if act in _NOT_OWN and (own or who.id in what.answered_by):
        return "Nobody decides a case of their own: you submitted it or answered a question about it."
    if act is Act.DECIDE and what.place.state is State.ESCALATED and who.role is not Role.LEAD:
        return "This case was escalated: a lead must decide it."
    if act is Act.MANUAL and what.place.state in (State.ESCALATED, State.FAILED) and who.role is not Role.LEAD:
        return "This case needs a lead."
    if act is Act.TAKE_BACK and who.role is not Role.LEAD and who.id != what.approved_by:
        return "Only the person who approved, or a lead, may take an approval back."
    return None


def an(role: Role) -> str:
    """The role with its article, at the beginning of a sentence: "An auditor"."""
    return f"{'An' if role[0] in 'aeiou' else 'A'} {role}"
