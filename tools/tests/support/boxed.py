# SPDX-License-Identifier: GPL-2.0-only
"""Run a program in the sandbox of a review, as root or as an ordinary user.

It is the one module of the tests of attacks that imports the sandbox.  As a program it is the
process outside: it has secrets in its environment, its arguments and its keyring.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import iommuq
from iommuq.system.errors import InfraError
from iommuq.system.sandbox import area
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.model import default_limits
from iommuq.system.temporary import remove
from toykernel import PATIENCE

__all__ = ["WHO", "leftovers", "place", "reason_not_to", "remove", "run_boxed"]

#: An id without a name and without rights, which root can take.
USER = 12345
#: As whom the attacks run.
WHO = ("root", "user") if os.geteuid() == 0 else ("user",)
#: In the environment of all that the process outside starts.
MARKER = "IOMMUQ_ATTACKS"
#: Characters of its output that are kept.
MOST = 1 << 20
# From the machine's headers: add_key, keyctl and KEYCTL_JOIN_SESSION_KEYRING.
_KEYS = {"x86_64": (248, 250), "aarch64": (217, 219)}
_JOIN_SESSION, _SESSION = 1, -3


@dataclass(frozen=True)
class Ended:
    """A run in the sandbox.

    :ivar error: the words of the error that ended it; empty if it ended by itself.
    :ivar seconds: how long it took.
    :ivar took: the sum of what its processes said that they took, in lines ``TOOK pid number``.
    :ivar memory: bytes that the process outside took.
    """

    returncode: int
    output: str
    stderr: str
    error: str
    seconds: float
    took: int
    memory: int


def become(who: str) -> list[str]:
    """Return the words that start a program as root or as the user."""
    if os.geteuid() != 0 or who == "root":
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]


def give(who: str, *paths: Path) -> None:
    """Give files and directories, with all below, to root or to the user."""
    if os.geteuid() == 0 and who == "user":
        for path in paths:
            for each in (path, *path.rglob("*")):
                os.chown(each, USER, USER, follow_symlinks=False)


@contextlib.contextmanager
def place(who: str) -> Iterator[Path]:
    """Yield a directory that the user can reach, with an empty directory ``work``.

    It is on the disk, and not in the sandbox's own /tmp.
    """
    with tempfile.TemporaryDirectory(prefix="iommuq-test-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "work").mkdir()
        give(who, folder)
        try:
            yield folder
        finally:
            remove(folder / "work")


def run_boxed(
    who: str,
    work: Path,
    words: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    readable: Sequence[Path] = (),
    trusted: bool = False,
    fixed: bool = False,
    canary: str = "none",
) -> Ended:
    """Run a program in the sandbox.

    :param work: the directory that it may write.
    :param limits: those that differ from the default.
    :param trusted: without the sandbox, with the limits alone.
    :param fixed: the directory is a file system of its own.
    :param canary: the secret of the process outside.
    """
    request = {
        "work": str(work),
        "words": list(words),
        "limits": dict(limits or {}),
        "readable": [str(each) for each in readable],
        "trusted": trusted,
        "fixed": fixed,
    }
    package = Path(iommuq.__file__).resolve().parents[1]
    path = f"{package}:{Path(__file__).parent}"
    program = [sys.executable, "-P", __file__, canary]
    environment = {**os.environ, "PYTHONPATH": path, MARKER: str(work), "CANARY": canary}
    done = subprocess.run(
        [*become(who), *program],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd="/",
        env={**environment, "HOME": str(work.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Ended(**json.loads(done.stdout))


def leftovers(work: Path) -> list[str]:
    """Return the processes of a sandbox that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_text(errors="replace")
            mark = f"{MARKER}={work}".encode()
            if str(work) in words or mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(words)
    return [each for each in found if each]


@cache
def reason_not_to_mount() -> str:
    """Return why no file system of a fixed size can be had here; empty if one can."""
    if os.geteuid() != 0:
        return "only root can mount a file system"
    with tempfile.TemporaryDirectory(prefix="iommuq-test-") as name:
        folder = Path(name) / "work"
        folder.mkdir()
        with area.opened(folder, replace(default_limits(), disk=24, files=100)) as there:
            return "" if there else "no file system can be mounted here"


def reason_not_to(who: str) -> str:
    """Return why nothing can be run as *who* here; empty if it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    argv = [*become(who), sys.executable, "-P", "-c", "import iommuq"]
    package = str(Path(iommuq.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": package}
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, check=False)
    return "" if done.returncode == 0 else f"user {USER} cannot read this Python or iommuq"


def _keep_key(canary: str) -> None:
    """Put a key into a session keyring of our own."""
    add, control = _KEYS.get(os.uname().machine, (0, 0))
    if add:
        system = ctypes.CDLL(None).syscall
        if system(control, _JOIN_SESSION, None) > 0:
            system(add, b"user", canary.encode(), b"x", 1, _SESSION)


def main() -> None:
    """Handle the request on standard input."""
    request: dict[str, Any] = json.load(sys.stdin)
    _keep_key(sys.argv[1])
    limits = replace(default_limits(), **request["limits"])
    readable = tuple(map(Path, request["readable"]))
    sandbox = Sandbox(Path(request["work"]), limits, readable, trusted=request["trusted"])
    with area.opened(sandbox.writable, limits) if request["fixed"] else contextlib.nullcontext():
        _run(sandbox, request)


def _run(sandbox: Sandbox, request: dict[str, Any]) -> None:
    sandbox.hand_over()
    taken: dict[str, int] = {}

    def on_line(line: str) -> None:
        if line.startswith("TOOK "):
            _, pid, number = line.split()
            taken[pid] = int(number)

    began = time.monotonic()
    try:
        environment = {MARKER: request["work"]}
        done = sandbox.run(request["words"], environment=environment, on_line=on_line)
        ended = Ended(done.returncode, done.output[-MOST:], done.stderr[-MOST:], "", 0.0, 0, 0)
    except InfraError as error:
        ended = Ended(-1, "", "", str(error), 0.0, 0, 0)
    seconds, took = time.monotonic() - began, sum(taken.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps(asdict(replace(ended, seconds=seconds, took=took, memory=memory))))


if __name__ == "__main__":
    main()
