# SPDX-License-Identifier: GPL-2.0-only
"""Limits, rights, an odd environment and tools that fail: none of them is a verdict."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import golden
import toykernel
from toykernel import BASE, Done, Project

pytestmark = pytest.mark.hostile

#: One step, and what is printed of it if all is well.
ONE = ("kunit", BASE, "--at", "0001")
GOOD = "PASS: toy 0001: 4 pass, 1 skipped, 1 known\n"


@pytest.mark.parametrize(
    ("limit", "most"),
    [("nofile", 6), ("nofile", 12), ("as", 20 << 20), ("as", 60 << 20), ("fsize", 4096)],
)
def test_limit(cold: Project, limit: str, most: int) -> None:
    """None is a verdict, and with the limit gone the same directories are as good as new ones."""
    done = limited(cold, ["prlimit", f"--{limit}={most}"])
    assert done.code == 3, done
    assert len(done.err.splitlines()) < 10
    assert GOOD in cold.run(*ONE).out


def limited(project: Project, before: list[str], *words: str) -> Done:
    """Run iommuq by another program."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "iommuq", *(words or ONE)],
        env=project.environment,
        cwd=project.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=toykernel.PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def as_user(*capabilities: str) -> list[str]:
    """Return what runs a program without the rights of root, but for some capabilities."""
    if os.geteuid() != 0:
        return []
    if not capabilities:
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    kept = ",".join(f"+{each}" for each in capabilities)
    user = ["--reuid=61234", "--regid=61234", "--clear-groups"]
    return ["setpriv", *user, f"--inh-caps={kept}", f"--ambient-caps={kept}"]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_few_processes(cold: Project, most: int) -> None:
    before = [*as_user("dac_override"), "prlimit", f"--nproc={most}"]
    done = limited(cold, before)
    assert done.code == 3, done
    assert re.search("Resource temporarily unavailable|start new thread", done.err)


@pytest.mark.parametrize("umask", ["777", "277", "077"])
def test_umask(cold: Project, umask: str) -> None:
    before = [*as_user(), "sh", "-c", f'umask {umask}; exec "$@"', "sh"]
    assert GOOD in limited(cold, before).out


@pytest.mark.parametrize("place", ["cache", "state"])
def test_place_without_rights(warm: Project, place: str) -> None:
    (warm.root / place).chmod(0o500)
    again = ("clean", "--all") if place == "cache" else ("kunit", BASE, "--again")
    done = limited(warm, as_user(), *again)
    (warm.root / place).chmod(0o000)
    other = limited(warm, as_user(), *ONE)
    (warm.root / place).chmod(0o700)
    assert other.code == 3, other
    assert str(warm.root / place) in other.err
    assert done.code in (0, 3), done


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", "C", "bogus"])
def test_locale(cold: Project, locale: str) -> None:
    assert GOOD in cold.run(*ONE, LC_ALL=locale, LANG=locale).out


def test_no_path_and_no_home(cold: Project) -> None:
    done = cold.run(*ONE, PATH="")
    assert done.code == 3
    assert done.err.startswith("iommuq: git is not installed\n")
    # make has no default for it, as others have.
    done = limited(cold, ["env", "-u", "PATH"])
    assert (done.code == 3 and "is not installed" in done.err) or GOOD in done.out
    assert GOOD in limited(cold, ["env", "-u", "HOME", "TMPDIR=/none"]).out


# What tools print when they fail: data/golden-logs.toml.


@pytest.mark.parametrize("log", golden.of("make")[::3], ids=lambda log: log.said[:40])
def test_compiler_that_fails(cold: Project, log: golden.Log) -> None:
    """A third of the table shows that the command goes by it."""
    shelf = cold.root / "shelf"
    shelf.mkdir()
    golden.stand_in("gcc", shelf, log, when="case $* in *iommu.c*) ;; *) false ;; esac")
    done = cold.run(*ONE, PATH=f"{shelf}:{os.environ['PATH']}")
    assert done.code == log.code, done


@pytest.mark.parametrize("log", golden.of("git apply"), ids=lambda log: log.said[:40])
def test_git_apply_that_fails(cold: Project, log: golden.Log) -> None:
    shelf = cold.root / "shelf"
    shelf.mkdir()
    golden.stand_in("git", shelf, log, when='case "$*" in *"apply --cached"*) ;; *) false ;; esac')
    done = cold.run("queue", "apply", BASE, PATH=f"{shelf}:{os.environ['PATH']}")
    assert done.code == log.code, done
