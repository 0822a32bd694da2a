# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.screen: patches that write where they must not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuq.bases.sources import Base
from iommuq.mail.review.screen import screen, screen_tree
from iommuq.system.errors import UserError
from iommuq.system.git.command import is_safe_path
from iommuq.system.git.objects import Objects

HEAD = b"From: Eve <eve@example.com>\nSubject: [PATCH] x\n\nMessage.\n---\n"
NEW = (
    "diff --git {old} {new}\nnew file mode {mode}\nindex 0000000..1234567\n"
    "--- /dev/null\n+++ {new}\n"
)
HUNK = "@@ -0,0 +1 @@\n+x\n"


def new_file(path: str, mode: str = "100644") -> bytes:
    text = NEW.format(old=f"a/{path}", new=f"b/{path}", mode=mode) + HUNK
    return HEAD + text.encode()


@pytest.mark.parametrize(
    ("mail", "complaint"),
    [
        (new_file("../evil"), "../evil is outside of the tree"),
        (new_file("x/../../evil"), "x/../../evil is outside of the tree"),
        (new_file("/etc/cron.d/evil"), "/etc/cron.d/evil is outside of the tree"),
        (new_file("./evil"), "./evil is outside of the tree"),
        (new_file("x\\..\\evil"), "is outside of the tree"),
        (new_file(".git/hooks/post-checkout"), ".git/hooks/post-checkout is reserved for git"),
        (new_file("sub/.GIT/config"), "sub/.GIT/config is reserved for git"),
        (new_file("git~1/config"), "git~1/config is reserved for git"),
        (new_file(".git /config"), ".git /config is reserved for git"),
        (new_file(".gitmodules"), ".gitmodules is reserved for git"),
        (new_file(".g\u200cit/config"), "unprintable characters"),
        (new_file("link", "120000"), "link is a symbolic link"),
        (new_file("sub", "160000"), "sub is a submodule"),
        (
            HEAD + b'diff --git "a/\\056\\056/evil" "b/\\056\\056/evil"\n--- /dev/null\n'
            b'+++ "b/\\056\\056/evil"\n@@ -0,0 +1 @@\n+x\n',
            "a/../evil is outside of the tree",
        ),
        (HEAD + b"--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "absolute path"),
        (HEAD + b"--- a/x\n+++ ../x\n@@ -1 +1 @@\n-a\n+b\n", "../x is outside of the tree"),
        (HEAD + b"Index: ../x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "outside of the tree"),
        (
            HEAD + b"diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to ../y\n",
            "../y is outside of the tree",
        ),
        (
            HEAD
            + b"diff --git a/x b/y\nsimilarity index 100%\ncopy from ../../secret\ncopy to y\n",
            "../../secret is outside of the tree",
        ),
        (HEAD + b"diff --git a/x b/x\nold mode 100644\nnew mode 120000\n", "x is a symbolic link"),
        (
            HEAD + b"diff --git a/x b/x\nindex 1234567..89abcde 120000\n--- a/x\n+++ b/x\n"
            b"@@ -1 +1 @@\n-a\n+/etc\n",
            "x is a symbolic link",
        ),
        (new_file("a\x1b]0;x\x07b"), "unprintable characters"),
    ],
)
def test_refused_with_the_path(mail: bytes, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        screen(mail, "2/3")
    assert caught.value.what.startswith("2/3: ")
    assert complaint in caught.value.what
    assert "\x1b" not in str(caught.value)
    assert "nothing of the series was written" in caught.value.hint


@pytest.mark.parametrize(
    "mail",
    [
        new_file("drivers/iommu/new.c"),
        new_file("scripts/run.sh", "100755"),
        new_file(".gitignore"),
        new_file(".gitlab-ci.yml"),
        new_file("drivers/gpu/a..b.c"),
        HEAD + b"diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
        # What a hunk holds is no header, and a message may speak of anything.
        HEAD + b"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- ../y\n+++ ../y\n z\n",
        b"Subject: x\n\nSee ../../etc/passwd and new file mode 120000.\n---\n" + new_file("x"),
        b"Subject: a letter\n\nNo diff.\n",
    ],
)
def test_taken(mail: bytes) -> None:
    screen(mail, "1/1")


def test_encoded_mail_is_looked_into() -> None:
    import base64

    body = base64.encodebytes(new_file("../evil").partition(b"\n\n")[2])
    mail = b"Subject: x\nContent-Transfer-Encoding: base64\n\n" + body
    with pytest.raises(UserError, match="outside of the tree"):
        screen(mail, "1/1")


_PARTS = st.sampled_from(["..", ".", "", ".git", ".GIT", "a", "b.c", "etc", ".gitx"])


@settings(max_examples=100, deadline=None)
@given(st.lists(_PARTS, min_size=1, max_size=5))
def test_no_unsafe_path_gets_through(parts: list[str]) -> None:
    """Property: whatever is taken is a path below the tree and not of git."""
    path = "/".join(parts)
    try:
        screen(new_file(path), "1/1")
    except UserError:
        return
    assert is_safe_path(path)


def tree_with(base: Base, store: Objects, path: str, mode: str, content: bytes = b"x\n") -> str:
    """Return a tree with one more file, made past every check that git makes."""
    blob = store.write_blobs([content])[0]
    return store.replace(store.tree_of(base.commit), {path: f"{mode} blob {blob}"})


@pytest.mark.parametrize(
    ("path", "mode", "complaint"),
    [
        ("drivers/link", "120000", "drivers/link is a symbolic link"),
        ("drivers/git~1/x", "100644", "drivers/git~1/x is reserved for git"),
        ("evil\nname", "100644", "unprintable characters"),
    ],
)
def test_trees_are_looked_at(
    toy_base: Base, tmp_path: Path, path: str, mode: str, complaint: str
) -> None:
    """What no look at the text has seen is seen in what git made of it."""
    (tmp_path / "scratch").mkdir()
    store = Objects(toy_base.git_dir, tmp_path / "scratch")
    before = store.tree_of(toy_base.commit)
    (after,) = store.write_blobs([b"x"])
    for name in reversed(path.split("/")):  # mktree makes names that GitPython refuses.
        kind = f"{mode} blob" if name == path.split("/")[-1] else "040000 tree"
        listing = f"{kind} {after}\t{name}\0"
        after = store.git("mktree", "-z", stdin=listing).output.strip()
    with pytest.raises(UserError, match=re.escape(complaint)):
        screen_tree(store, before, after, "1/1")
    fine = tree_with(toy_base, store, "drivers/new.c", "100644")
    screen_tree(store, before, fine, "1/1")


def test_link_that_is_there_cannot_be_written_through(toy_base: Base, tmp_path: Path) -> None:
    """A link that the kernel itself has: git does not follow it, in the object database least."""
    (tmp_path / "scratch").mkdir()
    store = Objects(toy_base.git_dir, tmp_path / "scratch")
    target = str(tmp_path / "outside").encode()
    linked = tree_with(toy_base, store, "drivers/link", "120000", target)
    store.read_tree(linked)
    diff = new_file("drivers/link/evil").partition(b"---\n")[2]
    done = store.apply(diff)
    assert done.returncode != 0
    assert not (tmp_path / "outside").exists()
