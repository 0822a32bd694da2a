# SPDX-License-Identifier: GPL-2.0-only
"""Carrying a queue over to another base: clean, with conflicts, and given up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import toy
from commandcall import call
from iommuq.bases import basefile, sources
from iommuq.cli.commands import queue as commands
from iommuq.queue import edit as edittree
from iommuq.queue.edit import refresh
from iommuq.queue.model import load_queue
from iommuq.queue.rebase import Rebase, Stopped, place
from iommuq.queue.steps import make_steps
from iommuq.system.errors import DiskFull, UserError

INTEL = "drivers/iommu/intel/iommu.c"
FIRST = "resv/0001-toy-note-regions.patch"
SECOND = "resv/0002-toy-drop-check.patch"
#: What upstream makes of the second patch's place, so that it conflicts.
CONFLICT = {INTEL: ("return 0;", "return intel_do(7);")}


@dataclass
class Project:
    """Two bases, the queue of the first, and what a person does."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def upstream(self, *edits: Mapping[str, tuple[str, str] | str | None]) -> None:
        """Change the sources of the new base."""
        for name, edit in (item for each in edits for item in each.items()):
            path = self.root / "linux-7.3" / name
            if edit is None:
                path.unlink()
            elif isinstance(edit, str):
                path.write_text(edit)
            else:
                assert edit[0] in path.read_text()
                path.write_text(path.read_text().replace(*edit))

    def rebase(self, action: str | None = None, **options: object) -> dict[str, str]:
        """Rebase, and return the result of each patch."""
        given = {"section": None, "baseline": False, "into": None, **options}
        into = given.pop("into")
        self.capsys.readouterr()
        try:
            call(commands.rebase, "6.12", "7.3", into, action=action, **given)
        finally:
            self.out = self.capsys.readouterr().out
        return {m[2]: m[1] for m in re.finditer(r"^(\w[\w ]*?) +(\w+/\S+)", self.out, re.M)}

    @property
    def names(self) -> list[str]:
        """The patches of the new queue."""
        return [patch.name for patch in load_queue(self.root / "patches/7.3", "7.3").patches]

    @property
    def where(self) -> Path:
        """Where a conflict is laid out."""
        return place("6.12", "7.3")

    def tree_of(self, path: str) -> str:
        """Return a file of the new base with its queue applied."""
        spec = basefile.load_spec("7.3")
        base = sources.open_base(spec)
        step = make_steps(base, load_queue(spec.folder, "7.3"), None)[-1]
        return toy.git("show", f"{step.commit}:{path}", cwd=base.git_dir)


@pytest.fixture
def project(
    tmp_path: Path,
    toy_work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Project:
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    maker = toy.QueueMaker(folder=tmp_path / "patches/6.12", work=toy_work)
    for name in ("6.12", "7.3"):
        toy.write_tree(tmp_path / f"linux-{name}")
        (tmp_path / "patches" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "patches" / name / "base.toml").write_text(
            f'name = "{name}"\ntitle = "Toy {name}"\n\n'
            f'[source]\nprovider = "directory"\npath = "{tmp_path / f"linux-{name}"}"\n'
        )
        (tmp_path / "patches" / name / "series").write_text("# Toys.\n")
    maker.three()
    (tmp_path / "patches/6.12/resv/0000-cover.md").write_text("# Cover\n")
    return Project(tmp_path, capsys)


def test_nothing_changed_upstream(project: Project) -> None:
    assert project.rebase() == {FIRST: "unchanged", SECOND: "unchanged"}
    assert project.names == [FIRST, SECOND]
    assert (project.root / "patches/7.3/resv/0000-cover.md").read_text() == "# Cover\n"
    assert "int ret = 40;" in project.tree_of(toy.IOMMU_C)
    assert "int ret = 1;" in project.tree_of(toy.IOMMU_C)  # the baseline stays behind
    assert not project.where.exists()


def test_lines_moved(project: Project) -> None:
    project.upstream({toy.IOMMU_C: ("#include", "#include <linux/slab.h>\n#include")})
    assert project.rebase()[FIRST] == "offset"


def test_context_changed(project: Project) -> None:
    """Three-way: where the text around a change is other, the change is still made."""
    project.upstream({toy.IOMMU_C: ("toy_step_4(struct device *dev)", "toy_step_4(void *dev)")})
    assert project.rebase()[FIRST] == "merged"
    assert "int ret = 40;" in project.tree_of(toy.IOMMU_C)
    # The report shows how the patches differ.
    assert re.search(
        r"^ +-+ ?static int toy_step_4\(struct device|\+ static int toy_step_4\(void",
        project.out,
        re.M,
    )


def test_file_was_renamed(project: Project) -> None:
    text = (project.root / "linux-7.3" / INTEL).read_text()
    project.upstream({INTEL: None, "drivers/iommu/intel/core.c": text})
    assert project.rebase()[SECOND] == "merged"
    assert "return 1;" in project.tree_of("drivers/iommu/intel/core.c")


def test_already_there(project: Project) -> None:
    project.upstream({INTEL: ("return 0;", "return 1;")})
    assert project.rebase() == {FIRST: "unchanged", SECOND: "already there"}
    assert project.names == [FIRST]


def test_all_there(project: Project) -> None:
    project.upstream(
        {INTEL: ("return 0;", "return 1;")},
        {toy.IOMMU_C: ("int ret = 4;", "int ret = 40;")},
        {"drivers/iommu/new.h": "/* new */\n"},
    )
    assert set(project.rebase().values()) == {"already there"}
    assert project.names == []
    assert (project.root / "patches/7.3/series").read_text() == "# Toys.\n"


def test_section_and_baseline(project: Project) -> None:
    assert list(project.rebase(baseline=True).values()) == ["unchanged"] * 3
    assert project.names[0].startswith("baseline/")
    with pytest.raises(UserError, match=r"7\.3 has patches already"):
        project.rebase()


def test_no_such_section(project: Project) -> None:
    with pytest.raises(UserError, match=r"no section 'x' in 6\.12; there are baseline, resv"):
        project.rebase(section="x")


def stop(project: Project) -> None:
    project.upstream(CONFLICT)
    with pytest.raises(Stopped, match=f"{SECOND} conflicts in {INTEL}"):
        project.rebase()
    assert project.names == []
    assert "<<<<<<<" in (project.where / INTEL).read_text()


def mend(project: Project) -> None:
    path = project.where / INTEL
    text = re.sub(r"<{7}.*>{7}[^\n]*", "\treturn intel_do(8);", path.read_text(), flags=re.S)
    path.write_text(text)


def test_conflict_is_mended(project: Project) -> None:
    stop(project)
    mend(project)
    toy.git("add", "-f", INTEL, cwd=project.where)
    assert project.rebase("continue") == {FIRST: "unchanged", SECOND: "resolved"}
    assert "intel_do(8)" in project.tree_of(INTEL)
    assert "intel_do(8)" in project.out
    patch = load_queue(project.root / "patches/7.3", "7.3").patches[1]
    assert (patch.author, patch.date) == ("Ada Toy <ada@example.com>", "1686132000 +0200")
    # What is left is a work tree like any other, and a refresh of it finds nothing to do.
    tree = edittree.find("7.3", project.where)
    done, _ = refresh(tree, project.root / "patches/7.3")
    assert not done.changed


def test_conflict_is_mended_and_committed(project: Project) -> None:
    stop(project)
    mend(project)
    toy.git("commit", "-q", "-a", "-m", "toy: drop the check\n\nMended.", cwd=project.where)
    assert project.rebase("continue")[SECOND] == "resolved"
    assert "Mended." in load_queue(project.root / "patches/7.3", "7.3").patches[1].message


def test_conflict_is_skipped(project: Project) -> None:
    stop(project)
    assert project.rebase("skip") == {FIRST: "unchanged", SECOND: "skipped"}
    assert project.names == [FIRST]


def test_conflict_is_resolved_to_nothing(project: Project) -> None:
    stop(project)
    toy.git("checkout", "-q", "HEAD", "--", INTEL, cwd=project.where)
    assert project.rebase("continue")[SECOND] == "skipped"


@pytest.mark.parametrize("add", [True, False])
def test_conflict_is_not_mended(project: Project, add: bool) -> None:
    stop(project)
    if add:
        toy.git("add", "-f", INTEL, cwd=project.where)
    with pytest.raises(UserError, match="conflict markers" if add else "is not resolved"):
        project.rebase("continue")


def test_conflict_is_found_again(project: Project) -> None:
    stop(project)
    with pytest.raises(UserError) as error:
        project.rebase()
    assert f"stopped at {SECOND} on 20" in error.value.what
    assert "--abort" in error.value.hint


def test_patches_changed_meanwhile(project: Project) -> None:
    stop(project)
    path = project.root / "patches/6.12" / FIRST
    path.write_text(path.read_text().replace("Because of toys.", "Because."))
    with pytest.raises(UserError, match="the patches changed since the rebase"):
        project.rebase("skip")


def test_given_up(project: Project) -> None:
    stop(project)
    project.rebase("abort")
    assert not project.where.exists()
    assert project.names == []
    with pytest.raises(UserError, match="no rebase to abort"):
        project.rebase("abort")
    with pytest.raises(UserError, match=r"no rebase of 6\.12 onto 7\.3 to resume"):
        project.rebase("continue")


def test_file_is_gone(project: Project) -> None:
    project.upstream({INTEL: None})
    with pytest.raises(Stopped, match=f"{SECOND} conflicts in {INTEL}"):
        project.rebase()
    toy.git("rm", "-q", INTEL, cwd=project.where)
    assert project.rebase("continue")[SECOND] == "skipped"


def test_place_that_is_taken(project: Project) -> None:
    place("6.12", "7.3").mkdir(parents=True)
    (place("6.12", "7.3") / "mine").write_text("x")
    with pytest.raises(UserError, match="not an empty directory"):
        project.rebase()


def test_note_that_is_damaged(project: Project) -> None:
    stop(project)
    (project.where / ".git/iommuq-rebase.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        project.rebase("skip")


def test_into_keeps_the_tree(project: Project, tmp_path: Path) -> None:
    project.rebase(into=tmp_path / "kept")
    tree = edittree.find("7.3", tmp_path / "kept")
    assert not refresh(tree, project.root / "patches/7.3")[0].changed


def make_repository(project: Project) -> Path:
    """Make a git repository with a tag of a kernel in which a line moved."""
    where = project.root / "upstream"
    toy.write_tree(where)
    toy.git("init", "-q", "--template=", "--initial-branch=main", ".", cwd=where)
    path = where / toy.IOMMU_C
    path.write_text(path.read_text().replace("#include", "#include <linux/slab.h>\n#include", 1))
    toy.commit_all(where, "Linux 7.4")
    toy.git("tag", "v7.4", cwd=where)
    return where


def rebase_onto(onto: str, action: str | None = None) -> None:
    call(commands.rebase, "6.12", onto, None, section=None, baseline=False, action=action)


def test_onto_a_ref_of_git(project: Project) -> None:
    """It becomes a base, named as the ref is, and can be rebased onto by that name."""
    repository = make_repository(project)
    rebase_onto(f"{repository}@v7.4")
    spec = basefile.load_spec("7.4")
    found = {key: value for key, value in vars(spec.source).items() if value}
    assert found == {"provider": "git", "url": str(repository), "ref": "v7.4"}
    names = [patch.name for patch in load_queue(spec.folder, "7.4").patches]
    assert names == [FIRST, SECOND]
    assert re.findall(r"^(\w+) +resv/", project.capsys.readouterr().out, re.M) == [
        "offset",
        "unchanged",
    ]
    assert make_steps(sources.open_base(spec), load_queue(spec.folder, "7.4"), None)
    with pytest.raises(UserError, match=r"7\.4 has patches already"):
        rebase_onto(f"{repository}@v7.4")


def test_conflict_on_a_ref_of_git_is_found_again(project: Project) -> None:
    repository = make_repository(project)
    path = repository / INTEL
    path.write_text(path.read_text().replace(*CONFLICT[INTEL]))
    toy.commit_all(repository, "More")
    toy.git("tag", "-f", "v7.4", cwd=repository)
    with pytest.raises(Stopped):
        rebase_onto(f"{repository}@v7.4")
    for onto in (f"{repository}@v7.4", "7.4"):
        with pytest.raises(UserError, match=r"a rebase of 6\.12 onto 7\.4 stopped at"):
            rebase_onto(onto)
    rebase_onto(f"{repository}@v7.4", "skip")
    assert len(load_queue(basefile.load_spec("7.4").folder, "7.4").patches) == 1


@pytest.mark.parametrize(
    ("onto", "words"),
    [
        ("{here}@v9", "has no 'v9'"),
        ("/nowhere@v9", "not a git repository"),
        ("{here}@", "cannot be the name of a base"),
        ("{here}@..", "cannot be the name of a base"),
        ("{here}@-x", "cannot be the name of a base"),
        ("{here}@7.3", r"base 7\.3 exists already"),
        ("nowhere", "no base 'nowhere'"),
    ],
)
def test_ref_that_is_none(project: Project, onto: str, words: str) -> None:
    repository = make_repository(project)
    before = sorted(project.root.glob("patches/*"))
    with pytest.raises(UserError, match=words):
        rebase_onto(onto.format(here=repository))
    assert sorted(project.root.glob("patches/*")) == before


def test_interrupted_rebase_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing conflicted, so there is nothing to take, and no patch is left out for it."""
    carry = Rebase._carry
    calls = 0

    def interrupted(self: Rebase, *words: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        carry(self, *words)

    monkeypatch.setattr(Rebase, "_carry", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.rebase()
    with pytest.raises(UserError, match=f"was interrupted before {SECOND}"):
        project.rebase()
    with pytest.raises(UserError, match="no patch conflicts in"):
        project.rebase("skip")
    assert project.rebase("continue") == {FIRST: "unchanged", SECOND: "unchanged"}


def test_rebase_that_could_not_be_written_is_written_later(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Rebase, "write", lambda *_: (_ for _ in ()).throw(DiskFull("full")))
        with pytest.raises(DiskFull):
            project.rebase()
    with pytest.raises(UserError, match="was interrupted before its end"):
        project.rebase()
    assert list(project.rebase("continue")) == [FIRST, SECOND]
    assert len(load_queue(project.root / "patches/7.3", "7.3").patches) == 2


def test_newer_sources_of_the_same_base(project: Project) -> None:
    """A point release: the patches were last seen to fit the old sources."""
    spec = basefile.load_spec("6.12")
    sources.record_seen(spec, sources.open_base(spec))
    with pytest.raises(UserError, match="which its patches are for"):
        call(commands.rebase, "6.12", "6.12", None, section=None, baseline=False, action=None)
    tree = project.root / "linux-6.12" / toy.IOMMU_C
    tree.write_text(tree.read_text().replace("#include", "#include <linux/slab.h>\n#include"))
    makefile = project.root / "linux-6.12/Makefile"
    makefile.write_text(makefile.read_text().replace("117", "118"))
    sources.fetch(basefile.load_spec("6.12"), update=True)
    call(commands.rebase, "6.12", "6.12", None, section=None, baseline=False, action=None)
    out = project.capsys.readouterr().out
    assert re.findall(r"^(\w+) +\w+/", out, re.M) == ["offset", "offset", "unchanged"]
    queue = load_queue(project.root / "patches/6.12", "6.12")
    assert [patch.name for patch in queue.patches][1:] == [FIRST, SECOND]
    assert make_steps(sources.open_base(basefile.load_spec("6.12")), queue, None)


def test_old_sources_that_are_gone(project: Project) -> None:
    spec = basefile.load_spec("6.12")
    sources.open_base(spec)
    basefile.write_seen(spec, basefile.Seen("6.12.1", "", "1" * 40))
    with pytest.raises(UserError, match=r"6\.12\.1, which its patches are for, is not in the c"):
        call(commands.rebase, "6.12", "6.12", None, section=None, baseline=False, action=None)
    assert not place("6.12", "6.12").exists()
    assert project.names == []
