# SPDX-License-Identifier: GPL-2.0-only
"""Run git the same way everywhere, whatever the user's configuration says.

The same patches give the same ids on every machine: no other configuration is read, and
no variable of a hook leads to another repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from iommuq.system.groups import Bounds
from iommuq.system.run import Completed, run
from iommuq.system.tables import own_table

#: Given as the repository for commands that need none.
NO_REPOSITORY = Path(os.devnull)
#: Seconds for commands that never touch more than an index or a few objects.
QUICK = 120.0

_DATA = own_table(__package__, "git.toml")
_CONFIG: Mapping[str, str] = _DATA["config"]
_ENVIRONMENT: Mapping[str, str] = {
    **_DATA["environment"],
    "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(_CONFIG)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_CONFIG.values())},
}


@dataclass(frozen=True)
class Commit:
    """A commit, as far as a patch says it.

    :ivar parents: their ids.
    :ivar author: ``Name <address>``.
    :ivar date: of the author, in git's raw form.
    :ivar subject: the first paragraph of the message, in one line.
    :ivar message: the whole of it.
    """

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    date: str
    subject: str
    message: str

    @property
    def title(self) -> str:
        """What to call it in a message."""
        return f"{self.id[:12]} ({self.subject})"


def pinned(git_dir: Path, work_tree: Path, index: Path | None = None) -> dict[str, str]:
    """Return the variables that make git read this repository and no other configuration.

    :param index: index file; the repository's own if None.
    """
    return {
        **_ENVIRONMENT,
        "GIT_DIR": str(git_dir),
        "GIT_INDEX_FILE": str(index or git_dir / "index"),
        "GIT_WORK_TREE": str(work_tree),
    }


def git(
    *words: str | Path,
    git_dir: Path,
    cwd: Path,
    index: Path | None = None,
    work_tree: Path | None = None,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float | None = QUICK,
    watched: bool = False,
    bounds: Bounds | None = None,
) -> Completed:
    """Run one git command.

    :param words: the command and its arguments, without ``git``.
    :param git_dir: the repository; `NO_REPOSITORY` for none.
    :param cwd: directory to run in.
    :param index: index file; the repository's own if None.
    :param work_tree: work tree; *cwd* if None.
    :param stdin: what to feed it.
    :param env: further variables.
    :param check: raise if the exit status is not 0.
    :param timeout: seconds.
    :param watched: end it even if we are killed with SIGKILL.
    :param bounds: what it may use.
    :return: the finished process.
    :raises CommandFailed: it failed, and *check* is set.
    """
    return run(
        ["git", *words],
        cwd=cwd,
        env={**pinned(git_dir, work_tree or cwd, index), **(env or {})},
        stdin=stdin,
        check=check,
        timeout=timeout,
        watched=watched,
        bounds=bounds,
    )


def init_bare(repo: Path, branch: str = "base") -> None:
    """Make an empty bare repository, whatever the user's configuration says."""
    form = ("--quiet", "--bare", "--template=", "--object-format=sha1")
    words = ["git", "init", *form, f"--initial-branch={branch}", str(repo)]
    run(words, cwd=repo.parent, env=_ENVIRONMENT)


def leave_hook() -> None:
    """Unset the variables that a hook of git inherits."""
    for name in _DATA["of_a_hook"]:
        os.environ.pop(name, None)


def is_safe_path(path: str) -> bool:
    """Tell whether *path* stays inside a tree and out of its ``.git``."""
    parts = path.split("/")
    bad: Iterable[str] = ("", ".", "..")
    return not any(part in bad or part.lower() == ".git" for part in parts)
