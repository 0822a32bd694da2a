# SPDX-License-Identifier: GPL-2.0-only
"""Try attacks from inside of a sandbox: each in a process of its own, with a time limit.

Copied into the sandbox, where it has Python's library alone.  It reads ``attacks.json`` and
prints one line of JSON for each attack.  The programs of the attacks see the public names below.
System calls are made by number, so that a refusal is the kernel's and not a missing tool's.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_CHUNK = 1 << 16

#: Names and numbers of system calls, and what the attacks aim at.
NUMBERS: dict[str, int] = {}
T: dict[str, Any] = {}
_errnos: set[str] = set()


class Escaped(Exception):
    """The attack reached what it must not."""


def escaped(*words: object) -> NoReturn:
    """Say what the attack reached."""
    raise Escaped(" ".join(map(str, words)))


def call(name: str, *arguments: Any) -> int:
    """Make a system call; OSError if the kernel refuses."""
    ctypes.set_errno(0)
    fixed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(NUMBERS[name]), *fixed))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def refused(error: OSError) -> None:
    """Note a refusal, and go on."""
    _errnos.add(errno.errorcode.get(error.errno or 0, str(error)))


def each(function: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Call a function with each item; refusals are noted."""
    for item in items:
        try:
            function(item)
        except OSError as error:
            refused(error)


def must_fail(name: str, *arguments: Any) -> None:
    """Make a system call that must be refused."""
    escaped(name, "gave", call(name, *arguments))


def put(folder: str) -> None:
    """Make a file in a directory."""
    path = os.path.join(folder, T["mark"])  # noqa: PTH118
    with open(path, "w") as file:  # noqa: PTH123
        file.write("evil")
    escaped("made", path)


def steal(path: str) -> None:
    """Read a file that must not be readable."""
    with open(path, "rb") as file:  # noqa: PTH123
        escaped("read", path, file.read(20))


def look(path: str) -> None:
    """Read a file that must not contain the secret."""
    with open(path, "rb") as file:  # noqa: PTH123
        if T["canary"].encode() in file.read(1 << 20):
            escaped("the secret is in", path)


def alter(path: str) -> None:
    """Open a file for writing, and change nothing."""
    os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))
    escaped("can write", path)


def processes() -> Iterator[int]:
    """Yield the ids of all processes that can be seen, except ours."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


def buffer(size: int = 4096) -> Any:
    """Return memory for a system call."""
    return ctypes.create_string_buffer(size)


def _attempt(attack: dict[str, Any], answer: int) -> NoReturn:
    """Be the process of one attack."""
    os.setsid()
    found: dict[str, Any] = {"escaped": "", "crashed": ""}
    try:
        exec(compile(attack["python"], attack["id"], "exec"), globals())
    except Escaped as error:
        found["escaped"] = str(error)
    except OSError as error:
        refused(error)
    except BaseException as error:
        found["crashed"] = f"{type(error).__name__}: {error}"
    found["errnos"] = sorted(_errnos)
    os.write(answer, json.dumps(found).encode())
    os._exit(0)


def _run(attack: dict[str, Any], seconds: float) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _attempt(attack, writing)
    os.close(writing)
    said, deadline, late = b"", time.monotonic() + seconds, False
    while True:
        if not select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            late = True
            break
        piece = os.read(reading, _CHUNK)
        said += piece
        if not piece:
            break
    os.close(reading)
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        found = json.loads(said)
    except ValueError:
        found = {"escaped": "", "crashed": "", "errnos": []}
        if late:
            found["crashed"] = f"not done after {seconds:g} s"
        else:
            found["errnos"] = [signal.Signals(-status).name if status < 0 else f"exit {status}"]
    return {"id": attack["id"], **found}


def main() -> None:
    """Try every attack of ``attacks.json`` in the working directory."""
    request = json.loads(Path("attacks.json").read_text())
    NUMBERS.update(request["numbers"])
    T.update(request["targets"])
    T["descriptors"] = {name: _target(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
    for attack in request["attacks"]:
        print(json.dumps(_run(attack, attack.get("seconds", 5.0))), flush=True)


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
    except OSError:
        return ""


if __name__ == "__main__":
    main()
