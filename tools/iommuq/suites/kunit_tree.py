# SPDX-License-Identifier: GPL-2.0-only
"""The tree's own KUnit suites: ``kunit/tree.toml``, and which of them a kernel has."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases import dotconfig
from iommuq.build.image import Image
from iommuq.results.store import Result, Status, Store, SuiteRun, new_id
from iommuq.suites.kunit import Subject
from iommuq.system import tables
from iommuq.system.errors import InfraError, os_errors_as
from iommuq.system.files import hash_of
from iommuq.system.tables import Table, require

SUITE = "kunit-tree"
#: The file, below the checkout.
PLACE = Path("kunit/tree.toml")
#: The result of a kernel without such suites.
NONE = "all"
NO_SUITE = "this kernel has no KUnit suite of drivers/iommu but those of this project"


@dataclass(frozen=True)
class Suite(Table):
    """Suites that one symbol builds.

    :ivar symbol: without ``CONFIG_``.
    :ivar filters: globs of their cases, one boot for each.
    :ivar slow: the same, of cases that take minutes.
    """

    symbol: str
    filters: tuple[str, ...]
    slow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(re.fullmatch(r"[A-Z0-9_]+", self.symbol), "symbol is no name of a symbol")
        require(self.filters, "filters is empty")


@dataclass(frozen=True)
class Tree(Table):
    """The suites of trees; *own* is the glob of those of this project."""

    own: str
    suite: tuple[Suite, ...]

    def built(self, image: Image) -> tuple[Suite, ...]:
        """Return the suites that are built in a kernel."""
        if not self.suite:
            return ()
        with os_errors_as(InfraError, image.folder, hint="remove that image"):
            options = dotconfig.parse((image.folder / ".config").read_text("utf-8"))
        return tuple(one for one in self.suite if options.get(one.symbol) == "y")

    def filters(self, image: Image, *, slow: bool) -> tuple[str, ...]:
        """Return the globs of all cases of the tree in a kernel, without or with the slow ones."""
        return tuple(
            glob
            for one in self.built(image)
            for glob in (*one.filters, *(one.slow if slow else ()))
        )


def load_tree(root: Path) -> Tree:
    """Read the file; without it no suite is known.

    :param root: the checkout of the project.
    :raises UserError: it is malformed.
    """
    path = root / PLACE
    return tables.load_toml(Tree, path) if path.exists() else Tree("", ())


def run_nothing(image: Image, subject: Subject, store: Store) -> SuiteRun:
    """Return the run of a kernel without such suites."""
    key = hash_of(SUITE, image.key)
    started = time.time()
    current = SuiteRun(
        new_id(started), subject.base, subject.patch, SUITE, key, subject.kernel,
        image.arch.guest, image.arch.accelerator, started,
    )  # fmt: skip
    store.begin(current)
    return store.finish(
        current, [Result(subject.base, subject.patch, SUITE, NONE, Status.SKIP, 0.0, NO_SUITE)]
    )
