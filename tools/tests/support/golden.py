# SPDX-License-Identifier: GPL-2.0-only
"""What tools print when they fail, from ``data/golden-logs.toml``, and tools that print it."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

_DATA = Path(__file__).parents[1] / "data/golden-logs.toml"


@dataclass(frozen=True)
class Log:
    """How a tool failed.

    :ivar said: what it printed; ``{source}`` is the tree.
    :ivar status: its exit status, or a signal below 0.
    :ivar code: the exit code that iommuq has to end with.
    :ivar words: a regular expression that is in the error.
    :ivar kind: the type of the error; empty for any.
    """

    tool: str
    said: str
    status: int
    code: int
    words: str = ""
    kind: str = ""


def of(tool: str) -> list[Log]:
    """Return the logs of a tool."""
    data = tomllib.loads(_DATA.read_text("utf-8"))
    return [Log(**entry) for entry in data["log"] if entry["tool"] == tool]


def stand_in(name: str, folder: Path, log: Log, *, when: str = "true") -> Path:
    """Make a program that fails as a log says where *when* is true, and is the real one else.

    :return: a file with a line for each time that it failed.
    """
    real, calls, said = shutil.which(name), folder / "calls", folder / "said"
    assert real
    said.write_text(log.said, encoding="utf-8")
    end = f"exit {log.status}" if log.status >= 0 else f"kill {log.status} $$"
    program = folder / name
    program.write_text(
        f'#!/bin/sh\n{when} || exec {real} "$@"\necho x >>{calls}\ncat {said} >&2\n{end}\n'
    )
    program.chmod(0o755)
    return calls
