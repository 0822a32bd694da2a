# SPDX-License-Identifier: GPL-2.0-only
"""MAINTAINERS covers every file, in the format of the kernel's."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from iommuq.system.run import run

ROOT = Path(__file__).parents[3]
#: The order of the entries that we use, as in the kernel.
ORDER = "MRLSF"


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return what MAINTAINERS says, by section: pairs of a letter and its value."""
    text = (ROOT / "MAINTAINERS").read_text("utf-8")
    found = {}
    for block in re.sub(r"(?m)^#.*\n", "", text).strip().split("\n\n"):
        title, *lines = block.splitlines()
        entries = [re.fullmatch(r"([A-Z]):\t(\S.*)", line) for line in lines]
        assert all(entries), f"{title}: a line is not 'X:<tab>value'"
        found[title] = [(entry[1], entry[2]) for entry in entries if entry]
    return found


def covers(pattern: str, file: str) -> bool:
    """Tell whether F: *pattern* covers *file*, by the rules of get_maintainer.pl."""
    if pattern.endswith("/"):
        return fnmatchcase(file, f"{pattern}*")
    return fnmatchcase(file, pattern) and file.count("/") == pattern.count("/")


@pytest.mark.parametrize(
    ("pattern", "file", "expected"),
    [
        ("tools/", "tools/tests/system/test_run.py", True),
        ("tools/", "mytools/x", False),
        ("*", "README.md", True),
        ("*", "tools/bootstrap", False),
        ("docs/*", "docs/a/b.md", False),
    ],
)
def test_patterns_are_the_kernels(pattern: str, file: str, expected: bool) -> None:
    assert covers(pattern, file) is expected


def test_every_file_is_covered() -> None:
    listed = run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not in a git checkout")
    files = listed.output.rstrip("\0").split("\0")
    assert "MAINTAINERS" in files
    patterns = [v for entries in sections().values() for k, v in entries if k == "F"]
    left = [file for file in files if not any(covers(pattern, file) for pattern in patterns)]
    assert left == []


def test_sections_are_in_the_kernels_form() -> None:
    found = sections()
    assert list(found) == sorted(found)
    for title, entries in found.items():
        assert title == title.upper()
        letters = "".join(letter for letter, _ in entries)
        assert letters == "".join(sorted(letters, key=ORDER.index)), f"{title}: order"
        assert ("L", "iommu@lists.linux.dev") in entries
        assert [value for letter, value in entries if letter == "S"] == ["Maintained"]
        patterns = [value for letter, value in entries if letter == "F"]
        assert patterns
        assert patterns == sorted(patterns)
