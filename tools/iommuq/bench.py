# SPDX-License-Identifier: GPL-2.0-only
"""Measure iommuq against the kernel's own kunit.py: same tree, same machine, same hour.

Seconds mean little on a machine that others use, too; the ratios are what to look
at.  Each measurement goes into a history file, so that a slow-down is seen.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iommuq import dirs, logs, progress
from iommuq.run import run
from iommuq.workspace import Workspace
from iommuq.worktree import checkout

HISTORY = "bench.jsonl"
#: How often a short measurement is made; the best one counts.
ROUNDS = 3
#: Seconds that one measurement may take.
_LIMIT = 3600.0


@dataclass(frozen=True)
class Measure:
    """One comparison.

    :ivar ours: seconds that iommuq took, the start of the process included.
    :ivar theirs: seconds that ``kunit.py run`` took in the same state.
    :ivar goal: what the ratio should not be above; None if it is for seconds.
    """

    name: str
    ours: float
    theirs: float
    goal: float | None

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True)
class _Site:
    """A cache of its own with a checked out tree, and a project whose files may be changed."""

    base: str
    tree: Path
    work: Path
    project: Path
    environment: Mapping[str, str]
    objects: Path
    log: Path

    def ours(self) -> float:
        """Run ``iommuq kunit`` and return the seconds it took."""
        argv = [sys.executable, "-m", "iommuq", "--quiet", "kunit", self.base]
        return self._time([*argv], cwd=self.project)

    def theirs(self) -> float:
        """Run ``kunit.py run`` with its default configuration and return the seconds."""
        argv = [sys.executable, "tools/testing/kunit/kunit.py", "run"]
        return self._time([*argv, "--build_dir", str(self.objects), "iommu_*"], cwd=self.tree)

    def _time(self, argv: list[str], cwd: Path) -> float:
        begin = time.monotonic()
        run(
            argv,
            cwd=cwd,
            env=self.environment,
            log_path=self.log,
            timeout=_LIMIT,
            # Known failures make kunit.py fail, and are not what is measured.
            check=False,
            watched=True,
        )
        return time.monotonic() - begin

    def touch_ours(self, number: int) -> None:
        """Change a line of iommu.c, as a person would who works on a patch."""
        path = self.project / "kunit/overlay.toml"
        path.write_text(
            path.read_text().replace("append = '''\n", f"append = '''\n/* {number} */\n", 1)
        )

    def touch_theirs(self) -> None:
        """Make iommu.c look changed to make."""
        os.utime(self.tree / "drivers/iommu/iommu.c")


@contextmanager
def _site(workspace: Workspace) -> Iterator[_Site]:
    """Set up the two sides: sources unpacked, nothing built."""
    name = workspace.base.spec.name
    cache = dirs.cache_dir()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache) as folder:
        home = Path(folder)
        (home / "cache").mkdir()
        (home / "cache/bases").symlink_to(cache / "bases")
        project = home / "project"
        for part in ("patches", "kunit"):
            shutil.copytree(workspace.root / part, project / part)
        trees = home / "cache/trees" / name
        trees.mkdir(parents=True)
        tree = workspace.step(None).tree
        with progress.step("Unpacking the sources twice"):
            checkout(workspace.base, tree, trees / "src")
            checkout(workspace.base, tree, home / "tree")
        environment = {
            "IOMMUQ_CACHE_DIR": str(home / "cache"),
            "IOMMUQ_STATE_DIR": str(home / "state"),
            "IOMMUQ_ROOT": str(project),
            "MAKEFLAGS": "",
            # Both sides are Python, and may keep what they compiled.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        log = logs.new_log(f"bench-{name}")
        yield _Site(name, home / "tree", trees / "src", project, environment, home / "kunit", log)


def _best(measure: Callable[[int], float]) -> float:
    return min(measure(number) for number in range(ROUNDS))


def measure(workspace: Workspace) -> list[Measure]:
    """Make all measurements; takes about eight minutes on two cores."""
    found = []
    with _site(workspace) as site:
        # The first to run would pay for the other's reading from the disk, too.
        for tree in (site.tree, site.work):
            run(["grep", "-rqs", "no such text", "."], cwd=tree, timeout=_LIMIT, check=False)
        with progress.step("Cold, iommuq", log=site.log):
            ours = site.ours()
        with progress.step("Cold, kunit.py", log=site.log):
            theirs = site.theirs()
        found.append(Measure("cold", ours, theirs, 0.7))

        def ours_touched(number: int) -> float:
            site.touch_ours(number)
            return site.ours()

        def theirs_touched(_number: int) -> float:
            site.touch_theirs()
            return site.theirs()

        with progress.step("iommu.c changed", log=site.log):
            found.append(
                Measure("iommu.c changed", _best(ours_touched), _best(theirs_touched), 0.6)
            )
        with progress.step("Nothing changed", log=site.log):
            found.append(
                Measure(
                    "nothing changed",
                    _best(lambda _: site.ours()),
                    _best(lambda _: site.theirs()),
                    None,
                )
            )
    return found


def run_bench(base: str) -> None:
    """Measure, print the table, and add it to the history."""
    workspace = Workspace.open(base)
    found = measure(workspace)
    print(f"{'':<18}{'iommuq':>10}{'kunit.py':>10}{'ratio':>8}{'goal':>8}")
    for item in found:
        goal = "1 s" if item.goal is None else f"{item.goal:.2f}"
        print(f"{item.name:<18}{item.ours:>8.1f} s{item.theirs:>8.1f} s{item.ratio:>8.2f}{goal:>8}")
    record = {
        "time": time.time(),
        "base": base,
        "version": workspace.base.version,
        "measures": {item.name: [item.ours, item.theirs] for item in found},
    }
    history = dirs.state_dir() / HISTORY
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"history: {history}")
