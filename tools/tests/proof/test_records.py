# SPDX-License-Identifier: GPL-2.0-only
"""A proof answers for one content of a queue, and for no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mailproject
import toykernel
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import prove as command
from iommuq.cli.main import cli
from iommuq.proof import records
from iommuq.proof.prove import Outcome, prove
from iommuq.results.known import Verdict
from iommuq.system.errors import InfraError
from mailproject import FIRST, SECOND
from toykernel import BASE, FRAGMENT, KNOWN, SUITE_C, Project


@pytest.fixture
def project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Return a project whose queue was proven, and make it ours."""
    made = mailproject.template(tmp_path_factory.getbasetemp())
    copy = toykernel.copy_project(made, tmp_path / "project", warm=True)
    for name in ("ROOT", "CACHE_DIR", "STATE_DIR"):
        monkeypatch.setenv(f"IOMMUQ_{name}", copy.environment[f"IOMMUQ_{name}"])
    return copy


def test_proof_is_found_again(project: Project) -> None:
    del project
    found = records.find(Workspace.open(BASE))
    assert found is not None
    assert found.complete
    assert [(each.lane, each.guest, each.accelerator) for each in found.ran] == [
        ("kunit", "um", "native")
    ]
    row = next(row for row in found.matrix.rows if row.test == "toy_owner.late_device")
    assert row.cells == (Verdict.FAILED, Verdict.FAILED, Verdict.FAILED, Verdict.OK)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.edit(f"patches/{BASE}/{SECOND}", "+\treturn 4;", "+\treturn 2 + 2;"),
        lambda it: it.edit(f"patches/{BASE}/proof.toml", "it paves", "it really paves"),
        lambda it: it.edit(SUITE_C, "Nobody has", "Somebody has"),
        lambda it: it.edit(FRAGMENT, "As small", "Nearly as small"),
        lambda it: (it.root / KNOWN).write_text("# none\n"),
        lambda it: (it.root / "kunit/tree.config").write_text("CONFIG_NONE_HAS_IT=y\n"),
        lambda it: (it.root / "kunit/tree.toml").write_text("own = 'x'\nsuite = []\n"),
    ],
    ids=["patch", "promises", "suite", "configuration", "known", "tree", "filters"],
)
def test_any_change_wants_another(project: Project, change: Callable[[Project], object]) -> None:
    key = records.key_of(Workspace.open(BASE))
    change(project)
    other = records.key_of(Workspace.open(BASE))
    assert other != key
    assert records.find(Workspace.open(BASE)) is None


@pytest.mark.parametrize(
    "name",
    [
        "init",
        "suites.toml",
        "iommu/new.c",
        "machines/new.toml",
        "firmware/new.c",
        "scenarios/new.toml",
        "vfio.toml",
    ],
)
@pytest.mark.parametrize("lane", ["selftest", "firmware", "vfio"])
def test_what_guests_run_is_part_of_it(project: Project, name: str, lane: str) -> None:
    workspace = Workspace.open(BASE)
    lanes = ("kunit", lane)
    before = records.key_of(workspace, lanes), records.key_of(workspace, ("kunit",))
    path = project.root / "selftests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# another\n")
    assert records.key_of(workspace, lanes) != before[0]
    assert records.key_of(workspace, ("kunit",)) == before[1]


def test_words_want_none(project: Project) -> None:
    project.edit(f"patches/{BASE}/{FIRST}", "The driver has to say", "That driver has to say")
    assert records.find(Workspace.open(BASE)) is not None


@pytest.mark.parametrize("edited", [False, True])
def test_what_is_edited_meanwhile_is_not_proven(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, edited: bool
) -> None:
    for path in (project.root / "state/proofs").iterdir():
        path.unlink()

    def and_edit(*words: Any, **rest: Any) -> list[Outcome]:
        outcomes = prove(*words, **rest)
        if edited:
            (project.root / KNOWN).write_text((project.root / KNOWN).read_text() + "# more\n")
        return outcomes

    monkeypatch.setattr(command, "prove_steps", and_edit)
    cli.main(["prove", BASE], standalone_mode=False)
    assert len(list((project.root / "state/proofs").iterdir())) == (not edited)
    assert (records.find(Workspace.open(BASE)) is None) == edited


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"columns": 1}'])
def test_damaged_proof(project: Project, text: str) -> None:
    (path,) = (project.root / "state/proofs").iterdir()
    assert json.loads(path.read_text())["kernel"] == "6.12.117"
    path.write_text(text)
    with pytest.raises(InfraError, match="damaged"):
        records.find(Workspace.open(BASE))
