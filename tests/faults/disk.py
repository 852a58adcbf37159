"""The disk under SQLite, seen and disturbed by strace: the nth call fails or is the last, and what a power cut would
have left at any moment."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from core.trials.story import Child

CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink")  # Those by which SQLite changes what a disk holds.
SECTOR = 512
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def refusal() -> str | None:
    """Why strace cannot be used here; None: it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        tried = ["strace", "-o", os.devnull, "-e", "trace=none", "-p", str(sleeper.pid)]
        tracer = subprocess.Popen(tried, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        tracer.terminate()
        tracer.wait()
        return None if "attached" in said else f"strace may not trace here: {said.strip()}"
    finally:
        sleeper.kill()
        sleeper.wait()


def traced(work: Callable[[], object], home: Path, *options: str) -> tuple[int, str]:
    """Run `work` in a child process under strace, which tells of the calls on the files in `home`. Returns how it
    ended, as `Child.ended` does, and what strace wrote."""
    hold, go = os.pipe()
    child = Child(lambda _say: (os.read(hold, 1), work()), home / "printed")
    out = home.with_name(f"{home.name}.trace")
    names = [f"{store}{end}" for store in ("countersign.db", "ledger.db") for end in ("", "-journal", "-wal")]
    paths = [word for path in (home, *(home / one for one in (*names, "acknowledged"))) for word in ("-P", str(path))]
    command = ["strace", "-f", "-y", "-p", str(child.pid), "-o", str(out), *paths, *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    while "attached" not in (said := tracer.stderr.readline()):
        assert said, "strace did not attach"
    os.write(go, b"!")
    code = child.ended()
    tracer.communicate()
    for end in (hold, go):
        os.close(end)
    return code, out.read_text(encoding="ascii")


# --- A power cut ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One call that changed something, or made it durable."""

    name: str
    path: Path
    data: bytes = b""
    at: int = 0  # The offset, or the length to cut to.


def calls(trace: str) -> list[Call]:
    """The calls of a trace that was written with -xx; those that failed are left out."""
    return [one for line in trace.splitlines() for one in _call(line)]


def _call(line: str) -> Iterator[Call]:
    found = _LINE.match(line)
    if found is None or int(found[3]) < 0:
        return
    name, words = found[1], found[2]
    held = [bytes.fromhex(one.replace("\\x", "")) for one in _BYTES.findall(words)]
    if name in ("unlink", "openat"):
        if name == "unlink" or "O_CREAT" in words:
            yield Call(name, Path(os.fsdecode(held[0])))
        return
    opened = re.match(r"\d+<([^>]*)>", words)
    assert opened is not None, line
    path = Path(os.fsdecode(bytes.fromhex(opened[1].replace("\\x", "")) if "\\x" in opened[1] else opened[1]))
    numbers = [int(one) for one in re.findall(r", (\d+)(?=,|$)", _BYTES.sub("", words))]
    yield Call(name, path, held[0] if held else b"", numbers[-1] if numbers else 0)


@dataclass
class _Bytes:
    """What one file holds: for certain, now, and the calls between the two."""

    sure: bytes = b""
    now: bytearray = field(default_factory=bytearray)
    loose: list[Call] = field(default_factory=list)


class Disk:
    """A folder as a disk holds it: bytes are certain when their file was synced, names when the folder was."""

    def __init__(self, folder: Path, before: Path) -> None:
        self.acknowledged = b""  # What the program had written down for the outside by now.
        self._folder = folder
        stores = [one for one in before.iterdir() if one.suffix == ".db"]
        self._now = {one.name: _Bytes(one.read_bytes(), bytearray(one.read_bytes())) for one in stores}
        self._sure = dict(self._now)
        self._loose: list[tuple[str, _Bytes | None]] = []  # Names given and taken since the folder was synced.

    def see(self, call: Call) -> None:
        """One more call was made."""
        name = call.path.name
        if name == "acknowledged":
            self.acknowledged += call.data if call.name == "write" else b""
        elif call.path == self._folder:
            if call.name.endswith("sync"):
                self._sure, self._loose = dict(self._now), []
        elif call.name == "openat":
            if name not in self._now:
                self._now[name] = _Bytes()
                self._loose.append((name, self._now[name]))
        elif call.name == "unlink":
            del self._now[name]
            self._loose.append((name, None))
        elif call.name.endswith("sync"):
            file = self._now[name]
            file.sure, file.loose = bytes(file.now), []
        else:
            self._now[name].loose.append(call)
            _apply(call, self._now[name].now)

    def cut(self, folder: Path, chance: Random | None) -> None:
        """Write what a power cut now would leave: what is sure, and of the rest what chance has brought to the disk,
        in any order and torn between sectors; None: nothing of it."""
        folder.mkdir()
        names: dict[str, _Bytes | None] = {**self._sure}
        if chance is not None:
            names |= dict(self._loose[: chance.randint(0, len(self._loose))])
        for name, file in names.items():
            if file is None:
                continue
            held = bytearray(file.sure)
            for call in file.loose:
                if chance is not None and chance.random() < 0.5:
                    _apply(_torn(call, chance), held)
            (folder / name).write_bytes(held)


def _apply(call: Call, held: bytearray) -> None:
    if call.name == "ftruncate":
        del held[call.at :]
    end = call.at + len(call.data)
    held.extend(bytes(max(0, end - len(held))))
    held[call.at : end] = call.data


def _torn(call: Call, chance: Random) -> Call:
    """Now and then only some of the sectors of a write."""
    if call.name != "pwrite64" or chance.random() < 0.7:
        return call
    sectors = len(call.data) // SECTOR
    return Call(call.name, call.path, call.data[: chance.randrange(sectors + 1) * SECTOR], call.at)
