# SPDX-License-Identifier: GPL-2.0-only
"""Run b4 in a work tree, in a process of its own, because it exits on errors.

``b4 send`` is never run: `iommuq.mail.b4side` makes the messages, without a network.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iommuq.system.errors import CommandFailed, CommandTimeout, InfraError, IommuqError, UserError
from iommuq.system.groups import Bounds
from iommuq.system.progress import one_line
from iommuq.system.run import Completed, exceeded, run

#: Seconds for one command.
LIMIT = 600.0
#: Seconds for an archive.
PATIENCE = 120.0

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Without -P, modules in the work tree would be imported first.
_PYTHON = (sys.executable, "-P", "-m")
_ERRORS = {each.__name__: each for each in (UserError, InfraError)}


def b4(
    *words: str | Path, cwd: Path, added: Sequence[tuple[str, str]] = (), check: bool = True
) -> Completed:
    """Run a command of b4, without a network.

    :param added: variables of git's configuration, added to the user's.
    :raises UserError: it failed, and *check* is set.
    """
    if words[0] == "send":
        raise ValueError("b4 send is not allowed")
    env = {"GIT_CONFIG_COUNT": str(len(added))} if added else {}
    for number, (name, value) in enumerate(added):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    argv = [*_PYTHON, "b4.command", "-n", "--no-stdin", "--offline-mode", *words]
    done = run(argv, cwd=cwd, env=env, check=False, timeout=LIMIT, watched=True)
    if done.returncode != 0 and check:
        raise UserError(f"b4 {words[0]}: {complaint(done)}")
    return done


def complaint(done: Completed) -> str:
    """Return the errors that b4 printed, in one line."""
    lines = [line.strip() for line in (done.stderr + done.output).splitlines() if line.strip()]
    bad = [line for line in lines if line.startswith(("CRITICAL", "ERROR"))]
    if not bad and lines:
        bad = lines[-1:]
    text = " ".join(bad).replace("CRITICAL: ", "").replace("CRITICAL", "")
    return one_line(text) or "failed"


def side(
    operation: str,
    *,
    cwd: Path,
    data: Mapping[str, Any] | None = None,
    config: Mapping[str, str] | None = None,
    network: bool = False,
    timeout: float = LIMIT,
    bounds: Bounds | None = None,
) -> dict[str, Any]:
    """Run one of the operations of `iommuq.mail.b4side` in a work tree.

    :param bounds: what it may use, where it reads mails of others.
    :return: its result.
    :raises IommuqError: the operation raised it.
    """
    task = {"operation": operation, "data": dict(data or {}), "config": dict(config or {})}
    argv = [*_PYTHON, "iommuq.mail.b4side"]
    text = json.dumps({**task, "network": network})
    try:
        options: dict[str, Any] = {"timeout": timeout, "watched": True, "bounds": bounds}
        done = run(argv, cwd=cwd, stdin=text, check=False, **options)
    except CommandTimeout as error:
        raise InfraError(f"b4 did not finish within {timeout:g} s", hint=error.hint) from error
    if bounds is not None and (why := exceeded(done)):
        raise UserError(f"b4 {operation}: {why}", hint="or the machine is short of memory")
    try:
        answer = json.loads(done.output.splitlines()[-1])
    except (ValueError, IndexError):
        if done.stderr:
            raise UserError(f"b4: {complaint(done)}") from None
        raise CommandFailed(f"b4 {operation}: no answer", output=done.output) from None
    if "error" in answer:
        kind: type[IommuqError] = _ERRORS.get(str(answer["error"]["kind"]), InfraError)
        raise kind(str(answer["error"]["what"]), hint=str(answer["error"]["hint"]))
    result: dict[str, Any] = answer["result"]
    return result


def lines_of(done: Completed) -> list[str]:
    """Return the lines that b4 printed, without colours and control characters."""
    text = _COLOUR.sub("", done.stderr + done.output)
    return ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
