"""People and sign-ins: what is accepted, what ends a sign-in, and that a wrong password tells nothing."""

from datetime import timedelta
from typing import Literal

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError
from sqlmodel import select

from core import clock, errors, people
from core.permissions import Role
from storage import database
from storage.tables import Person, Sign
from tests.conftest import Store


def test_a_person_signs_in_and_is_who_they_are(store: Store) -> None:
    cookie = people.sign_in("REV@test.example ", "a test password", settings=store.settings)

    assert cookie is not None
    who = people.behind(cookie, settings=store.settings)
    assert who is not None
    assert (who.id, who.role) == (store.reviewer.id, Role.REVIEWER)


@pytest.mark.parametrize(("email", "password"), [("rev@test.example", "wrong"), ("nobody@test.example", "wrong")])
def test_a_wrong_password_and_an_unknown_person_get_the_same_answer(store: Store, email: str, password: str) -> None:
    assert people.sign_in(email, password, settings=store.settings) is None


def test_an_unknown_person_costs_as_much_as_a_wrong_password(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            checked.append(str(hash))
            return super().verify(hash, password)

    ours = people._hasher
    monkeypatch.setattr(people, "_hasher", Watched.from_parameters(extract_parameters(ours.hash("any"))))
    for email in ("rev@test.example", "nobody@test.example"):
        assert people.sign_in(email, "wrong", settings=sqlite_store.settings) is None

    known, unknown = map(extract_parameters, checked)
    assert known == unknown
    with pytest.raises(VerifyMismatchError):  # And not a complaint about its form, which would come at once.
        ours.verify(checked[1], "wrong")


def test_the_store_holds_neither_the_password_nor_the_cookie(sqlite_store: Store) -> None:
    cookie = people.sign_in("rev@test.example", "a test password", settings=sqlite_store.settings)

    with database.reading() as session:
        people_rows = [str(row.model_dump()) for row in session.exec(select(Person)).all()]
        rows = people_rows + [str(row.model_dump()) for row in session.exec(select(Sign)).all()]
    assert len(rows) == len(people_rows) + 1
    assert not any("a test password" in row or str(cookie) in row for row in rows)


def test_a_sign_in_ends_when_signed_out_expired_idle_or_switched_off(store: Store) -> None:
    settings, now = store.settings, clock.now()

    def fresh() -> str:
        cookie = people.sign_in("rev@test.example", "a test password", settings=settings, now=now)
        assert cookie is not None
        return cookie

    out, idle, gone = fresh(), fresh(), fresh()
    people.sign_out(out)

    assert people.behind(out, settings=settings) is None
    minutes = timedelta(minutes=settings.session_idle_minutes)
    assert people.behind(idle, settings=settings, now=now + minutes - timedelta(seconds=1)) is not None
    assert people.behind(idle, settings=settings, now=now + 2 * minutes) is None
    assert people.behind(idle, settings=settings, now=now + timedelta(hours=settings.session_hours)) is None
    people.set_active(store.reviewer.id, False, actor=store.administrator)
    assert people.behind(gone, settings=settings, now=now) is None
    assert people.sign_in("rev@test.example", "a test password", settings=settings) is None


def test_a_cookie_that_was_never_given_is_nobody(store: Store) -> None:
    assert people.behind("made up", settings=store.settings) is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"email": "no at sign"}, "email"), ({"email": "a@b c"}, "email"), ({"email": "a\n@b.example"}, "email"),
        ({"name": " "}, "name"), ({"name": "x" * 201}, "name"), ({"role": "king"}, "role"),
        ({"password": "short"}, "password"),
    ],
)  # fmt: skip
def test_a_person_who_is_not_well_described_is_refused(sqlite_store: Store, given: dict[str, str], field: str) -> None:
    whole = {"email": "new@test.example", "name": "New", "role": "reviewer", "password": "long enough", **given}

    with pytest.raises(errors.Incomplete) as refused:
        people.add(whole.pop("email"), **whole)  # type: ignore[arg-type]

    assert list(refused.value.fields) == [field]


def test_the_same_email_twice_is_refused_whatever_its_case(store: Store) -> None:
    with pytest.raises(errors.ActionError, match="already"):
        people.add("REV@TEST.example", name="Again", role="lead")


def test_only_an_administrator_adds_people(store: Store) -> None:
    with pytest.raises(errors.Forbidden):
        people.add("x@test.example", name="X", role="lead", actor=store.lead)
    assert people.add("x@test.example", name="X", role="lead", actor=store.administrator).role is Role.LEAD


def test_a_draft_survives_until_it_is_sent(store: Store) -> None:
    people.keep_draft(store.submitter.id, "refunds", {"customer": "Nora"})
    people.keep_draft(store.submitter.id, "refunds", {"customer": "Nora Nobody"})

    kept = people.draft(store.submitter.id, "refunds")
    people.keep_draft(store.submitter.id, "refunds", {})

    assert kept == {"customer": "Nora Nobody"}
    assert people.draft(store.submitter.id, "refunds") == {}
