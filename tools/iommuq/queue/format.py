# SPDX-License-Identifier: GPL-2.0-only
"""Write commits as patch mails that do not depend on git's version and configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from iommuq.queue.model import Patch
from iommuq.queue.parse import clean
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects

# No commit id and no version of git, which say nothing about the change.  Full blob ids,
# as the length of the short form depends on the repository.
_FORM = (
    "--zero-commit",
    "--no-signature",
    "--full-index",
    "--no-numbered",
    "--no-renames",
    "--no-attach",
    "--no-thread",
    "--no-cover-letter",
    "--no-base",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-notes",
    "--encode-email-headers",
    "--filename-max-length=64",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--unified=3",
    "--inter-hunk-context=0",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--submodule=short",
)


def format_mails(store: Objects, base: str, tip: str) -> Iterator[tuple[str, bytes]]:
    """Yield file name and content of a patch mail for each commit, the oldest first.

    The name is that of ``git format-patch``.  The commits are those in *base*..*tip*.
    """
    folder = store.folder / "mails"
    folder.mkdir()
    store.git("format-patch", "--quiet", *_FORM, f"-o{folder}", f"{base}..{tip}")
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name.partition("-")[0])):
        yield path.name, path.read_bytes()
        path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


class Replay:
    """Checks that diffs make the same trees as commits."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        self._loaded = ""  # the tree that the private index holds

    @property
    def folder(self) -> Path:
        """A directory for temporary files."""
        return self._store.folder

    def same_change(self, diff: bytes, commit: Commit) -> bool:
        """Return whether a diff, applied to the parent of a commit, gives the commit's tree."""
        parent = self._store.tree_of(commit.parents[0])
        if self._loaded != parent:
            self._store.read_tree(parent)
            self._loaded = parent
        if self._store.apply(diff).returncode != 0:
            return False
        self._loaded = self._store.write_tree()
        return self._loaded == commit.tree


def same_words(patch: Patch, commit: Commit) -> bool:
    """Return whether patch and commit have the same author, date and message."""
    subject, blank, body = clean(commit.message).partition("\n\n")
    # A mail joins a subject of several lines.
    message = clean(" ".join(subject.split("\n")) + blank + body)
    return (patch.author, patch.date, patch.message) == (commit.author, commit.date, message)
