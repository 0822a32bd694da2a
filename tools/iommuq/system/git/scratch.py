# SPDX-License-Identifier: GPL-2.0-only
"""A temporary repository that reads the objects of others, and nothing else of theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from iommuq.system.errors import InfraError
from iommuq.system.git.command import init_bare
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder

#: How diffs name the function that a hunk is in.  The kernel's own file says the
#: same, but git reads that only where there is a work tree.
_ATTRIBUTES = """\
*.[ch] diff=cpp
*.dts diff=dts
*.dts[io] diff=dts
*.rs diff=rust
"""


@contextlib.contextmanager
def scratch(git_dirs: Sequence[Path]) -> Iterator[Objects]:
    """Make a repository that has the objects of others, for as long as the block runs.

    :param git_dirs: the repositories to read from; of a linked work tree, the common one.
    :raises InfraError: one of them has no objects.
    """
    with temporary_folder("scratch") as folder:
        repo = folder / "repo.git"
        init_bare(repo)
        borrow(repo, git_dirs)
        (repo / "info").mkdir(exist_ok=True)
        (repo / "info/attributes").write_text(_ATTRIBUTES, encoding="ascii")
        yield Objects(repo, folder)


def borrow(repo: Path, git_dirs: Sequence[Path]) -> None:
    """Let a repository read the objects of others.

    :raises InfraError: one of them has no objects.
    """
    lines: list[str] = []
    shallow: set[str] = set()
    for git_dir in git_dirs:
        objects = git_dir.absolute() / "objects"
        if not objects.is_dir():
            raise InfraError(f"{git_dir}: not a git repository, or a damaged one")
        lines.append(f"{objects}\n")
        # Of a commit that was fetched alone the parents are not to be looked for.
        with contextlib.suppress(FileNotFoundError):
            shallow |= set((git_dir / "shallow").read_text(encoding="ascii").splitlines(True))
    (repo / "objects/info").mkdir(exist_ok=True)
    (repo / "objects/info/alternates").write_text("".join(lines), encoding="utf-8")
    if shallow:
        (repo / "shallow").write_text("".join(sorted(shallow)), encoding="ascii")
