# SPDX-License-Identifier: GPL-2.0-only
"""The first hour, on the toy kernel; and the documentation as a site."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toykernel
import tutorialrun
from toykernel import BASE, PATIENCE, SUITE_C
from tutorialrun import ROOT, commands

#: What the page calls what the toy has under another name.
NAMES = {"toy_domain": "iommu_set_domain", "block_refused": "blocked_refused"}


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    project = toykernel.make_project(tmp_path / "project")
    patches = project.root / "patches"
    (patches / BASE).rename(patches / "6.12")
    base = patches / "6.12" / "base.toml"
    base.write_text(base.read_text().replace(f'name = "{BASE}"', 'name = "6.12"'))
    suite = project.root / SUITE_C
    text = suite.read_text()
    for ours, theirs in NAMES.items():
        text = text.replace(ours, theirs)
    suite.write_text(text)
    shutil.copytree(ROOT / "docs", project.root / "docs")
    tutorialrun.make_checkout(project.root)
    done = tutorialrun.follow(project.root, project.environment, 10 * PATIENCE)
    # What the page says of it in words.
    outputs = {command.text: output for command, output in done}
    assert "FAIL" in outputs["iommuq run 6.12"]
    changed = (patches / "6.12/series").read_text()
    (last,) = (patches / "6.12").glob(f"{changed.split()[-1]}")
    assert ", always\n" in last.read_text()


def test_the_page_has_no_command_that_is_not_run() -> None:
    page = tutorialrun.PAGE.read_text()
    assert len(commands()) == len(re.findall(r"^\$ ", page, re.MULTILINE)) > 15
    # Nor is there a block of another kind, in which a command could hide.
    assert set(re.findall(r"^```(\w*)$", page, re.MULTILINE)) == {"console", ""}
    assert not re.search(r"^    \S", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)


@pytest.mark.parametrize("line", ["$ false", "$ echo one\ntwo", "$ true   # exit code 1"])
def test_a_page_that_is_wrong_is_noticed(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```console\n{line}\n```\n")
    wrong = commands(page)
    monkeypatch.setattr(tutorialrun, "commands", lambda: wrong)
    with pytest.raises(AssertionError):
        tutorialrun.follow(tmp_path, {}, PATIENCE)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages == {path.stem for path in (tmp_path / "site").glob("*.html")} - {"404"}
    # Whoever reads it off a disk has all of it.
    text = (tmp_path / "site" / "tutorial.html").read_text()
    assert not re.findall(r'<(?:script|img)[^>]* src="https?://|<link[^>]*stylesheet[^>]*//', text)
