# SPDX-License-Identifier: GPL-2.0-only
"""Fetch the sources of a base once, and keep them in the cache as a git repository.

``<cache>/bases/<name>`` has a bare ``repo.git``, and ``base.json`` with its provenance.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from iommuq.bases.basefile import BaseSpec, Seen, write_seen
from iommuq.bases.providers.directory import DirectorySource
from iommuq.bases.providers.job import BASE_REF, Job, Provided
from iommuq.bases.providers.snapshot import FORMAT
from iommuq.system import files, progress
from iommuq.system.errors import DiskFull, InfraError
from iommuq.system.git.command import git, init_bare
from iommuq.system.git.objects import open_repository
from iommuq.system.temporary import temporary_folder


@dataclass(frozen=True)
class Base:
    """The sources of a base, fetched.

    :ivar version: the provider's version: a package's, a commit id, a file's name.
    :ivar sha256: of the package or archive; empty if there is no single file.
    :ivar kernel: the kernel version, like ``6.12.117``.
    :ivar commit: the commit with its files.
    :ivar git_dir: the bare repository of the commit.
    :ivar boxed: patches are applied to it in a sandbox.
    """

    spec: BaseSpec
    version: str
    sha256: str
    kernel: str
    commit: str
    git_dir: Path
    boxed: bool = False


def open_base(spec: BaseSpec) -> Base:
    """Return a base from the cache, without running git, or fetch it.

    :raises UserError: the source does not exist or is no kernel.
    :raises InfraError: it cannot be fetched, or differs from ``[seen]``.
    """
    base = cached(spec)
    if base is not None:
        _verify(spec, base.version, base.sha256, base.commit)
        return base
    base, notes = fetch(spec)
    for line in notes:
        progress.note(line)
    return base


def is_cached(spec: BaseSpec) -> bool:
    """Tell whether the cache holds a base, without fetching anything."""
    return cached(spec) is not None


def fetch(spec: BaseSpec, *, update: bool = False) -> tuple[Base, list[str]]:
    """Put a base into the cache if it is not there; a directory is read each time.

    :param update: fetch it again, and the newest version.
    :return: the base, and notes for the user, one line each.
    :raises UserError: the source does not exist or is no kernel.
    :raises InfraError: it cannot be fetched, or differs from ``[seen]``; the cache is unchanged.
    :raises DiskFull: no space is left for it.
    """
    notes: list[str] = []
    lock = _bases_dir() / f"{spec.name}.lock"
    with _disk_errors():
        lock.parent.mkdir(parents=True, exist_ok=True)
        with files.hold(lock, f"another fetch of {spec.name}"):
            base = None
            if not update and not isinstance(spec.source, DirectorySource):
                base = cached(spec, thorough=True)
            if base is None:
                base = _fetch(spec, update, notes.append)
            else:
                _verify(spec, base.version, base.sha256, base.commit)
    seen = spec.seen
    if seen is not None and seen.version != base.version:
        label = spec.source.label
        notes.append(f"{label} is {base.version} here, {seen.version} in [seen]")
    return base, notes


def record_seen(spec: BaseSpec, base: Base) -> None:
    """Write the version of a base into the ``[seen]`` table of its file.

    :raises UserError: the form of the file does not allow it.
    """
    sha256 = base.sha256
    if not sha256 and spec.seen is not None and spec.seen.version == base.version:
        # The same sources, from an installed package, which has no file to hash.
        sha256 = spec.seen.sha256
    write_seen(spec, Seen(base.version, sha256, base.commit))


def _bases_dir() -> Path:
    return files.cache_dir() / "bases"


def _key(spec: BaseSpec) -> str:
    return f"{FORMAT}-{spec.key}"


def cached(spec: BaseSpec, *, thorough: bool = False) -> Base | None:
    """Return a base from the cache; None if it must be fetched.

    :param thorough: ask git whether the objects exist; else look at the files.
    """
    home = _bases_dir() / spec.name
    repo = home / "repo.git"
    try:
        record = json.loads((home / "base.json").read_text(encoding="utf-8"))
        if record.pop("key") != _key(spec):
            return None
        base = Base(spec=spec, git_dir=repo, **record)
        if thorough:
            if _commit_in(repo) != base.commit:
                return None
        elif (repo / BASE_REF).read_text(encoding="ascii").strip() != base.commit or not any(
            (repo / "objects" / "pack").glob("*.idx")
        ):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InfraError):
        return None
    return base


def _commit_in(repo: Path) -> str:
    """Return the commit of a repository; empty if it or its top directory is missing."""
    with contextlib.suppress(InfraError):
        found = open_repository(repo)
        commit = found.describe(BASE_REF)
        return commit.id if found.has(commit.tree) else ""
    return ""


def _verify(spec: BaseSpec, version: str, sha256: str, commit: str) -> None:
    """Compare with ``[seen]``, if that has the same version."""
    seen = spec.seen
    if seen is None or seen.version != version:
        return
    for what, here, there in (("sha256", sha256, seen.sha256), ("commit", commit, seen.commit)):
        if here and there and here != there:
            raise InfraError(
                f"{spec.source.label} {version}: {what} is {here}, {spec.path} has {there}",
                hint="it may be damaged or forged; if it is correct, delete [seen] there",
            )


def _fetch(spec: BaseSpec, update: bool, notice: Callable[[str], None]) -> Base:
    """Make the base in a temporary directory, then move it to its place in the cache."""
    with temporary_folder("base", _bases_dir()) as temporary:
        repo, work = temporary / "repo.git", temporary / "work"
        work.mkdir()
        init_bare(repo)
        job = Job(
            name=spec.name,
            folder=spec.folder,
            repo=repo,
            work=work,
            log=files.log_dir() / f"fetch-{spec.name}.log",
            update=update,
            verify=lambda version, sha256: _verify(spec, version, sha256, ""),
            notice=notice,
        )
        found = spec.source.provide(job)
        _verify(spec, found.version, found.sha256, found.commit)
        shutil.rmtree(work)
        record = {"key": _key(spec), **asdict(found)}
        (temporary / "base.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        _put(spec, temporary, found)
    return Base(spec=spec, git_dir=_bases_dir() / spec.name / "repo.git", **asdict(found))


def _put(spec: BaseSpec, temporary: Path, found: Provided) -> None:
    home = _bases_dir() / spec.name
    repo = home / "repo.git"
    if _commit_in(repo):
        # Add to the repository: others may be reading it, and patched commits stay valid.
        words = ("-c", "fetch.unpackLimit=1", "fetch", "--quiet", "--depth=1", "--no-tags")
        done = git(
            *(*words, "--update-head-ok", "--no-auto-maintenance"),
            *(str(temporary / "repo.git"), f"+{BASE_REF}:{BASE_REF}"),
            git_dir=repo,
            cwd=home,
            check=False,
            timeout=None,
            watched=True,
        )
        if done.returncode == 0 and _commit_in(repo) == found.commit:
            (temporary / "base.json").replace(home / "base.json")
            return
    if home.exists():
        # A rename replaces only an empty directory.
        home.rename(temporary / "old")
    temporary.rename(home)
    shutil.rmtree(home / "old", ignore_errors=True)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn an `OSError` into `DiskFull` or `InfraError`."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or _bases_dir()}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(what, hint="a kernel takes about 700 MB of the cache") from error
        raise InfraError(what) from error
