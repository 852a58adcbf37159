"""Statements over prompt versions and over which of them is used."""

from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from storage.tables import Attempt, PromptChoice, PromptVersion


def get(session: Session, *, digest: str) -> PromptVersion | None:
    return session.get(PromptVersion, digest)


def known(session: Session, *, digests: Sequence[str]) -> set[str]:
    """Those of these prompt versions that are registered."""
    return set(session.exec(select(PromptVersion.digest).where(col(PromptVersion.digest).in_(digests))).all())


def of_workflow(session: Session, *, workflow: str) -> Sequence[PromptVersion]:
    """All versions of a workflow, newest first."""
    return session.exec(
        select(PromptVersion)
        .where(PromptVersion.workflow == workflow)
        .order_by(col(PromptVersion.registered_at).desc(), col(PromptVersion.digest))
    ).all()


def beginning(session: Session, *, workflow: str, digest: str) -> Sequence[PromptVersion]:
    """The versions of a workflow whose digest begins so."""
    return session.exec(
        select(PromptVersion).where(
            PromptVersion.workflow == workflow, col(PromptVersion.digest).startswith(digest, autoescape=True)
        )
    ).all()


def choices(session: Session, *, workflow: str) -> Sequence[PromptChoice]:
    """The choices made for a workflow, the latest first."""
    return session.exec(
        select(PromptChoice)
        .where(PromptChoice.workflow == workflow)
        .order_by(col(PromptChoice.at).desc(), col(PromptChoice.id).desc())
    ).all()


def chosen(session: Session, *, workflow: str) -> PromptVersion | None:
    """The version that the latest choice names; None where nobody chose, or chose the program's own."""
    latest = session.exec(
        select(PromptChoice.digest)
        .where(PromptChoice.workflow == workflow)
        .order_by(col(PromptChoice.at).desc(), col(PromptChoice.id).desc())
        .limit(1)
    ).first()
    return session.get(PromptVersion, latest) if latest else None


def uses(session: Session, *, digests: Sequence[str]) -> dict[str, int]:
    """How many attempts used each of these versions."""
    if not digests:
        return {}
    statement = (
        select(Attempt.prompt_version, func.count())
        .where(col(Attempt.prompt_version).in_(digests))
        .group_by(col(Attempt.prompt_version))
    )
    return {digest: number for digest, number in session.exec(statement).all() if digest is not None}
