# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq bench``."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.queue.steps import checkout
from iommuq.system import files, progress
from iommuq.system.git.objects import Objects
from iommuq.system.run import failure, run
from iommuq.system.temporary import temporary_folder


@click.command()
@options.base
def bench(base: str) -> None:
    """Measure iommuq against kunit.py on BASE; takes fifteen minutes."""
    workspace = Workspace.open(base)
    history = files.state_dir() / HISTORY
    earlier = earlier_ratios(history, base)
    found = measure(workspace)
    for line in table(found, earlier):
        print(line)
    record = {
        "time": time.time(),
        "base": base,
        "version": workspace.base.version,
        "measures": {item.name: [item.ours, item.theirs] for item in found},
    }
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"history: {history}")


HISTORY = "bench.jsonl"
#: Rounds of a short measurement; the best one counts.
ROUNDS = 3
#: Numbers of further patches in the queue.
GROWTH = (1, 2, 4, 8, 16)
#: Time limit of one measurement in seconds.
_LIMIT = 3600.0
#: A ratio above this multiple of the earlier one is a slow-down.
_SLOWER = 1.3
#: Operations a second of one guest.
_RATE = 2000.0
#: Steps per second that are promised on a machine of QEMU under TCG, of a light kernel.
_STEP_RATE = 15.0
_FILE = "drivers/iommu/iommu.c"
#: Printed by kunit.py after the results.
_TESTED = "Testing complete."


@dataclass(frozen=True)
class Measure:
    """One comparison.

    :ivar ours: seconds with iommuq, including the start of the process.
    :ivar theirs: seconds with ``kunit.py run``, or with make.
    :ivar goal: limit of the ratio; None without one.
    :ivar limit: limit of *ours* in seconds; None without one.
    """

    name: str
    ours: float
    theirs: float
    goal: float | None = None
    limit: float | None = None

    @property
    def ratio(self) -> float:
        """*ours* divided by *theirs*."""
        return self.ours / self.theirs

    @property
    def wanted(self) -> str:
        """The goal as text."""
        if self.goal is not None:
            return f"{self.goal:.2f}"
        return "" if self.limit is None else f"{self.limit:g} s"


@dataclass(frozen=True)
class _Site:
    """A separate cache with a tree, and a copy of the project."""

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
        return self._time(argv, "KUnit on ", cwd=self.project)

    def matrix(self) -> float:
        """Run ``iommuq run`` and return the seconds it took."""
        argv = [sys.executable, "-m", "iommuq", "--quiet", "run", self.base]
        return self._time(argv, f": {self.base}: ", cwd=self.project)

    def by_hand(self) -> float:
        """Run make and the suites without iommuq, and return the seconds it took."""
        jobs = len(os.sched_getaffinity(0)) + 1
        make = ["make", "-s", "ARCH=um", f"O={self.objects}", f"-j{jobs}"]
        tests = [sys.executable, "tools/testing/kunit/kunit.py", "exec"]
        return self._time(make, "", cwd=self.tree) + self._time(
            [*tests, "--build_dir", str(self.objects), "iommu_*"], _TESTED, cwd=self.tree
        )

    def theirs(self) -> float:
        """Run ``kunit.py run`` with its default configuration and return the seconds it took."""
        argv = [sys.executable, "tools/testing/kunit/kunit.py", "run"]
        words = [*argv, "--build_dir", str(self.objects), "iommu_*"]
        return self._time(words, _TESTED, cwd=self.tree)

    def _time(self, argv: list[str], said: str, cwd: Path) -> float:
        """Run a command that prints *said* at its end, and return the seconds it took."""
        begin = time.monotonic()
        done = run(
            argv,
            cwd=cwd,
            env=self.environment,
            log_path=self.log,
            timeout=_LIMIT,
            check=False,  # kunit.py fails with known failures
            watched=True,
        )
        seconds = time.monotonic() - begin
        if done.returncode not in (0, 1) or said not in done.output:
            raise failure(done, log_path=self.log)
        return seconds

    def touch_ours(self) -> None:
        """Change a line of iommu.c."""
        path = self.project / "kunit/overlay.toml"
        old = "append = '''\n"
        path.write_text(path.read_text().replace(old, f"{old}/* {time.time_ns()} */\n", 1))

    def touch_theirs(self) -> None:
        """Touch iommu.c."""
        os.utime(self.tree / _FILE)

    def add_patches(self, text: str, first: int, last: int) -> None:
        """Add the patches *first* to *last*, each of which changes a line of iommu.c.

        :param text: the file with the queue applied.
        """
        folder = self.project / "patches" / self.base
        (folder / "bench").mkdir(exist_ok=True)
        series = folder / "series"
        for number in range(first, last + 1):
            name = f"bench/{number:04}-bench-line.patch"
            (folder / name).write_text(synthetic_patch(text, number), encoding="utf-8")
            series.write_text(f"{series.read_text(encoding='utf-8')}{name}\n", encoding="utf-8")


@contextmanager
def _site(workspace: Workspace) -> Iterator[_Site]:
    """Unpack the sources twice; nothing is built."""
    name = workspace.base.spec.name
    cache = files.cache_dir()
    with temporary_folder("bench", cache) as home:
        (home / "cache").mkdir()
        (home / "cache/bases").symlink_to(cache / "bases")
        project = home / "project"
        for part in ("patches", "kunit", "explore"):
            shutil.copytree(workspace.root / part, project / part)
        trees = home / "cache/trees" / name
        trees.mkdir(parents=True)
        tree = workspace.step(None).tree
        with progress.task("Unpacking the sources twice"):
            checkout(workspace.base, tree, trees / "src")
            checkout(workspace.base, tree, home / "tree")
        environment = {
            "IOMMUQ_CACHE_DIR": str(home / "cache"),
            "IOMMUQ_STATE_DIR": str(home / "state"),
            "IOMMUQ_ROOT": str(project),
            "MAKEFLAGS": "",
            # Both sides may keep compiled modules.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        log = files.new_log(f"bench-{name}")
        yield _Site(name, home / "tree", trees / "src", project, environment, home / "kunit", log)


def synthetic_patch(text: str, number: int) -> str:
    """Return a patch that adds a comment below the first line of a file.

    :param text: the file before the first of these patches.
    :param number: its number, from 1; it applies on top of the ones before.
    """
    first, second = text.split("\n")[:2]
    below = second if number == 1 else f"/* Bench {number - 1} */"
    return (
        f"From {number:040} Mon Sep 17 00:00:00 2001\n"
        "From: Bench <bench@example.org>\n"
        "Date: Thu, 1 Jan 1970 00:00:00 +0000\n"
        f"Subject: [PATCH] bench: Add line {number}\n\nFor a measurement.\n---\n\n"
        f"diff --git a/{_FILE} b/{_FILE}\n--- a/{_FILE}\n+++ b/{_FILE}\n"
        f"@@ -1,2 +1,3 @@\n {first}\n+/* Bench {number} */\n {below}\n-- \n2.39.0\n\n"
    )


def _best(measure: Callable[[], float], touch: Callable[[], None] = lambda: None) -> float:
    """Return the shortest time of some rounds, with *touch* before each."""
    times = []
    for _ in range(ROUNDS):
        touch()
        times.append(measure())
    return min(times)


def measure(workspace: Workspace) -> list[Measure]:
    """Return all measurements; takes about forty minutes on two cores."""
    found = []
    with temporary_folder("bench") as folder:
        objects = Objects(workspace.base.git_dir, folder)
        text = (objects.read_file(workspace.step(None).commit, _FILE) or b"").decode()
    with _site(workspace) as site:
        # Read both trees from the disk before the first measurement.
        for tree in (site.tree, site.work):
            run(["grep", "-rqs", "no such text", "."], cwd=tree, timeout=_LIMIT, check=False)
        with progress.task("Cold, iommuq", log=site.log):
            ours = site.ours()
        with progress.task("Cold, kunit.py", log=site.log):
            theirs = site.theirs()
        found.append(Measure("cold", ours, theirs, 0.7))

        with progress.task("iommu.c changed", log=site.log):
            ours = _best(site.ours, site.touch_ours)
            theirs = _best(site.theirs, site.touch_theirs)
            found.append(Measure("iommu.c changed", ours, theirs, 0.6))
        with progress.task("Nothing changed", log=site.log):
            ours, theirs = _best(site.ours), _best(site.theirs)
            found.append(Measure("nothing changed", ours, theirs, limit=1.0))
        found += _queue(workspace, site, text, cold=found[0])
    with progress.task("Exploring"):
        found.append(_explore(workspace.base.spec.name))
        name = workspace.base.spec.name
        found.append(_explore_driver(name, "light", 1.0, "--light"))
        found.append(_explore_driver(name, "checked", None))
    return found


def _explore(base: str) -> Measure:
    """Measure 1000 operations of an exploration against the rate that is promised."""
    end = _explored(base, "--for", "30s")[-1]
    return Measure(
        "explore, 1000 ops", 1000 * end["seconds"] / end["operations"], 1000 / _RATE, 1.0
    )


def _explore_driver(base: str, kernel: str, goal: float | None, *words: str) -> Measure:
    """Measure 100 steps on a machine of QEMU, after its boot, against the promised rate."""
    events = _explored(
        *(base, "--for", "60s", "--on", "q35-intel", "--layout", "mixed", "--only", "nothing"),
        *words,
    )
    first = next(event for event in events if event.get("operations"))
    last = events[-1]
    seconds, steps = (last[key] - first[key] for key in ("seconds", "operations"))
    ours = 100 * seconds / max(1, steps)
    return Measure(f"explore, 100 steps, {kernel}", ours, 100 / _STEP_RATE, goal)


def _explored(*words: str) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "iommuq", "explore", *words, "--seed", "1", "--empty", "--json"]
    done = run(argv, cwd=files.project_root(), timeout=_LIMIT, check=False, watched=True)
    events = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    if not events or not events[-1].get("operations"):
        raise failure(done)
    return events


def _queue(workspace: Workspace, site: _Site, text: str, cold: Measure) -> Iterator[Measure]:
    """Measure the whole queue, and the cost of further patches."""
    steps = len(workspace.queue.steps)
    with progress.task("The whole queue", log=site.log):
        # The last step from scratch, then the other steps.
        ours = cold.ours + site.matrix()
        # Not measured: from scratch each step takes as long as the last.
        theirs = cold.theirs * steps
        yield Measure(f"{steps} steps", ours, theirs, 0.25)
        ours = _best(site.matrix)
        yield Measure(f"{steps} steps, again", ours, theirs, limit=2.0)
    with progress.task("A further patch", log=site.log):
        hand = _best(site.by_hand, site.touch_theirs)
        known = 0
        for count in GROWTH:
            site.add_patches(text, known + 1, count)
            seconds = site.matrix() / (count - known)
            known = count
            yield Measure(f"one more, of {count}", seconds, hand, 1.3)


def table(found: Sequence[Measure], earlier: Mapping[str, float]) -> Iterator[str]:
    """Yield the lines of the table.

    :param earlier: the earlier ratios, by name.
    """
    yield f"{'':<20}{'iommuq':>10}{'without':>10}{'ratio':>8}{'goal':>8}{'before':>8}"
    for item in found:
        before = earlier.get(item.name)
        shown = "" if before is None else f"{before:.2f}"
        line = f"{item.name:<20}{item.ours:>8.1f} s{item.theirs:>8.1f} s{item.ratio:>8.2f}"
        line += f"{item.wanted:>8}{shown:>8}"
        slower = before is not None and item.ratio > before * _SLOWER
        yield (line + ("  slower than before" if slower else "")).rstrip()


def earlier_ratios(history: Path, base: str) -> dict[str, float]:
    """Return the median of all earlier ratios of a base, by name; malformed lines are ignored."""
    ratios: dict[str, list[float]] = {}
    try:
        lines = history.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            record = json.loads(line)
            if record["base"] != base:
                continue
            each = {
                str(name): float(ours) / float(theirs)
                for name, (ours, theirs) in record["measures"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
            continue
        for name, ratio in each.items():
            ratios.setdefault(name, []).append(ratio)
    return {name: statistics.median(values) for name, values in ratios.items()}
