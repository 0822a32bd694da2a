# SPDX-License-Identifier: GPL-2.0-only
"""Work trees of a queue, and what is written back from them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import toy

from iommuq import edittree, queuecommands
from iommuq.bases import Base
from iommuq.edit import edit
from iommuq.edittree import EditTree
from iommuq.errors import UserError
from iommuq.patchqueue import Queue, load_queue
from iommuq.refresh import Refreshed, refresh
from iommuq.tree import make_steps

BASELINE = "baseline/0001-toy-go-back.patch"
FIRST = "resv/0001-toy-note-regions.patch"
SECOND = "resv/0002-toy-drop-check.patch"


@dataclass
class Person:
    """Somebody at work in an edit tree.

    :ivar base: the base of the queue.
    :ivar folder: the queue's folder.
    """

    base: Base
    folder: Path
    tree: EditTree

    def git(self, *words: str) -> str:
        """Run git as a person does, with rerere and the like left alone."""
        return toy.git(*words, cwd=self.tree.folder)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the tree, and stage it."""
        path = self.tree.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        self.git("add", "-f", name)

    def commit(self, subject: str, name: str, old: str, new: str) -> None:
        """Make a new commit."""
        self.change(name, old, new)
        self.git("commit", "--quiet", "-m", subject)

    def rebase(self, *todo: str) -> None:
        """Rebase with a list of what to do; ``A`` to ``C`` stand for the three patches."""
        ids = self.git("rev-list", "--reverse", "iommuq-base..HEAD").split()
        text = "\n".join(todo) + "\n"
        for letter, ident in zip("ABCDEF", ids, strict=False):
            text = re.sub(rf"\b{letter}\b", ident, text)
        path = self.tree.folder / ".git/todo"
        path.write_text(text)
        subprocess.run(
            ["git", "-c", f"sequence.editor=cp {path}", "rebase", "-q", "-i", "iommuq-base"],
            cwd=self.tree.folder,
            check=True,
        )

    def reword(self, message: str) -> None:
        """Give the first patch of the series other words."""
        quoted = message.replace("\n", "\\n")
        amend = f"exec printf '{quoted}' | git commit --amend --quiet --file=-"
        self.rebase("pick A", "pick B", amend, "pick C")

    def refresh(self, **options: bool) -> Refreshed:
        """Refresh, and see that the new queue makes exactly what is checked out."""
        done, self.tree = refresh(self.tree, self.folder, **options)  # type: ignore[arg-type]
        queue = load_queue(self.folder, "6.12")
        made = make_steps(self.base, queue, None)[-1].tree
        assert made == self.git("rev-parse", "HEAD^{tree}")
        # And once more, without a change.
        before = toy.snapshot(self.folder)
        again, self.tree = refresh(self.tree, self.folder)
        assert not again.changed
        assert toy.snapshot(self.folder) == before
        return done

    @property
    def series(self) -> str:
        """The series file."""
        return (self.folder / "series").read_text()


def actions(done: Refreshed) -> dict[str, str]:
    return {entry.name: entry.action for entry in done.entries}


@pytest.fixture
def person(toy_base: Base, toy_queue: Queue, tmp_path: Path) -> Person:
    tree = edit(toy_base, toy_queue, tmp_path / "linux")
    return Person(toy_base, toy_queue.folder, tree)


def test_without_a_change_no_file_changes(person: Person) -> None:
    before = toy.snapshot(person.folder)
    done = person.refresh()
    assert actions(done) == dict.fromkeys((BASELINE, FIRST, SECOND), "unchanged")
    assert toy.snapshot(person.folder) == before


def test_rewritten_commits_that_say_the_same_keep_their_files(person: Person) -> None:
    """Other commit ids, as after a rebase that changed nothing, are no change."""
    before = toy.snapshot(person.folder)
    person.git("rebase", "-q", "--force-rebase", "iommuq-base")
    assert person.git("rev-parse", "HEAD") != person.tree.note.tip
    assert not person.refresh().changed
    assert toy.snapshot(person.folder) == before


def test_amended_commit_changes_its_file_alone(person: Person) -> None:
    before = toy.snapshot(person.folder)
    person.change("drivers/iommu/intel/iommu.c", "return 1;", "return 2;")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    assert actions(person.refresh())[SECOND] == "changed"
    after = toy.snapshot(person.folder)
    assert {name for name in after if after[name] != before[name]} == {SECOND}
    assert b"+\treturn 2;" in after[SECOND][0]
    assert b"Date: Wed, 7 Jun 2023 12:00:00 +0200" in after[SECOND][0]


def test_patch_after_an_amended_one_keeps_its_file(person: Person) -> None:
    """Its lines moved, and the blobs it starts from have other ids; it says the same."""
    person.git("checkout", "-q", "HEAD~1")
    person.change(toy.IOMMU_C, "#include <linux/iommu.h>", "#include <linux/iommu.h>\n\nint i;")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    person.git("cherry-pick", "iommuq/6.12")
    assert list(actions(person.refresh()).values()) == ["unchanged", "changed", "unchanged"]


def test_afresh_writes_them_as_git_does(person: Person) -> None:
    """The toy's patches were written with a signature and short blob ids."""
    done = person.refresh(afresh=True)
    assert list(actions(done).values()) == ["changed"] * 3
    text = (person.folder / FIRST).read_text()
    assert text.startswith("From " + "0" * 40)
    assert re.search(r"^index [0-9a-f]{40}\.\.[0-9a-f]{40} 100644$", text, re.MULTILINE)
    assert not re.search(r"^-- $", text, re.MULTILINE)


def test_what_a_person_configured_does_not_show(person: Person) -> None:
    for key, value in {
        "format.signature": "me",
        "format.signOff": "true",
        "diff.noprefix": "true",
        "diff.context": "9",
        "format.subjectPrefix": "RFC",
        "diff.algorithm": "patience",
    }.items():
        person.git("config", key, value)
    person.change("README", "A toy.", "My toy.")
    person.git("commit", "--quiet", "--amend", "--no-edit")
    person.refresh()
    text = (person.folder / SECOND).read_text()
    assert "Subject: [PATCH] toy: drop" in text
    assert "Signed-off-by" not in text
    assert "--- a/README" in text
    assert not text.rstrip().endswith("me")


def test_new_commit_stands_in_the_section_before_it(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    done = person.refresh()
    assert actions(done)["resv/0003-toy-one-more.patch"] == "new"
    assert person.series.endswith("resv/0003-toy-one-more.patch\n")


def test_new_commit_between_two_moves_the_number_of_the_next(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick B", "pick D", "pick C")
    assert actions(person.refresh()) == {
        BASELINE: "unchanged",
        FIRST: "unchanged",
        "resv/0002-toy-one-more.patch": "new",
        "resv/0003-toy-drop-check.patch": "renamed",
    }
    assert not (person.folder / SECOND).exists()


def test_new_commit_after_the_baseline_is_to_be_sent(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick D", "pick B", "pick C")
    assert list(actions(person.refresh()).values()) == ["unchanged", "new", "renamed", "renamed"]
    assert (person.folder / "resv/0001-toy-one-more.patch").exists()


def test_new_commit_in_a_section_that_is_named(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    done, tree = refresh(person.tree, person.folder, section="extra")
    assert done.entries[-1].name == "extra/0001-toy-one-more.patch"
    with pytest.raises(UserError, match="cannot be the name of a section"):
        refresh(tree, person.folder, section="../extra")


def test_empty_queue_must_be_told_the_section(
    toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path
) -> None:
    tree = edit(toy_base, load_queue(queue_maker.folder, "6.12"), tmp_path / "linux")
    person = Person(toy_base, queue_maker.folder, tree)
    person.commit("toy: first", "README", "A toy.", "My toy.")
    with pytest.raises(UserError, match="nothing says where the patch 'toy: first' belongs"):
        refresh(tree, queue_maker.folder)
    refresh(tree, queue_maker.folder, section="new")
    assert person.series == "new/0001-toy-first.patch\n"


def test_dropped_commit_takes_its_file_along(person: Person) -> None:
    person.rebase("pick A", "pick C")
    done = person.refresh()
    assert done.dropped == (FIRST,)
    assert not (person.folder / FIRST).exists()
    # The others keep their names: they are spoken of elsewhere.
    assert person.series.split() == [BASELINE, SECOND]


def test_last_commit_of_a_section_takes_the_folder_along(person: Person) -> None:
    person.rebase("pick B", "pick C")
    person.refresh()
    assert not (person.folder / "baseline").exists()


def test_reordered_commits_change_numbers_and_keep_their_text(person: Person) -> None:
    text = (person.folder / FIRST).read_bytes()
    person.rebase("pick A", "pick C", "pick B")
    done = person.refresh()
    assert [entry.name for entry in done.entries] == [
        BASELINE,
        SECOND,
        "resv/0003-toy-note-regions.patch",
    ]
    assert (person.folder / "resv/0003-toy-note-regions.patch").read_bytes() == text


def test_new_subject_is_the_same_patch_under_a_new_name(person: Person) -> None:
    person.reword("toy: note them all\n\nBecause.")
    done = person.refresh()
    assert done.entries[1].old == FIRST
    assert done.entries[1].name == "resv/0001-toy-note-them-all.patch"
    assert not done.dropped


def test_name_that_a_person_chose_survives_a_new_subject(
    toy_base: Base, queue_maker: toy.QueueMaker, tmp_path: Path
) -> None:
    mail = queue_maker.mail("toy: note", {toy.IOMMU_C: ("int ret = 4;", "int ret = 40;")})
    queue_maker.add("resv/fix-it.patch", mail)
    queue = load_queue(queue_maker.folder, "6.12")
    person = Person(toy_base, queue.folder, edit(toy_base, queue, tmp_path / "linux"))
    person.git("commit", "--quiet", "--amend", "-m", "toy: other words")
    assert actions(person.refresh()) == {"resv/fix-it.patch": "changed"}


def test_comments_of_the_series_stay_where_they_belong(person: Person) -> None:
    text = (
        f"# The queue.\n\n# Back.\n{BASELINE}  # never sent\n\n# The series.\n{FIRST}\n{SECOND}\n"
    )
    (person.folder / "series").write_text(text + "# The end.\n")
    person.tree = edit(person.base, load_queue(person.folder, "6.12"), person.folder / "../../l2")
    person.rebase("pick A", "pick C", "pick B")
    person.refresh()
    assert person.series == (
        f"# The queue.\n\n# Back.\n{BASELINE}  # never sent\n\n# The series.\n{SECOND}\n"
        "resv/0003-toy-note-regions.patch\n# The end.\n"
    )


@pytest.mark.parametrize("staged", [True, False])
def test_uncommitted_changes(person: Person, staged: bool) -> None:
    person.change("README", "A toy.", "My toy.")
    if not staged:
        person.git("reset", "-q")
    with pytest.raises(UserError, match="README changed and not committed"):
        refresh(person.tree, person.folder)


def test_something_under_way(person: Person) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        person.rebase("pick A", "exec false")
    with pytest.raises(UserError, match="a rebase is under way there"):
        refresh(person.tree, person.folder)


def test_merge_commit(person: Person) -> None:
    person.git("checkout", "-q", "-b", "side", "HEAD~1")
    person.commit("toy: side", "README", "A toy.", "My toy.")
    person.git("checkout", "-q", "iommuq/6.12")
    person.git("merge", "-q", "--no-edit", "side")
    with pytest.raises(UserError, match=r"commit \w{12} \(Merge branch 'side'.*\) is a merge"):
        refresh(person.tree, person.folder)


def test_commits_out_of_the_queue(person: Person) -> None:
    person.git("checkout", "-q", "--orphan", "other")
    person.git("commit", "-q", "-m", "Other")
    with pytest.raises(UserError, match="does not descend from iommuq-base"):
        refresh(person.tree, person.folder)


def test_commit_without_a_change(person: Person) -> None:
    person.git("commit", "-q", "--allow-empty", "-m", "toy: nothing")
    with pytest.raises(UserError, match=r"\(toy: nothing\) changes no file"):
        refresh(person.tree, person.folder)


def test_fixup_that_was_not_squashed(person: Person) -> None:
    person.change("README", "A toy.", "My toy.")
    person.git("commit", "-q", "--fixup", "HEAD")
    with pytest.raises(UserError, match="is not squashed yet"):
        refresh(person.tree, person.folder)


def test_baseline_must_stay_first(person: Person) -> None:
    person.rebase("pick B", "pick A", "pick C")
    before = toy.snapshot(person.folder)
    with pytest.raises(UserError, match=r"is of baseline/ and comes after resv/0001"):
        refresh(person.tree, person.folder)
    assert toy.snapshot(person.folder) == before


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"\0\1\2" * 99, "a binary patch"), (b"dos\r\nends\r\n", "does not survive")],
)
def test_what_no_mail_can_carry(person: Person, data: bytes, what: str) -> None:
    before = toy.snapshot(person.folder)
    (person.tree.folder / "README").write_bytes(data)
    person.git("commit", "-q", "-a", "-m", "toy: odd")
    with pytest.raises(UserError, match=rf"commit \w{{12}} \(toy: odd\).*{what}"):
        refresh(person.tree, person.folder)
    assert toy.snapshot(person.folder) == before


def test_message_that_cuts_the_mail_short(person: Person) -> None:
    person.git("commit", "-q", "--amend", "-m", "toy: odd\n\nSee:\n---\nand more")
    with pytest.raises(UserError, match="does not survive"):
        refresh(person.tree, person.folder)


def test_second_refresh_says_what_the_first_changed(person: Person, tmp_path: Path) -> None:
    queue = load_queue(person.folder, "6.12")
    other = Person(person.base, person.folder, edit(person.base, queue, tmp_path / "other"))
    other.reword("toy: theirs")
    other.refresh()
    person.reword("toy: mine")
    before = toy.snapshot(person.folder)
    with pytest.raises(UserError) as error:
        refresh(person.tree, person.folder)
    assert f"{FIRST} is gone" in error.value.what
    assert "resv/0001-toy-theirs.patch is new" in error.value.what
    assert toy.snapshot(person.folder) == before
    done, _ = refresh(person.tree, person.folder, force=True)
    assert done.entries[1].name == "resv/0001-toy-mine.patch"


def test_patch_edited_by_hand_into_nonsense(person: Person) -> None:
    path = person.folder / FIRST
    path.write_text(path.read_text().replace("@@ -", "@@ ", 1))
    with pytest.raises(UserError, match=re.escape(FIRST)):
        refresh(person.tree, person.folder)


def test_note_that_is_damaged(person: Person) -> None:
    (person.tree.common / "iommuq-queue.json").write_text('{"base": 1')
    with pytest.raises(UserError, match="damaged"):
        edittree.find("6.12", person.tree.folder)


def test_finding_the_tree(person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert edittree.find("6.12", None).folder == person.tree.folder
    assert edittree.find(None, person.tree.folder / "drivers").folder == person.tree.folder
    linked = tmp_path / "linked"
    person.git("worktree", "add", "-q", str(linked))
    monkeypatch.chdir(linked)
    assert edittree.find(None, None).folder == linked
    with pytest.raises(edittree.NoTree, match="there is no work tree of the queue of 7\\.3"):
        edittree.find("7.3", None)
    with pytest.raises(edittree.NoTree, match="not a work tree of a queue"):
        edittree.find(None, tmp_path)
    with pytest.raises(UserError, match=r"is the queue of 6\.12, not of 7\.3"):
        edittree.find("7.3", linked)


def test_usual_place_is_used_once(toy_base: Base, toy_queue: Queue) -> None:
    tree = edit(toy_base, toy_queue)
    assert tree.folder == edittree.default_place("6.12")
    with pytest.raises(UserError, match=r"there is a work tree of 6\.12 already"):
        edit(toy_base, toy_queue)


def test_commands_print_what_they_did(
    person: Person, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(person.tree.folder)
    (person.tree.folder / "drivers/forgotten.c").write_text("int i;\n")
    person.reword("toy: note them all")
    options = {"section": None, "afresh": False, "force": False}
    queuecommands.refresh_queue(None, None, **options)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert re.search(
        r"^changed +resv/0001-toy-note-them-all\.patch \(was resv/0001", said.out, re.M
    )
    assert "in no commit: drivers/forgotten.c (git add -f)" in said.err


def test_quilt_takes_the_series_and_gives_it_back(person: Person, toy_work: Path) -> None:
    """`quilt push -a` makes what the commits make, and `quilt pop -a` takes it back."""
    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed")
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.rebase("pick A", "pick B", "pick D", "pick C")
    person.refresh()
    tree = toy_work.parent / "plain"
    toy.git("worktree", "add", "-q", str(tree), "iommuq-base", cwd=person.tree.folder)

    def quilt(*words: str) -> None:
        subprocess.run(
            ["quilt", "--quiltrc", "-", *words],
            cwd=tree,
            env={"PATH": "/usr/bin:/bin", "QUILT_PATCHES": str(person.folder)},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    quilt("push", "-a")
    toy.git("add", "-A", "-f", "drivers", "README", cwd=tree)
    assert toy.git("diff", "--cached", "--stat", "iommuq/6.12", cwd=tree) == ""
    quilt("pop", "-a")
    toy.git("add", "-A", "-f", "drivers", "README", cwd=tree)
    assert toy.git("diff", "--cached", "--stat", "iommuq-base", cwd=tree) == ""


def test_git_am_and_quiltimport_take_the_series(person: Person) -> None:
    person.commit("toy: one more", "README", "A toy.", "My toy.")
    person.refresh()
    wanted = person.git("rev-parse", "HEAD^{tree}")
    person.git("checkout", "-q", "-b", "am", "iommuq-base")
    names = load_queue(person.folder, "6.12").patches
    person.git("am", "-q", *(str(patch.path) for patch in names))
    assert person.git("rev-parse", "HEAD^{tree}") == wanted
    person.git("checkout", "-q", "-b", "import", "iommuq-base")
    person.git("quiltimport", "--patches", str(person.folder))
    assert person.git("rev-parse", "HEAD^{tree}") == wanted
