# SPDX-License-Identifier: GPL-2.0-only
"""`iommuq selftest --suite vfio`: what it takes, and a tree without the programs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from commandcall import call
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import selftest as command
from iommuq.suites.vfio import programs
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from lanes_toy import queue, steps

WORDS: dict[str, object] = {
    "base": "toy", "suites": (), "at": None, "on": "qemu", "tree": "vfio", "machines": (),
    "again": False, "no_known": False, "as_json": False,
}  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the programs of each step that is asked for; empty for none."""
    toy = SimpleNamespace(root=project_root(), queue=queue(tmp_path, "0001-a"))
    toy.step = lambda _at: steps(toy.queue)[0]
    monkeypatch.setattr(Workspace, "open", lambda _name: toy)
    found = [""]
    monkeypatch.setattr(programs, "key", lambda _workspace, _step: found[0])
    monkeypatch.setattr(command, "run_lane", lambda _work, lane, _at, again: (lane, again))
    return found


def test_a_tree_without_the_programs_needs_no_kernel(
    keys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command.selftest, **WORDS) == 0
    said = "PASS: toy baseline: nothing to test: this tree has no tools/testing/selftests/vfio\n"
    assert capsys.readouterr().out == said
    keys[0] = "a key"
    lane, again = call(command.selftest, **(WORDS | {"machines": ("q35-amd",), "again": True}))
    assert (lane.name, lane.machines, again) == ("vfio", ("q35-amd",), True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"suites": ("iommufd",)}, "it takes no 'iommufd'"),
        ({"tree": "iommu", "machines": ("q35-amd",)}, "--machine is for --suite vfio"),
        ({"machines": ("q35",)}, "no machine 'q35'"),
    ],
)
def test_words_that_do_not_fit(keys: list[str], words: dict[str, object], message: str) -> None:
    del keys
    with pytest.raises(UserError, match=message):
        call(command.selftest, **(WORDS | words))
