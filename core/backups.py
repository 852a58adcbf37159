"""Backup and restore: a folder with the whole store as one SQLite file, whatever store it came from, the ledger's file
where there is one, and a manifest that says what they must hold.

A backup is taken while everybody works on, checked as it lies there, and named only when it is whole. A restore goes
into an empty place alone and leaves the installation in restored mode: what was decided and sent after the backup is
known to the receivers only, so nothing is sent until they were asked (`core/reconcile.py`).
"""

import secrets
import shutil
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection
from sqlmodel import Session

from core import clock, errors, moves, verify
from core.moves import SYSTEM, Note
from core.settings import Settings
from storage import copies, database, files, installations, schema
from storage.copies import Said

STORE, LEDGER, MANIFEST = "countersign.db", "ledger.db", "manifest.json"


class Whole(BaseModel):
    """A part of the manifest: nothing may be missing, nothing added."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Head(Whole):
    """The newest event of the audit chain."""

    seq: int
    hash: str


class Bytes(Whole):
    """A file of the backup."""

    size: int
    sha256: str


class Table(Whole):
    """What a table holds: rows, and a digest over them that is the same on either kind of store."""

    rows: int
    digest: str


class Manifest(Whole):
    """What a backup must hold."""

    format: Literal[1] = 1
    created_at: AwareDatetime
    installation: UUID
    store: Literal["sqlite", "postgresql"]  # What it was taken of; it can be restored into either.
    revision: str
    head: Head
    tables: dict[str, Table]
    files: dict[Literal["countersign.db", "ledger.db"], Bytes]

    @property
    def cases(self) -> int:
        return self.tables["cases"].rows


def quietly(_table: str, _rows: int) -> None:
    """Tell nobody how far it is."""


# --- Taking one -----------------------------------------------------------------------------------------------------


def take(settings: Settings, folder: Path, *, said: Said = quietly) -> Manifest:
    """Back the installation up into the new folder. Raises `ActionError` when there is something at that place, or
    when the copy does not hold what it should; then nothing is left behind."""
    if folder.exists():
        raise errors.ActionError(f"{folder} is there already; a backup is never written over, choose another name")
    files.require_local(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    part.mkdir(mode=0o700)
    try:
        manifest = _take(settings, part, said)
        part.rename(folder)
        files.settle(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


def _take(settings: Settings, part: Path, said: Said) -> Manifest:
    store, ledger = part / STORE, part / LEDGER
    copies.snapshot(settings.store_url, store, said=said)
    # The ledger after the store: what was sent between the two is then something to find there, never missing there.
    own = database.sqlite_path(settings.ledger_store_url)
    if own is not None and not files.is_missing(own):
        copies.snapshot_file(settings.ledger_store_url, ledger)
    kept = [path for path in (store, ledger) if path.exists()]
    for path in kept:
        copies.check_file(path)
        files.settle(path)
    with copies.frozen(store).connect() as connection:
        head, installation = _checked(connection, "the copy")
        revision = schema.revision_of(connection)
        assert revision is not None
        contents = copies.contents(connection, tables=copies.store_tables())
    manifest = Manifest(
        created_at=clock.now(),
        installation=installation,
        store="sqlite" if database.sqlite_path(settings.store_url) is not None else "postgresql",
        revision=revision,
        head=head,
        tables={name: Table(rows=one.rows, digest=one.digest) for name, one in contents.items()},
        files={path.name: Bytes(size=path.stat().st_size, sha256=files.digest(path)) for path in kept},  # type: ignore[misc]
    )
    written = part / MANIFEST
    written.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    files.settle(written)
    files.settle(part)
    return manifest


def _checked(connection: Connection, what: str) -> tuple[Head, UUID]:
    """The head of the chain and the installation of the store on this connection, once all of it verifies. The ledger
    is not compared: it goes on by itself."""
    with Session(connection) as session:
        report = verify.verify(of=session)
        here = installations.get(session)
    assert here is not None
    if not report.holds:
        broken = [f"{one.id}: {one.broken[0]}" for one in report.checks if not one.holds and not one.warns_only]
        raise errors.ActionError(f"{what} does not verify ({'; '.join(broken[:3])}); nothing was written")
    return Head(seq=report.head_seq, hash=report.head_hash), here.id


# --- Bringing one back ----------------------------------------------------------------------------------------------


def restore(settings: Settings, folder: Path, *, with_ledger: bool = False, said: Said = quietly) -> Manifest:
    """Bring the backup in `folder` back, in restored mode, into a store that is empty. The ledger is left alone: it
    knows what was really applied. Only where it was lost too, its copy is brought back `with_ledger`. Raises
    `ActionError` for a backup that is not whole, or a place that is not empty; then nothing was changed."""
    manifest = read(folder)
    target = database.sqlite_path(settings.store_url)
    if target is not None:
        files.require_local(target)
        _require_empty(target)
    ledger = _ledger_to_restore(settings, manifest, with_ledger)
    home = target.parent if target is not None else settings.home
    home.mkdir(parents=True, exist_ok=True)
    made = home / f"{STORE}.restoring-{secrets.token_hex(4)}"
    try:
        shutil.copyfile(folder / STORE, made)
        made.chmod(0o600)
        _enter_restored_mode(made, manifest)
        if target is not None:
            files.settle(made)
            made.rename(target)
            files.settle(home)
        else:
            with copies.frozen(made).connect() as source:
                fill(settings.store_url, source, said=said)
    finally:
        for left in (made, *files.leftovers(made)):
            left.unlink(missing_ok=True)
    if ledger is not None:
        _restore_ledger(folder, ledger)
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest of a backup whose files are as they were written. Raises `ActionError`."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError:
        raise errors.ActionError(f"{folder} is not a backup: it has no {MANIFEST}") from None
    except ValidationError as error:
        raise errors.ActionError(
            f"{folder / MANIFEST} cannot be read ({error.errors()[0]['msg']}): it was changed, or a newer Countersign "
            "wrote it"
        ) from None
    if STORE not in manifest.files:
        raise errors.ActionError(f"{folder} is not a whole backup: its manifest names no {STORE}")
    for name, wanted in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != wanted.size or files.digest(path) != wanted.sha256:
            raise errors.ActionError(f"{path} is not what {MANIFEST} says: the backup is not whole, take another one")
    return manifest


def _require_empty(target: Path) -> None:
    there = [path for path in (target, *files.leftovers(target)) if path.exists() and path.stat().st_size]
    if there:
        raise errors.ActionError(
            f"a restore goes into an empty place only, and there is {', '.join(map(str, there))}; move it away, or set "
            "COUNTERSIGN_HOME to an empty folder"
        )


def _enter_restored_mode(path: Path, manifest: Manifest) -> None:
    """Bring the copy's schema up to date, check it against the manifest, and let it say what it is from now on."""
    now = clock.now()
    facts = {
        "backup_of": manifest.created_at.astimezone(UTC).isoformat(), "seq": manifest.head.seq,
        "hash": manifest.head.hash,
    }  # fmt: skip
    with closing(schema.opened(files.url(path), create=False)) as store:
        with store.reader.connect() as connection:
            head, installation = _checked(connection, "the backup")
        if (head, installation) != (manifest.head, manifest.installation):
            raise errors.ActionError(f"the backup is not the one that its {MANIFEST} describes; nothing was written")
        with Session(store.writer) as session:
            installations.begin_restored(session, now=now)
            moves.note(session, [Note("restored", SYSTEM, facts=facts)], now=now)
            session.commit()


def _ledger_to_restore(settings: Settings, manifest: Manifest, with_ledger: bool) -> Path | None:
    """Where the ledger's copy goes; None: nowhere. An old copy beside a living ledger would pay a second time."""
    target = database.sqlite_path(settings.ledger_store_url)
    is_there = target is None or not files.is_missing(target)
    if with_ledger and (is_there or LEDGER not in manifest.files):
        raise errors.ActionError(
            "there is a ledger already, and it is left alone: leave --with-ledger out"
            if is_there
            else f"the backup holds no {LEDGER}: leave --with-ledger out"
        )
    if not with_ledger and not is_there and LEDGER in manifest.files:
        raise errors.ActionError(
            f"there is no ledger at {target}. If it lives elsewhere, set COUNTERSIGN_LEDGER_URL to it (sqlite:////…, "
            "four slashes and the path): it knows what was really applied. If it was lost too, add --with-ledger"
        )
    return target if with_ledger else None


def _restore_ledger(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.restoring-{secrets.token_hex(4)}")
    shutil.copyfile(folder / LEDGER, part)
    files.settle(part)
    part.rename(target)
    files.settle(target.parent)


# --- Filling an empty store -----------------------------------------------------------------------------------------


class Filled(NamedTuple):
    """What a store was filled with."""

    tables: dict[str, copies.Contents]
    head: Head


def fill(url: str, source: Connection, *, said: Said = quietly) -> Filled:
    """Copy the whole store on `source` into the empty one at `url`, and let it stand only if it holds exactly the
    same and verifies there; all in one transaction, so that there is never half a store."""
    tables = copies.store_tables()
    with schema.filling(url) as target:
        copies.copy(source, target, tables=tables, said=said)
        there, here = copies.contents(target, tables=tables), copies.contents(source, tables=tables)
        differing = [name for name in here if here[name] != there[name]]
        if differing:
            raise errors.ActionError(
                f"what arrived at {database.shown(url)} differs in {', '.join(differing)}; nothing was left there"
            )
        head, _ = _checked(target, "what arrived")
    return Filled(there, head)
