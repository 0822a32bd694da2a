# SPDX-License-Identifier: GPL-2.0-only
"""Run every command of the command line under cheap faults of the machine, each in a fork.

Run as a program: it imports the commands once, and prints a line of JSON for each run.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import click

#: Seconds of one run.
LIMIT = 30
#: Not run: each takes minutes, or waits for something.
LEFT_OUT = {"bench", "mutate", "prove", "firmware run"}
#: Commands with more words than they must have.
MORE = {"queue check": ["--quick"]}
#: Faults also for a command that is refused with the words that it gets here.
ALWAYS = ("none", "closed", "no git")


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Yield the words of each command, with the arguments that it must have."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = (*words, name)
        if isinstance(command, click.Group):
            yield from commands(command, path)
        elif " ".join(path) not in LEFT_OUT:
            must = [each for each in command.params if each.required]
            given = [
                word
                for each in must
                for word in (*(each.opts[:1] if isinstance(each, click.Option) else ()), "toy")
            ]
            if any(each.name == "base" for each in command.params if each not in must):
                given.append("toy")
            yield [*path, *given, *MORE.get(" ".join(path), [])]


def _unread() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def _full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def _close() -> None:
    for number in (0, 1):
        os.close(number)
    # What the interpreter does if it finds them closed.
    sys.stdin = sys.stdout = None


FAULTS: Mapping[str, Callable[[], object]] = {
    "none": lambda: None,
    "closed": _close,
    "unread": _unread,
    "full": _full,
    "umask": lambda: os.umask(0o777),
    "no git": lambda: os.environ.update(PATH="/nonexistent"),
    "no cache": lambda: os.environ.update(IOMMUQ_CACHE_DIR="/dev/null/cache"),
    "no state": lambda: os.environ.update(IOMMUQ_STATE_DIR="/dev/null/state"),
    "few files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12)),
}


def _child(words: list[str], fault: Callable[[], object], said: Path) -> NoReturn:
    from iommuq.cli.completion import PROGRAM, VARIABLE
    from iommuq.cli.main import cli, run

    signal.alarm(LIMIT)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["iommuq", *words]
    fault()
    if sys.stdout is not None:
        # Made for another file than it is now.
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    run(cli, PROGRAM, VARIABLE)


def main(folder: Path) -> None:
    """Run all commands under all faults; standard error goes into files of *folder*."""
    from iommuq.cli.main import cli

    said = folder / "said"
    for words in commands(cli):
        code = 0
        for name, fault in FAULTS.items():
            if code == 2 and name not in ALWAYS:
                continue
            child = os.fork()
            if child == 0:
                try:
                    _child(words, fault, said)
                except SystemExit as end:
                    sys.stdout = sys.stderr = None
                    os._exit(end.code if isinstance(end.code, int) else 99)
                except BaseException:
                    os.write(2, traceback.format_exc().encode())
                finally:
                    os._exit(98)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            code = ended if name == "none" else code
            text = said.read_text(errors="replace")
            print(json.dumps([" ".join(words), name, ended, text]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
