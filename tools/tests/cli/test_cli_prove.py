# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq prove` as a process, on the toy kernel."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

import toykernel
from toykernel import BASE, IOMMU_C, Done, Project, wait_for
from toyproof import GOOD, PROOF

#: How often a run is killed, each time somewhere else.
KILLS = 8


@pytest.fixture
def warm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has run its queue, and says what proves it."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=True)
    (project.root / PROOF).write_text(GOOD)
    return project


def prove(project: Project, *words: str) -> Done:
    return project.run("prove", BASE, "--suite", "kunit", *words)


def test_promises_that_are_kept(warm: Project) -> None:
    done = prove(warm)
    assert done.code == 0, done
    assert done.out.endswith("PASS: toy: 6 tests at 3 steps\n")
    # `iommuq run` has run them.
    assert warm.trace == []


def test_patch_without_its_hunk_is_named(warm: Project) -> None:
    """What the patch is for is taken out; it still builds, and changes something."""
    patch = warm.root / f"patches/{BASE}/resv/0001-toy-refuse-to-block.patch"
    patch.write_text(patch.read_text().replace("+\treturn -22;", "+\treturn 0 + 0;"))
    later = warm.root / f"patches/{BASE}/resv/0002-toy-drop-the-check.patch"
    later.write_text(later.read_text().replace("return -22;", "return 0 + 0;"))
    done = prove(warm)
    assert done.code == 1, done
    promised = "0001: does not fix kunit.toy_domain.block_refused: failed before, failed after"
    assert promised in done.out.splitlines()
    assert "toy_domain.block_refused fails with the whole queue applied" in done.out
    # In three fresh guests before anybody is blamed.
    assert warm.trace.count("kunit.py exec") >= 3
    # `iommuq run` sees the same file.
    assert promised in warm.run("run", BASE).out


def test_without_a_proof_file(warm: Project) -> None:
    (warm.root / PROOF).unlink()
    done = prove(warm)
    assert done.code == 1
    assert "0001: no entry in proof.toml" in done.out
    assert warm.run("run", BASE).code == 0


def test_mistake_in_the_file_is_told_before_anything_is_built(warm: Project) -> None:
    warm.edit(PROOF, '"resv/0001"', '"resv/0007"')
    maker = warm.maker
    maker.add("resv/0003-x.patch", maker.mail("toy: x", {IOMMU_C: ("return 5;", "return 6;")}))
    done = prove(warm)
    assert done.code == 2
    assert "no patch 'resv/0007' in the queue" in done.err
    assert warm.trace == []


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("--from", "0002"), ["0001", "0002"]),
        (("--to", "0001"), ["baseline", "0001"]),
        (("--from", "0001", "--to", "0001"), ["baseline", "0001"]),
    ],
)
def test_some_of_the_steps(warm: Project, words: tuple[str, ...], labels: list[str]) -> None:
    done = prove(warm, *words)
    assert done.code == 0, done
    assert done.out.splitlines()[1].split() == labels


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "base"), "base is no step of the queue"),
        (("--from", "0002", "--to", "0001"), "0002 does not come before 0001"),
    ],
)
def test_steps_that_are_none(warm: Project, words: tuple[str, ...], said: str) -> None:
    done = prove(warm, *words)
    assert done.code == 2
    assert said in done.err
    assert warm.trace == []


def test_bisect(warm: Project) -> None:
    done = prove(warm, "--bisect", "kunit.toy_domain.plain_kept")
    assert (done.code, done.out) == (
        0,
        "PASS: kunit.toy_domain.plain_kept with the whole queue applied\n",
    )
    done = prove(warm, "--bisect", "kunit.toy_domain.plain_kept", "--to", "0001")
    assert done.out == "PASS: kunit.toy_domain.plain_kept with 0001 applied\n"
    done = prove(warm, "--bisect", "toy_domain.plain_kept")
    assert done.code == 2
    assert "does not begin with a suite" in done.err


def test_unknown_suite(warm: Project) -> None:
    done = warm.run("prove", BASE, "--suite", "kunits")
    assert done.code == 2
    assert "no suite 'kunits'" in done.err


def test_suites_of_a_base(warm: Project) -> None:
    (warm.root / PROOF).write_text('suites = ["kunit"]\n' + GOOD)
    done = warm.run("prove", BASE)
    assert done.code == 0, done
    assert done.out.splitlines()[0].endswith(", KUnit on User-mode Linux")
    warm.edit(PROOF, '"kunit"]', '"kunits"]')
    done = warm.run("prove", BASE)
    assert done.code == 2
    assert "no suite 'kunits'; there are kunit, " in done.err
    # What the user asks for goes before it.
    warm.edit(PROOF, '"kunits"]', '"kunit", "selftest"]')
    assert prove(warm).code == 0


def test_queue_edited_while_it_runs(warm: Project) -> None:
    """The run keeps what it started with, and the next one sees the edit."""
    warm.edit("patches/toy/resv/0002-toy-drop-the-check.patch", "+\treturn 5;", "+\treturn 4;")
    with warm.stalled("build", "prove", BASE, "--suite", "kunit") as process:
        warm.edit(PROOF, '"resv/0001"', '"resv/0007"')
        assert process.poll() is None
    assert prove(warm).code == 2


def test_killed_anywhere_the_next_run_is_right(tmp_path: Path, warm: Project) -> None:
    """SIGKILL at random moments; the places are the same in every run of this test."""
    expected = prove(warm).cells
    cold = toykernel.copy_project(warm, tmp_path / "cold", warm=False)
    began = time.monotonic()
    assert prove(cold).cells == expected
    whole = time.monotonic() - began
    again = toykernel.copy_project(warm, tmp_path / "again", warm=False)
    moments = random.Random(2023)
    for _ in range(KILLS):
        process = again.start("prove", BASE, "--suite", "kunit")
        time.sleep(moments.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # What it had started ends with it, a moment later.
        wait_for(lambda: not again.leftovers())
    done = prove(again)
    assert done.code == 0, done
    assert done.cells == expected
