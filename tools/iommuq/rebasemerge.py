# SPDX-License-Identifier: GPL-2.0-only
"""Merge one patch into another tree, and say what became of it."""

from __future__ import annotations

import re

from iommuq.errors import InfraError
from iommuq.objects import Store
from iommuq.patchqueue import Queue
from iommuq.unidiff import hunks


def commits_of(store: Store, base: str, tip: str, queue: Queue) -> dict[str, tuple[str, str]]:
    """Return for each patch of a queue its parent and its commit."""
    line = store.git("rev-list", "--reverse", f"{base}..{tip}").output.split()
    names = (patch.name for patch in queue.patches)
    return dict(zip(names, zip([base, *line], line, strict=False), strict=True))


def merge(store: Store, parent: str, commit: str, tip: str) -> tuple[str, list[str]]:
    """Merge what a commit did to its parent into a tree.

    :return: the tree, and the files that conflict.
    """
    # git looks for a common ancestor itself, so it is given one: the parent.
    who = {"author": "iommuq <iommuq@localhost>", "date": "0 +0000", "message": "x\n"}
    root = store.commit(store.tree_of(parent), parent, **who)
    sides = [store.commit(store.tree_of(each), root, **who) for each in (tip, commit)]
    words = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z")
    done = store.git(*words, *sides, check=False)
    if done.returncode not in (0, 1):
        raise InfraError(f"git merge-tree: {done.stderr.strip().splitlines()[-1:]}")
    tree, *conflicts = [part for part in done.output.split("\0") if part]
    return tree, sorted(set(conflicts)) if done.returncode else []


def compare(store: Store, old: str, new: str) -> str:
    """Say how a patch differs from what it was."""
    texts = []
    for commit in (old, new):
        diff = store.git("diff-tree", "-p", "--no-renames", f"{commit}^", commit).output
        texts.append(diff.encode("utf-8", "backslashreplace"))
    if _plain(texts[0], keep=True) == _plain(texts[1], keep=True):
        return "unchanged"
    same = [[(h.path, h.before, h.after) for h in hunks(text)] for text in texts]
    return "offset" if same[0] == same[1] else "merged"


def _plain(diff: bytes, *, keep: bool) -> list[bytes]:
    lines = [line for line in diff.split(b"\n") if not line.startswith(b"index ")]
    # The function named after the second @@ is only there for people.
    return [re.sub(rb"^(@@ .*? @@).*", rb"\1", line) for line in lines] if keep else lines


def marked(store: Store, tip: str, tree: str) -> str:
    """Return a file with conflict markers among those that differ; nothing if there is none."""
    names = store.git("diff-tree", "-r", "-z", "--name-only", tip, tree).output.split("\0")
    for name in filter(None, names):
        text = store.read_file(tree, name) or b""
        if re.search(rb"^<{7} ", text, re.MULTILINE) and re.search(rb"^>{7} ", text, re.MULTILINE):
            return name
    return ""
