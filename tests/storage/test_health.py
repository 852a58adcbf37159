"""Starting on a store that is not well: refused, left as it is, and said what to do; and where a store may not lie."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core import errors, installation, verify
from core.receivers.ledger import Ledger
from core.settings import Settings
from storage import database, files, schema
from storage.database import StoreError
from tests.conftest import Store
from tests.core import restoring

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/export /mnt/team nfs4 rw,vers=4.2 0 0
//nas/share /mnt/nas\\040disk cifs rw 0 0
me@host:/ /mnt/ssh fuse.sshfs rw 0 0
C:\\134 /mnt/c 9p rw,trans=fd 0 0
10.0.0.1:/ /mnt/gluster fuse.glusterfs rw 0 0
10.0.0.1:/ /mnt/ceph ceph rw 0 0
/dev/vdb /mnt/team/local ext4 rw 0 0
server:/other /mnt/over ext4 rw 0 0
server:/other /mnt/over nfs rw 0 0
broken line
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the machine have these mounts."""

    def have(table: str) -> None:
        path = tmp_path / "mounts"
        path.write_text(table, encoding="utf-8")
        monkeypatch.setattr(files, "MOUNTS", path)

    return have


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/countersign.db", "ext4"), ("/dev/shm/x/countersign.db", "tmpfs"), ("/mnt/team/a/b.db", "nfs4"),
        ("/mnt/nas disk/b.db", "cifs"), ("/mnt/ssh/b.db", "fuse.sshfs"), ("/mnt/c/b.db", "9p"),
        ("/mnt/gluster/b.db", "fuse.glusterfs"), ("/mnt/ceph/b.db", "ceph"), ("/mnt/team/local/b.db", "ext4"),
        ("/mnt/teamwork/b.db", "ext4"), ("/mnt/over/b.db", "nfs"),
    ],
)  # fmt: skip
def test_a_network_file_system_is_told_by_the_mount_it_is_on(
    mounts: Callable[[str], None], path: str, kind: str
) -> None:
    mounts(MOUNTS)

    found = files.mount_of(Path(path))

    assert found is not None
    assert found.kind == kind
    assert files.is_network(found) is (kind not in ("ext4", "tmpfs"))


def test_the_root_of_a_sandbox_is_its_own_disk(mounts: Callable[[str], None]) -> None:
    mounts("none / 9p rw,trans=fd 0 0\n")

    files.require_local(Path("/srv/countersign.db"))


def test_a_machine_that_does_not_say_its_mounts_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOUNTS", Path("/nowhere/mounts"))

    files.require_local(Path("/srv/countersign.db"))


def test_a_store_on_a_network_file_system_is_refused_and_not_made(
    tmp_path: Path, mounts: Callable[[str], None]
) -> None:
    home = tmp_path / "home"
    mounts(f"/dev/vda / ext4 rw 0 0\nserver:/export {home} nfs4 rw 0 0\n")

    with pytest.raises(errors.StartError, match=r"network file system \(nfs4 from server:/export\).*COUNTERSIGN_HOME"):
        installation.open_(Settings(home=home), create=True)
    with pytest.raises(StoreError, match="network file system"):
        Ledger(Settings(home=home).ledger_store_url)

    assert not home.exists()


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite(path: Path, at: int, words: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(words)


def _without(table: str) -> Callable[[Path], None]:
    def drop(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(f"DROP TABLE {table}")
        connection.close()

    return drop


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.write_bytes(b""), "has no bytes"),
        (_cut_off, "malformed.*`countersign restore FOLDER`"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "`countersign restore FOLDER`"),
        (lambda path: _overwrite(path, 0, b"SQLite format 4"), "not a database.*`countersign restore FOLDER`"),
        (lambda path: _overwrite(path, 4096, b"\xff" * 4096), "`countersign restore FOLDER`"),
        (lambda path: _overwrite(path, path.stat().st_size - 4096, b"\xff" * 4096), "`countersign restore FOLDER`"),
        (_without("receipts"), "it has no table receipts; move it away and bring a backup back"),
        (_without("alembic_version"), "tables without their version"),
        (_without("installation"), "it has no table installation"),
        (Path.unlink, "there is no database"),
    ],
)  # fmt: skip
def test_a_damaged_store_is_refused_with_what_to_do_and_left_alone(
    sqlite_store: Store, harm: Callable[[Path], object], says: str
) -> None:
    restoring.work(sqlite_store)
    database.use(None)
    path = sqlite_store.settings.home / "countersign.db"
    harm(path)
    before = path.read_bytes() if path.exists() else None

    with pytest.raises(errors.StartError, match=says):
        installation.open_(sqlite_store.settings, create=False)

    assert (path.read_bytes() if path.exists() else None) == before


def test_a_store_that_does_not_say_who_it_is_gets_no_new_identity(sqlite_store: Store) -> None:
    with database.transaction() as session:
        session.connection().exec_driver_sql("DELETE FROM installation")
    database.use(None)

    for create in (False, True):
        with pytest.raises(errors.StartError, match="does not say which installation it is"):
            installation.open_(sqlite_store.settings, create=create)


@pytest.mark.parametrize("left", [None, b""])
def test_a_lost_store_is_not_replaced_by_an_empty_one_beside_its_ledger(
    sqlite_store: Store, left: bytes | None
) -> None:
    restoring.work(sqlite_store)
    database.use(None)
    path = sqlite_store.settings.home / "countersign.db"
    path.unlink()
    if left is not None:
        path.write_bytes(left)

    with pytest.raises(errors.StartError, match=r"its ledger is there.*`countersign restore FOLDER`.*to begin anew"):
        installation.open_(sqlite_store.settings, create=True)

    assert files.is_missing(path)


def test_an_init_that_was_interrupted_before_its_first_byte_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "countersign.db").touch()

    installation.open_(Settings(home=tmp_path), create=True)

    assert verify.verify().holds
    database.use(None)


def test_a_store_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it(store: Store) -> None:
    restoring.work(store)
    with database.transaction() as session:  # What the first version could not know of its attempts.
        session.execute(
            text(
                "UPDATE attempts SET lane = NULL, reason = NULL, retry = 0, reserved_tokens = NULL,"
                " reserved_nano_dollars = NULL, spent = CASE WHEN kind IN ('open', 'blocked', 'held', 'applied', 'ok')"
                " THEN 0 ELSE 1 END"
            )
        )
    before = restoring.contents()
    database.use(None)
    restoring.downgrade(store.settings.store_url)

    installation.open_(store.settings, create=False)

    assert schema.revision() == schema.head()
    assert restoring.contents() == before
    assert restoring.broken(store.settings) == []


@pytest.mark.slow
def test_a_flipped_bit_is_refused_or_found_and_never_ends_in_an_error_of_another_kind(sqlite_store: Store) -> None:
    restoring.work(sqlite_store)
    database.use(None)
    path = sqlite_store.settings.home / "countersign.db"
    whole = path.read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]  # Most of a young database is empty pages.
    rng, outcomes = Random(8), Counter[str]()
    for _ in range(60):
        at = rng.choice(used)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        outcomes[_outcome(sqlite_store.settings)] += 1
        database.use(None)
    print(dict(outcomes))

    assert outcomes["refused"] > 0
    assert outcomes["found by verify"] > 0


def _outcome(settings: Settings) -> str:
    try:
        installation.open_(settings, create=False)
    except errors.StartError:
        return "refused"
    try:
        return (
            "of no consequence" if verify.verify(ledger=Ledger(settings.ledger_store_url)).holds else "found by verify"
        )
    except (DBAPIError, StoreError):
        return "found by verify"
