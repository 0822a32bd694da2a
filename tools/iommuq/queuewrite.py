# SPDX-License-Identifier: GPL-2.0-only
"""Write the files of a queue: all of them seen to be good first, and nothing lost on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from iommuq.errors import InfraError, UserError
from iommuq.mailwrite import Commit, Proof, same_words
from iommuq.patchqueue import Queue, load_queue

#: The file that lists the patches.
SERIES = "series"


def sums(queue: Queue) -> dict[str, str]:
    """Return the sha256 of each file of a queue, the series file included."""
    found = {patch.name: patch.sha256 for patch in queue.patches}
    found[SERIES] = hashlib.sha256((queue.folder / SERIES).read_bytes()).hexdigest()
    return found


def check(
    proof: Proof,
    base: str,
    commits: Mapping[str, Commit],
    kept: Collection[str],
    files: Mapping[str, bytes],
    text: str,
) -> None:
    """See that a new queue can be read, and says what the commits do.

    :param base: the name of its base.
    :param commits: for each patch what it is made of.
    :param kept: the patches of which that is known already.
    :param files: for each patch its file.
    :param text: the series file.
    :raises UserError: a commit cannot be written as a patch.
    """
    folder = proof.folder / "queue"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / SERIES).write_text(text, encoding="utf-8")
    try:
        queue = load_queue(folder, base)
    except UserError as error:
        path, _, what = error.what.partition(":")
        commit = commits.get(path.removeprefix(f"{folder}/"))
        if commit is None:
            raise
        what = what.lstrip("0123456789: ")
        raise UserError(f"commit {commit.title}: {what}", hint=error.hint) from error
    for patch in queue.patches:
        commit = commits[patch.name]
        if patch.name in kept:
            continue
        if not (same_words(patch, commit) and proof.same_change(patch.diff, commit)):
            raise UserError(
                f"commit {commit.title} does not survive being sent as a mail",
                hint="look for line ends of DOS, or for dashes or a diff in its message",
            )


def write(folder: Path, files: Mapping[str, bytes], text: str, gone: Sequence[str] = ()) -> None:
    """Write what differs.  What is new comes first, so that nothing is ever missing.

    :param folder: ``patches/<base>``.
    :param files: for each patch its file.
    :param text: the series file.
    :param gone: patches whose files are to leave.
    """
    try:
        for name, data in {**files, SERIES: text.encode()}.items():
            path = folder / name
            if path.is_file() and path.read_bytes() == data:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_bytes(data)
            temporary.replace(path)
        for name in gone:
            (folder / name).unlink()
            if not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()
    except OSError as error:
        raise InfraError(f"{error.filename or folder}: {error.strerror}") from error
