# SPDX-License-Identifier: GPL-2.0-only
"""Make blobs, trees and commits in a bare repository, without a work tree.

Nothing here changes a branch or a file that somebody looks at: what fails
half-way leaves objects behind that nothing speaks of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iommuq.system.errors import CommandFailed, InfraError
from iommuq.system.git.command import git
from iommuq.system.run import Completed

#: ``<mode> <type> <id>\t<path>``, the path quoted if it has odd bytes.
_ENTRY = re.compile(r'(\d{6} \w+ [0-9a-f]+)\t"?(.*?)"?')
_LOST = re.compile(
    r"unable to read|missing|bad object|bad tree|not a tree|not a valid object|failed to unpack"
    r"|could not read|loose object|object file|Not a valid",
    re.IGNORECASE,
)


class ObjectsLost(InfraError):
    """The repository no longer has an object that was made in it."""


@dataclass(frozen=True)
class Store:
    """The objects of a repository.

    :ivar git_dir: the bare repository.
    :ivar folder: a directory for temporary files.
    """

    git_dir: Path
    folder: Path

    def git(
        self,
        *words: str | Path,
        index: Path | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run git on the repository, in the folder for temporary files.

        :raises ObjectsLost: it failed for want of an object.
        :raises CommandFailed: it failed for another reason, and *check* is set.
        """
        try:
            return git(
                *words,
                git_dir=self.git_dir,
                cwd=self.folder,
                index=index or self.folder / "index",
                stdin=stdin,
                env=env,
                check=check,
            )
        except CommandFailed as error:
            raise lost_or(error, self.git_dir) from error

    def tree_of(self, commit: str) -> str:
        """Return the id of the tree of *commit*."""
        return self.git("rev-parse", "--verify", f"{commit}^{{tree}}").output.strip()

    def has(self, *ids: str) -> bool:
        """Tell whether all the objects *ids* are there."""
        listing = self.git("cat-file", "--batch-check", stdin="".join(f"{each}\n" for each in ids))
        return not re.search(r" missing$", listing.output, re.MULTILINE)

    def entries(self, tree: str, paths: Sequence[str]) -> dict[str, str]:
        """Look paths up in a tree.

        :param paths: files, or directories with a slash at the end for what is in them.
        :return: path -> ``<mode> <type> <id>``, of those that exist.
        """
        listing = self.git("ls-tree", "--full-tree", tree, "--", *paths).output
        matches = (_ENTRY.fullmatch(line) for line in listing.splitlines())
        return {match[2]: match[1] for match in matches if match}

    def read_blob(self, blob: str) -> bytes:
        """Return the content of a blob."""
        # Not cat-file: what runs processes decodes what they print.
        path = self.folder / self.git("unpack-file", blob).output.strip()
        data = path.read_bytes()
        path.unlink()
        return data

    def read_file(self, tree: str, path: str) -> bytes | None:
        """Return the content of a regular file in a tree, None if there is no such file."""
        mode, _, blob = self.entries(tree, [path]).get(path, "0 0 0").split()
        return self.read_blob(blob) if mode.startswith("100") else None

    def write_blobs(self, contents: Sequence[bytes]) -> list[str]:
        """Write blobs.

        :return: their ids, in the same order.
        """
        if not contents:
            return []
        paths = [self.folder / f"blob-{number}" for number in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        names = "".join(f"{path.name}\n" for path in paths)
        ids = self.git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).output
        for path in paths:
            path.unlink()
        return ids.split()

    def replace(self, tree: str, edits: Mapping[str, str]) -> str:
        """Make a tree from another by putting files in, whatever was in their place.

        Only the directories on the way are read and written: on a kernel tree
        this takes a tenth of what an index does.

        :param edits: path -> ``<mode> blob <id>``.
        :return: the id of the new tree.
        """
        if not edits:
            return tree
        folders = {str(parent) for path in edits for parent in PurePosixPath(path).parents}
        below = [f"{folder}/" for folder in folders if folder != "."]
        listed = self.entries(tree, [])
        if below:
            listed |= self.entries(tree, below)
        content: dict[str, dict[str, str]] = {folder: {} for folder in folders}
        for path, entry in {**listed, **edits}.items():
            folder, _, name = path.rpartition("/")
            content[folder or "."][name] = entry
        made = tree
        for folder in sorted(folders, key=lambda each: each.count("/") - (each == "."))[::-1]:
            lines = (f'{entry}\t"{name}"\n' for name, entry in content[folder].items())
            made = self.git("mktree", stdin="".join(lines)).output.strip()
            if folder != ".":
                parent, _, name = folder.rpartition("/")
                content[parent or "."][name] = f"040000 tree {made}"
        return made

    def read_tree(self, tree: str) -> None:
        """Fill the private index with a tree."""
        self.git("read-tree", tree)

    def apply(self, diff: bytes) -> Completed:
        """Apply a diff to the private index; all of it or nothing.

        :return: the finished process, with its exit status unchecked.
        """
        return self.git(
            "apply", "--cached", "--whitespace=nowarn", "-p1", "-", stdin=diff, check=False
        )

    def write_tree(self) -> str:
        """Return the id of the tree of the private index."""
        return self.git("write-tree").output.strip()

    def commit(self, tree: str, parent: str, *, author: str, date: str, message: str) -> str:
        """Make a commit whose author and committer, and their dates, are the same.

        :param author: ``Name <address>``.
        :param date: in git's raw form.
        :return: its id, which depends on nothing but the arguments.
        """
        name, _, address = author.rpartition(" <")
        who = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (
                ("NAME", name),
                ("EMAIL", address.removesuffix(">")),
                # Without the @ a small number is taken for something else.
                ("DATE", f"@{date}"),
            )
        }
        words = ("commit-tree", tree, "-p", parent)
        return self.git(*words, stdin=message, env=who).output.strip()


def lost_or(error: CommandFailed, git_dir: Path) -> InfraError:
    """Return `ObjectsLost` if that is why git failed, else the error itself."""
    if _LOST.search(error.output):
        return ObjectsLost(
            f"{git_dir}: an object is missing or damaged", hint="fetch the base again"
        )
    return error
