# SPDX-License-Identifier: GPL-2.0-only
"""Run the commands of docs/tutorial.md as a reader does: in one shell, in their order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import toy

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/tutorial.md"
#: What stands between the outputs of two commands.
_MARK = "\x1e"


@dataclass
class Command:
    """A command of the page.

    :ivar code: the exit code that the page says it has.
    :ivar printed: lines that the page says it prints, or what they begin with.
    """

    text: str
    code: int = 0
    printed: list[str] = field(default_factory=list)


def commands(page: Path = PAGE) -> list[Command]:
    """Return the commands of a page."""
    found: list[Command] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                text, _, code = line[2:].partition("   # exit code ")
                found.append(Command(text, int(code or 0)))
            else:
                found[-1].printed.append(line)
    return found


def make_checkout(root: Path) -> None:
    """Give a project what the page wants of a checkout: its own Python, and git."""
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={shlex.quote(str(programs))}:$PATH\n")
    for name, words in {
        "iommuq": ["iommuq"],
        "pytest": ["pytest", "-p", "iommuq.cli.pytest_plugin"],
    }.items():
        path = programs / name
        argv = shlex.join([sys.executable, "-m", *words])
        path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/tools exec {argv} "$@"\n')
        path.chmod(0o755)
    (root / ".gitignore").write_text("*\n!patches/\n!patches/**\n")
    toy.git("init", "--quiet", "--template=", cwd=root)
    toy.commit_all(root, "A checkout")


def follow(root: Path, environment: Mapping[str, str], limit: float) -> list[tuple[Command, str]]:
    """Run all commands of the page in a project, and return what each printed.

    :param limit: seconds for all of them.
    """
    there_are = commands()
    lines = ["exec 2>&1 </dev/null"]
    for command in there_are:
        lines += [command.text, f"printf '{_MARK}%d{_MARK}' $?"]
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        cwd=root,
        env={**os.environ, **environment, "IOMMUQ_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    parts = done.stdout.split(_MARK)
    assert len(parts) == 2 * len(there_are) + 1, done
    outputs = parts[0:-1:2]
    for command, output, code in zip(there_are, outputs, parts[1::2], strict=True):
        assert int(code) == command.code, f"$ {command.text}\n{output}"
        for line in command.printed:
            assert line in output, f"$ {command.text}\n{output}\nlacks {line!r}"
    return list(zip(there_are, outputs, strict=True))
