# SPDX-License-Identifier: GPL-2.0-only
"""Provider ``debian``: a kernel source package of Debian, such as linux-source-6.12."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iommuq.bases.providers.apt import Apt, installed_version, package_version, suite_source
from iommuq.bases.providers.archive import import_archive
from iommuq.bases.providers.job import Job, Provided
from iommuq.system.errors import DiskFull, InfraError, IommuqError, UserError
from iommuq.system.files import file_sha256
from iommuq.system.tables import Table, require

#: Directory of the archives of installed source packages.
USR_SRC = Path("/usr/src")


@dataclass(frozen=True)
class DebianSource(Table):
    """A ``[source]`` table with ``provider = "debian"``.

    :ivar package: the binary package with the sources.
    :ivar suite: a suite, not necessarily of the system's apt, like ``trixie-backports``.
    :ivar mirror: URI of the archive with that suite; empty: the one of the system.
    """

    package: str
    provider: Literal["debian"] = "debian"
    suite: str = ""
    mirror: str = ""

    def __post_init__(self) -> None:
        # These words go into a sources.list and command lines.
        package = re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", self.package)
        require(package, "package is not the name of a Debian package")
        require(re.fullmatch(r"([a-z0-9][a-z0-9.-]*)?", self.suite), "suite is malformed")
        mirror = re.fullmatch(r"([a-z+-]+:/[^\s\[\]#]+)?", self.mirror)
        require(mirror, "mirror is not a URI")
        require(self.suite or not self.mirror, "mirror needs a suite")

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.package

    def provide(self, job: Job) -> Provided:
        """Make a commit of the sources in the installed package, or else in one from apt.

        :raises UserError: apt has no such package.
        :raises InfraError: it could not be downloaded, or is damaged.
        """
        member = f"usr/src/{self.package}.tar.xz"
        if not self.suite:
            version = installed_version(self.package)
            archive = USR_SRC / f"{self.package}.tar.xz"
            if version and archive.is_file():
                # There is no package file, and so no sha256 to compare with `[seen]`.
                job.verify(version, "")
                return import_archive(job, archive, version=version, sha256="")
        path = _download_suite(self, job) if self.suite else _download(self, job)
        version, sha256 = package_version(path), file_sha256(path)
        job.verify(version, sha256)
        return import_archive(job, path, version=version, sha256=sha256, member=member)


def _download(source: DebianSource, job: Job) -> Path:
    """Download the package from the sources of the system."""
    failed: InfraError | None = None
    system = Apt(job.log)
    if not job.update and system.find(source.package):
        try:
            return system.download(source.package, _directory(job, "deb"))
        except DiskFull:
            raise
        except InfraError as error:
            # Usually the lists are stale and the archive has only a newer version.
            failed = error
    # Only root may update the lists of the system.
    apt = Apt.private(_directory(job, "apt"), job.log)
    complaint = apt.update()
    if apt.find(source.package):
        return apt.download(source.package, _directory(job, "deb-updated"))
    if failed:
        raise failed
    raise _not_found(source, job, "apt", complaint, apt)


def _download_suite(source: DebianSource, job: Job) -> Path:
    """Download the package from a suite, not necessarily one of the system."""
    mirror, complaint = source.mirror or Apt(job.log).mirror(), ""
    if not mirror:
        system = Apt.private(_directory(job, "apt"), job.log)
        complaint = system.update()
        mirror = system.mirror()
    if not mirror:
        raise _unreachable(job, complaint) or UserError(
            "apt's sources name no Debian archive",
            hint=f"add `mirror` to {job.folder / 'base.toml'}",
        )
    line = suite_source(mirror, source.suite)
    apt = Apt.private(_directory(job, "apt-suite"), job.log, line)
    complaint = apt.update()
    if apt.find(source.package):
        return apt.download(source.package, _directory(job, "deb"))
    raise _not_found(source, job, f"{source.suite} at {mirror}", complaint, apt)


def _not_found(source: DebianSource, job: Job, where: str, complaint: str, apt: Apt) -> IommuqError:
    known = ", ".join(apt.alike(source.package))
    what = f"it has {known}" if known else "run `apt-get update` after a change of its sources"
    return _unreachable(job, complaint) or UserError(
        f"{where} has no package {source.package}", hint=f"{what}; see {job.folder}/base.toml"
    )


def _unreachable(job: Job, complaint: str) -> InfraError | None:
    """Return the error for lists that could not be fetched; None without a complaint."""
    if not complaint:
        return None
    return InfraError(
        f"apt's lists cannot be fetched: {complaint}",
        hint=f"is the network up? full log: {job.log}",
    )


def _directory(job: Job, name: str) -> Path:
    path = job.work / name
    path.mkdir()
    return path
