# SPDX-License-Identifier: GPL-2.0-only
"""From main() to the make of a kernel there are few calls."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path
from typing import Any

import pytest

import iommuq.__main__
import toykernel
from iommuq.system import groups
from toykernel import BASE

#: Functions of ours from main() to the one that starts make, both counted.
MOST = 10


def test_calls_from_main_to_make(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=False)
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    package = Path(iommuq.__file__).parent
    stacks: list[list[str]] = []
    start = groups.start

    def started(argv: Any, *words: Any, **options: Any) -> subprocess.Popen[bytes]:
        if argv[0] == "make" and any(word.startswith("-j") for word in argv):
            ours = (f for f in inspect.stack() if package in Path(f.filename).parents)
            stacks.append([f.function for f in ours])
        return start(argv, *words, **options)

    monkeypatch.setattr(groups, "start", started)
    monkeypatch.setattr("sys.argv", ["iommuq", "run", BASE])
    with pytest.raises(SystemExit):
        iommuq.__main__.main()
    assert stacks
    for stack in stacks:
        # groups.start() is one more: the test stands in its place.
        assert 1 + len(stack) <= MOST, stack
        assert stack[-1] == "main"
