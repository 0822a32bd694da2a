# SPDX-License-Identifier: GPL-2.0-only
"""Run b4 in a work tree: its commands, and the functions that no command gives access to.

b4 reads the user's own configuration of git, as people who use it expect.  It runs in a
process of its own, because it ends the process where it fails.  ``b4 send`` is never run:
what it does up to the sending is done by `iommuq.mail.b4side`, without a network.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iommuq.system.errors import CommandFailed, CommandTimeout, InfraError, IommuqError, UserError
from iommuq.system.progress import one_line
from iommuq.system.run import Completed, run

#: Seconds for one command; the slowest ask servers.
LIMIT = 600.0
#: Seconds that an archive may take.
PATIENCE = 120.0

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Without -P the modules of whatever lies in the work tree would come first.
_PYTHON = (sys.executable, "-P", "-m")
_ERRORS = {each.__name__: each for each in (UserError, InfraError)}


def b4(
    *words: str | Path,
    cwd: Path,
    added: Sequence[tuple[str, str]] = (),
    check: bool = True,
    timeout: float = LIMIT,
) -> Completed:
    """Run a command of b4, without a network.

    :param added: variables for git's configuration, besides those that the user has.
    :raises UserError: it refused, and *check* is set.
    """
    if words[0] == "send":
        raise ValueError("b4 does not send by itself here")
    env = {"GIT_CONFIG_COUNT": str(len(added))} if added else {}
    for number, (name, value) in enumerate(added):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    argv = [*_PYTHON, "b4.command", "-n", "--no-stdin", "--offline-mode", *words]
    done = run(argv, cwd=cwd, env=env, check=False, timeout=timeout, watched=True)
    if done.returncode != 0 and check:
        raise UserError(f"b4 {words[0]}: {complaint(done)}")
    return done


def complaint(done: Completed) -> str:
    """Return what b4 complained of, in one line."""
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
) -> dict[str, Any]:
    """Run one of the operations of `iommuq.mail.b4side` in a work tree.

    :param data: what it is given.
    :return: what it answers.
    :raises IommuqError: what it raised.
    """
    task = {
        "operation": operation,
        "data": dict(data or {}),
        "config": dict(config or {}),
        "network": network,
    }
    argv = [*_PYTHON, "iommuq.mail.b4side"]
    try:
        done = run(
            argv, cwd=cwd, stdin=json.dumps(task), check=False, timeout=timeout, watched=True
        )
    except CommandTimeout as error:
        raise InfraError(f"b4 did not end within {timeout:g} s", hint=error.hint) from error
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
    """Return what b4 said, line by line, without colours and fit for a terminal."""
    text = _COLOUR.sub("", done.stderr + done.output)
    return ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
