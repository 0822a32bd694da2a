# SPDX-License-Identifier: GPL-2.0-only
"""The tables of the checks: subject prefixes, external programs, answers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from iommuq.system import tables
from iommuq.system.tables import Table, require

#: The file with answers to findings, next to the series file.
ANSWERS = "checks.toml"


@dataclass(frozen=True)
class Prefix(Table):
    """The prefix of subjects for files under a path; *also*: other valid prefixes."""

    path: str
    prefix: str
    also: list[str]

    @property
    def all(self) -> set[str]:
        """All valid prefixes."""
        return {self.prefix, *self.also}


@dataclass(frozen=True)
class Program(Table):
    """A check that is a program.

    :ivar name: of the check; of several with one name, the first whose *files* exist runs.
    :ivar argv: ``{mail}`` is the patch, ``{said}`` the patch with only its message and added
        lines, ``{root}`` a directory with *files*, ``{path}`` each file that the patch changes.
    :ivar fail: pattern of lines that fail; others that match *warn* warn.
    :ivar ignore: pattern of lines to ignore.
    :ivar each: run it for each changed file that matches this pattern.
    :ivar files: files of the tree that it needs, or directories with a slash at the end.
    """

    name: str
    title: str
    argv: list[str]
    needs: list[str]
    fail: str
    warn: str
    ignore: str = ""
    each: str = ""
    files: list[str] | None = None

    def __post_init__(self) -> None:
        for pattern in (self.fail, self.warn, self.ignore, self.each):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern}: {error}") from error
        require(self.argv, "argv is empty")


@dataclass(frozen=True)
class Answer(Table):
    """The reason why a finding is correct.

    :ivar patch: the patch's name in the series file, or the section; ``*`` for all.
    :ivar text: a part of the finding.
    """

    check: str
    patch: str
    text: str
    reason: str

    def __post_init__(self) -> None:
        require(self.reason.strip(), "reason is empty")
        require(self.text.strip(), "text is empty")


@dataclass(frozen=True)
class _Document(Table):
    prefix: list[Prefix]
    program: list[Program]


@dataclass(frozen=True)
class _Answers(Table):
    answer: list[Answer]


@cache
def _document() -> _Document:
    with resources.as_file(resources.files(__package__) / "checks.toml") as path:
        return tables.load_toml(_Document, path)


def load_prefixes() -> list[Prefix]:
    """Return the prefixes, the longest path first."""
    return sorted(_document().prefix, key=lambda rule: -len(rule.path))


def load_programs() -> list[Program]:
    """Return the programs, in the order of the file."""
    return _document().program


def load_answers(folder: Path) -> list[Answer]:
    """Return the answers for a queue.

    :param folder: ``patches/<base>``.
    :raises UserError: the file is malformed.
    """
    path = folder / ANSWERS
    return tables.load_toml(_Answers, path).answer if os.path.lexists(path) else []
