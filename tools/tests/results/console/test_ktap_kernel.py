# SPDX-License-Identifier: GPL-2.0-only
"""Our KTAP parser beside the kernel's own, over the logs that the kernel tests its with."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consolelogs import read_lines
from iommuq.results.console.ktap import parse
from iommuq.results.store import Status
from iommuq.system import files
from iommuq.system.run import run

# Read here, as the tests themselves see no variables of the user's.
TREE = os.environ.get("IOMMUQ_TEST_TREE")
CACHE = files.cache_dir()
BASES = sorted(path.parent.name for path in files.project_root().glob("patches/*/base.toml"))


@pytest.fixture(scope="module")
def kunit_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tools/testing/kunit of the kernel, or skip the test."""
    if TREE:
        return Path(TREE) / "tools/testing/kunit"
    folder = CACHE / "bases" / request.param
    try:
        # Not before: other tests may have fetched it by now.
        commit = json.loads((folder / "base.json").read_text())["commit"]
    except FileNotFoundError:
        pytest.skip(f"no kernel tree: `iommuq base fetch {request.param}` gets one")
    where = tmp_path_factory.mktemp("tree")
    git = ["git", "--git-dir", str(folder / "repo.git"), "--work-tree", str(where)]
    run(
        [*git, "checkout", commit, "--", "tools/testing/kunit"],
        cwd=where,
        env={"GIT_INDEX_FILE": str(where / "index")},
    )
    return where / "tools/testing/kunit"


@pytest.fixture
def kernel_parser(kunit_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the kernel's kunit_parser."""
    monkeypatch.syspath_prepend(str(kunit_dir))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("kunit_parser")
    for name in ("kunit_parser", "kunit_printer"):
        sys.modules.pop(name, None)


def _leaves(test: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the status of each of the kernel parser's leaf tests."""
    if not test.subtests:
        yield prefix + test.name, test.status.name
    for subtest in test.subtests:
        inner = "" if test.name == "main" else f"{prefix}{test.name}."
        yield from _leaves(subtest, inner)


def silence(kernel_parser: Any) -> list[Any]:
    """Return the printer that the parser of newer kernels wants, one that prints nothing."""
    if "printer" not in inspect.signature(kernel_parser.parse_run_tests).parameters:
        return []
    return [importlib.import_module("kunit_printer").null_printer]


NAMES = {
    "SUCCESS": "pass", "FAILURE": "fail", "SKIPPED": "skip", "TEST_CRASHED": "error",
}  # fmt: skip
# Where the two differ, by log: the kernel's leaves in our words, and why.
DIFFERENCES: dict[str, tuple[dict[str, str], str]] = {
    "test_is_test_passed-no_tests_no_plan.log": (
        {"suite.case": "NO_TESTS"},
        "a header without tests and an ok result: the kernel counts the suite around it as"
        " the test that passed, we count the case itself; both report the missing tests",
    ),
    "test_is_test_passed-kselftest.log": (
        {"": "skip"},
        "7.3's has a result without a name, which is called by its number here",
    ),
    "test_kernel_panic_interrupt.log": (
        {"string-stream-test.": "error"},
        "the two tests that the panic left without a result have no names there, and are"
        " called by their numbers here",
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("kunit_dir", BASES, indirect=True)
def test_agrees_with_the_kernel_s_parser(kernel_parser: Any, kunit_dir: Path) -> None:
    """Compare counts and leaves over every log that the kernel has for its own tests."""
    logs = sorted((kunit_dir / "test_data").glob("*.log"))
    assert len(logs) >= 15
    for log in logs:
        lines = read_lines(log)
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = kernel_parser.parse_run_tests(lines, *silence(kernel_parser))
        ours = parse(lines)
        counts = theirs.counts
        assert [ours.count(status) for status in Status] == [
            counts.passed,
            counts.failed,
            counts.skipped,
            counts.crashed,
        ], log.name
        assert bool(ours.problems) == bool(counts.errors), log.name
        if counts.total() == 0:
            assert ours.tests == (), log.name
            continue
        leaves = {name: NAMES.get(status, status) for name, status in _leaves(theirs)}
        mine = {case.name: case.status.value for case in ours.tests}
        different = dict(leaves.items() - mine.items())
        # What a log of the same name has on another kernel alone is no difference.
        listed = DIFFERENCES.get(log.name, ({}, ""))[0]
        assert different == {name: listed[name] for name in listed.keys() & leaves.keys()}, log.name
