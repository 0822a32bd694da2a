# SPDX-License-Identifier: GPL-2.0-only
"""`iommuq selftest --suite vfio`: what it takes, and a tree without the programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from commandcall import call
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import selftest as command
from iommuq.suites.foreign import programs as foreign
from iommuq.suites.foreign.table import Suite
from iommuq.suites.vfio import programs
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import project_root
from lanes_toy import queue, steps

WORDS: dict[str, object] = {
    "base": "toy", "suites": (), "at": None, "on": "qemu", "tree": "vfio", "machines": (),
    "given": None, "again": False, "no_known": False, "as_json": False,
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


def test_a_tree_without_the_programs_needs_no_kernel(keys: list[str]) -> None:
    """Nothing was tested, which is no pass."""
    said = "toy baseline: nothing to test: this tree has no tools/testing/selftests/vfio"
    with pytest.raises(UserError, match=said):
        call(command.selftest, **WORDS)
    keys[0] = "a key"
    lane, again = call(command.selftest, **(WORDS | {"machines": ("q35-amd",), "again": True}))
    assert (lane.name, lane.machines, again) == ("vfio", ("q35-amd",), True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"suites": ("iommufd",)}, "it takes no 'iommufd'"),
        ({"tree": "iommu", "machines": ("q35-amd",)}, "--machine is for --suite vfio"),
        ({"machines": ("q35",)}, "no machine 'q35'"),
        ({"given": Path("/")}, "--from is for --suite foreign"),
        ({"tree": "foreign", "suites": ("libvfn",)}, "it takes no 'libvfn'"),
        ({"tree": "foreign", "machines": ("q35-plain",)}, "have no machine 'q35-plain'"),
    ],
)
def test_words_that_do_not_fit(keys: list[str], words: dict[str, object], message: str) -> None:
    del keys
    with pytest.raises(UserError, match=message):
        call(command.selftest, **(WORDS | words))


@pytest.mark.parametrize(
    ("failed", "kind", "said"),
    [("", UserError, "SKIPPED         awilliam-tests: not fetched; get it with: git clone https://"),
     ("no", InfraError, "ERROR           awilliam-tests: no\n")],
)  # fmt: skip
def test_nothing_of_others_is_neither_a_pass_nor_a_failure(
    keys: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    failed: str, kind: type[Exception], said: str,
) -> None:  # fmt: skip
    del keys
    real = foreign.build

    def build(suite: Suite, given: Path | None) -> foreign.Built:
        found = real(suite, given)
        return replace(found, skipped="", failed=failed) if failed else found

    monkeypatch.setattr(foreign, "build", build)
    with pytest.raises(kind, match="no suite of others can be run"):
        call(command.selftest, **(WORDS | {"tree": "foreign"}))
    out = capsys.readouterr().out
    assert out.startswith(said)
    assert len(out.splitlines()) == 2


def test_a_suite_of_others_that_was_built_is_run(
    keys: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del keys
    monkeypatch.setattr(
        foreign, "build", lambda suite, given: foreign.Built(suite, "key", {"x": given / "x"})
    )
    words = WORDS | {"tree": "foreign", "given": tmp_path, "machines": ("q35-intel",)}
    lane, again = call(command.selftest, **words)
    assert (lane.name, lane.machines, lane.given, again) == (
        "foreign", ("q35-intel",), tmp_path, False,
    )  # fmt: skip
