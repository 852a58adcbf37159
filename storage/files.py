"""The file of a SQLite store: on what kind of disk it lies, what lies beside it, and how it is made to stay."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from storage.database import StoreError

MOUNTS = Path("/proc/mounts")  # Linux; elsewhere nobody can tell, and nothing is refused.
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb",
    "smb2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
    "fuse.smbnetfs", "fuse.sshfs",
})  # fmt: skip
BESIDE = ("-journal", "-wal", "-shm")  # What SQLite keeps beside its file; it belongs to that file alone.


@dataclass(frozen=True)
class Mount:
    """What is mounted where: the device or server, the folder, the kind of file system."""

    source: str
    folder: Path
    kind: str


def require_local(path: Path) -> None:
    """Raise `StoreError` when `path` is on a network file system: SQLite's locks do not hold there, and two machines
    would each believe that they are alone."""
    mount = mount_of(path)
    if mount is not None and is_network(mount):
        raise StoreError(
            f"{path.parent} is on a network file system ({mount.kind} from {mount.source}), where SQLite's locks do "
            "not hold and the file can be damaged; choose a folder on a disk of this machine (COUNTERSIGN_HOME), or "
            "PostgreSQL (COUNTERSIGN_DATABASE_URL)"
        )


def is_network(mount: Mount) -> bool:
    """Whether other machines may write there too. A sandbox's root is its own, whatever protocol serves it."""
    return mount.kind in NETWORK and not (mount.kind == "9p" and mount.folder == Path("/"))


def mount_of(path: Path) -> Mount | None:
    """The mount that `path`, which need not exist yet, is or would be on; None where the machine does not say."""
    try:
        table = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    inside = path.resolve()
    best: Mount | None = None
    for line in table.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        found = Mount(_plain(words[0]), Path(_plain(words[1])), words[2])
        # A later line of the same folder was mounted over the earlier one.
        longer = best is None or len(found.folder.parts) >= len(best.folder.parts)
        if longer and inside.is_relative_to(found.folder):
            best = found
    return best


def _plain(word: str) -> str:
    """The kernel writes blanks and backslashes of a name as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), word)


def url(path: Path) -> str:
    """The URL of a SQLite file; built, because a question mark in the path would begin the options."""
    return URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def is_missing(path: Path) -> bool:
    """Whether there is no file, or one of no bytes."""
    return not path.exists() or path.stat().st_size == 0


def leftovers(path: Path) -> list[Path]:
    """What an earlier database left beside `path`; SQLite would take it for a part of whatever is put there."""
    return [beside for end in BESIDE if (beside := path.with_name(path.name + end)).exists()]


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settle(path: Path) -> None:
    """Return when the file, or the names in the folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
