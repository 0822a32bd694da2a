# SPDX-License-Identifier: GPL-2.0-only
"""The tables of the checks: subject prefixes, external programs, answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from iommuq.bases.providers.job import Table, require
from iommuq.system import tables

#: Answers to what the checks of a queue find, next to its series.
ANSWERS = "checks.toml"


@dataclass(frozen=True)
class Prefix(Table):
    """What subjects begin with that change files under a path.

    :ivar also: other prefixes that are as good.
    """

    path: str
    prefix: str
    also: list[str]

    @property
    def all(self) -> set[str]:
        """All that are good."""
        return {self.prefix, *self.also}


@dataclass(frozen=True)
class Program(Table):
    """A check that is a program.

    :ivar name: of the check; of several in a row with the same name, the first counts
        whose *files* the tree has.
    :ivar argv: ``{mail}`` is the patch, ``{said}`` the same with nothing but the message
        and the lines that it adds, ``{root}`` a directory with *files* in it, ``{path}``
        each of the files that the patch changes.
    :ivar needs: programs it cannot do without.
    :ivar files: files of the tree that it needs, or directories with a slash at the end.
    :ivar each: it is run for every file that the patch changes and leaves, of this form.
    :ivar fail: a line of its output that fails; the others that match *warn* warn.
    :ivar ignore: lines that say nothing.
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
    """Why something that a check says is as it should be.

    :ivar patch: the patch's name in the series file, or the section; ``*`` for all.
    :ivar text: a part of what the check says.
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
        return tables.load(_Document, path)


def load_prefixes() -> list[Prefix]:
    """Return the prefixes, the longest path first."""
    return sorted(_document().prefix, key=lambda rule: -len(rule.path))


def load_programs() -> list[Program]:
    """Return the programs."""
    return _document().program


def load_answers(folder: Path) -> list[Answer]:
    """Return the answers for a queue.

    :param folder: ``patches/<base>``.
    :raises UserError: the file is malformed.
    """
    path = folder / ANSWERS
    return tables.load(_Answers, path).answer if path.exists() else []
