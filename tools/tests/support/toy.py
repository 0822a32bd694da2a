# SPDX-License-Identifier: GPL-2.0-only
"""A toy kernel tree and a maker of queues for it, for the tests to share.

The tree has the shape of Linux where iommuq looks at it, and its build files
do nothing: everything that needs no compiler runs on it in milliseconds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iommuq.queue.overlay import Overlay

IOMMU_C = "drivers/iommu/iommu.c"

_FUNCTIONS = "\n".join(
    f"""\
static int toy_step_{number}(struct device *dev)
{{
	int ret = {number};

	if (!dev)
		return -EINVAL;
	return ret;
}}
"""
    for number in range(1, 9)
)

#: The files of the toy tree; what begins with ``#!`` is executable.
FILES: Mapping[str, str] = {
    "Makefile": (
        "# SPDX-License-Identifier: GPL-2.0\n"
        "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\nNAME = Toy\n\n"
        "all:\n\t@echo toy kernel\n"
    ),
    "Kconfig": 'mainmenu "Toy"\nsource "drivers/iommu/Kconfig"\n',
    "README": "A toy.\n",
    "drivers/iommu/Kconfig": 'config IOMMU_API\n\tbool "IOMMU"\n',
    "drivers/iommu/Makefile": "obj-$(CONFIG_IOMMU_API) += iommu.o\n",
    IOMMU_C: (
        f"// SPDX-License-Identifier: GPL-2.0-only\n#include <linux/iommu.h>\n\n{_FUNCTIONS}"
    ),
    "drivers/iommu/intel/iommu.c": (
        '#include "../iommu.h"\n\nint intel_attach(void)\n{\n\treturn 0;\n}\n'
    ),
    "include/linux/iommu.h": "struct device;\n\nint toy(struct device *dev);\n",
    "scripts/hello.sh": "#!/bin/sh\necho hello\n",
    # Debian's source packages ignore the whole tree in its last lines.
    ".gitignore": "*.o\n/*\n",
}

OVERLAY = Overlay(
    files=(("drivers/iommu/tests/k.c", b"int k;\n", "100644"),), hooks=((IOMMU_C, "/* hook */\n"),)
)


def git(*words: str, cwd: Path, stdin: bytes | None = None) -> str:
    """Run git for a test.

    :return: its standard output without the last newline.
    """
    done = subprocess.run(["git", *words], cwd=cwd, input=stdin, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def write_tree(where: Path, files: Mapping[str, str] = FILES) -> None:
    """Write *files* below *where*."""
    for name, text in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)


def commit_all(where: Path, message: str) -> str:
    """Commit the whole of *where*, ignored files included.

    :return: the commit id.
    """
    git("add", "--all", "--force", ".", cwd=where)
    git("commit", "--quiet", "--allow-empty", "-m", message, cwd=where)
    return git("rev-parse", "HEAD", cwd=where)


def lose_objects(git_dir: Path, keep: str) -> None:
    """Do what a prune of the repository does, down to what the commit *keep* needs."""
    git("update-ref", "refs/heads/base", keep, cwd=git_dir)
    git("prune", "--expire=now", cwd=git_dir)


def snapshot(where: Path) -> dict[str, tuple[bytes, int]]:
    """Return path -> (content, mtime in ns) of every regular file below *where*."""
    return {
        str(path.relative_to(where)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(where.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


@dataclass
class QueueMaker:
    """Writes patches for the toy tree, each on top of the one before, and their series.

    :ivar folder: the queue's folder, like ``patches/6.12``.
    :ivar work: a git work tree of the toy tree with all patches so far.
    """

    folder: Path
    work: Path
    names: list[str] = field(default_factory=list)

    def mail(
        self,
        subject: str,
        edits: Mapping[str, tuple[str, str] | str | None],
        *,
        body: str = "Because of toys.",
        author: str = "Ada Toy <ada@example.com>",
        date: str = "Wed, 7 Jun 2023 12:00:00 +0200",
    ) -> bytes:
        """Make a patch mail as ``git format-patch`` writes it.

        :param edits: path -> (old text, new text), a whole new text, or None to delete.
        """
        for name, edit in edits.items():
            path = self.work / name
            if edit is None:
                path.unlink()
                continue
            if isinstance(edit, tuple):
                old = path.read_text(encoding="utf-8")
                assert edit[0] in old, f"{name} has no {edit[0]!r}"
                edit = old.replace(edit[0], edit[1], 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(edit, encoding="utf-8")
        git("add", "--all", "--force", ".", cwd=self.work)
        message = f"{subject}\n\n{body}\n".encode()
        words = ("commit", "--quiet", f"--author={author}", f"--date={date}", "--file=-")
        git(*words, cwd=self.work, stdin=message)
        mail = git("format-patch", "-1", "--stdout", "HEAD", cwd=self.work)
        return mail.encode("utf-8", "surrogateescape") + b"\n"

    def add(self, name: str, data: bytes) -> Path:
        """Add the patch *name* (``section/NNNN-….patch``) with the given bytes.

        :return: the patch's path.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.names.append(name)
        self.write_series("".join(f"{each}\n" for each in self.names))
        return path

    def write_series(self, text: str) -> None:
        """Write the series file as it is given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "series").write_text(text, encoding="utf-8")

    def three(self) -> None:
        """Add a baseline patch and two patches of a series, in different hunks of one file."""
        self.add(
            "baseline/0001-toy-go-back.patch",
            self.mail("toy: go back", {IOMMU_C: ("int ret = 1;", "int ret = 100;")}),
        )
        self.add(
            "resv/0001-toy-note-regions.patch",
            self.mail(
                "toy: note regions",
                {IOMMU_C: ("int ret = 4;", "int ret = 40;"), "drivers/iommu/new.h": "/* new */\n"},
            ),
        )
        self.add(
            "resv/0002-toy-drop-check.patch",
            self.mail(
                "toy: drop the check", {"drivers/iommu/intel/iommu.c": ("return 0;", "return 1;")}
            ),
        )


def hermetic_environment(home: Path) -> dict[str, str]:
    """Return the variables that cut a test off from the machine and the user.

    :param home: an existing directory that stands in for the user's.
    """
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_RUNTIME_DIR": str(home / ".run"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Toy Author",
        "GIT_AUTHOR_EMAIL": "author@example.com",
        "GIT_AUTHOR_DATE": "1000000000 +0000",
        "GIT_COMMITTER_NAME": "Toy Committer",
        "GIT_COMMITTER_EMAIL": "committer@example.com",
        "GIT_COMMITTER_DATE": "1000000000 +0000",
        # An editor or a password prompt nobody expected fails the test.
        "GIT_EDITOR": "false",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "NO_COLOR": "1",
    }
