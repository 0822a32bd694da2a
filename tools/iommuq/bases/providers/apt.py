# SPDX-License-Identifier: GPL-2.0-only
"""Download packages with apt, without root and without touching its set-up.

The system's own lists are only read.  Where they are stale or lack the suite, a
private set of lists is made in a directory of the caller's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import progress
from iommuq.system.errors import CommandFailed, InfraError, ToolMissing
from iommuq.system.run import Completed, run

#: Signs the archive's suites, newer ones than the system's included.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: Seconds without a byte after which a server counts as lost.
STALLED = 60

# Messages are searched for words.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "DEBIAN_FRONTEND": "noninteractive"}
_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)", re.M)


@dataclass(frozen=True)
class Candidate:
    """The package file that apt would take.

    :ivar file: its name.
    :ivar size: in bytes.
    """

    file: str
    size: int


@dataclass(frozen=True)
class Apt:
    """apt with one set of sources and lists.

    :ivar options: ``-o`` options that choose them; none are the system's.
    :ivar log: file for the output of what takes long.
    """

    log: Path
    options: tuple[str, ...] = ()

    @classmethod
    def private(cls, where: Path, log: Path, sources: str | None = None) -> Apt:
        """Return an apt whose lists are in *where*; `update` has to fill them.

        :param where: an existing directory.
        :param sources: lines of a sources.list; the system's own sources if None.
        """
        (where / "lists" / "partial").mkdir(parents=True)
        (where / "archives" / "partial").mkdir(parents=True)
        settings = {
            "Dir::State::Lists": where / "lists",
            "Dir::Cache": where,
            # The sandbox's user may not be able to reach a directory of ours.
            "APT::Sandbox::User": "",
        }
        if sources is not None:
            (where / "sources.list").write_text(sources, encoding="utf-8")
            settings["Dir::Etc::SourceList"] = where / "sources.list"
            settings["Dir::Etc::SourceParts"] = Path("/dev/null")
        return cls(log, tuple(f"-o{key}={value}" for key, value in settings.items()))

    def update(self) -> str:
        """Fetch the lists anew.

        A source that fails is no error yet, as it may be of no interest here: the
        package is found afterwards, or it is not.

        :return: apt's complaint if any source failed, else nothing.
        """
        with progress.step("Fetching apt's lists of packages", log=self.log):
            done = self._get("update", log_path=self.log, check=False, cwd=Path("/"))
        return _complaint(done.output, r"[WE]: *(Failed to fetch.+)|E: *(.+)")

    def find(self, package: str) -> Candidate | None:
        """Return the file that apt would take for *package*; None if it knows of none."""
        done = self._get("download", "--print-uris", package, check=False, cwd=Path("/"))
        match = _URI_LINE.search(done.output)
        return match and Candidate(match["file"], int(match["size"]))

    def alike(self, package: str) -> list[str]:
        """Return the packages with the same name but for the version in it, with their own."""
        stem = package.rstrip("0123456789.")
        names = self._cache("pkgnames", stem).output.split()
        same = re.compile(rf"{re.escape(stem)}\d+(?:\.\d+)*")
        names = sorted(filter(same.fullmatch, names))
        if not names:
            return []
        rows = [line.split("|") for line in self._cache("madison", *names).output.splitlines()]
        return [f"{row[0].strip()} {row[1].strip()}" for row in rows if len(row) > 1]

    def download(self, package: str, where: Path) -> Path:
        """Download *package* into *where*; apt checks it against its signed lists.

        :return: the package file.
        :raises InfraError: it could not be downloaded whole.
        :raises DiskFull: there was no room.
        """
        found = self.find(package)
        size = f", {found.size >> 20} MiB" if found else ""
        with progress.step(f"Downloading {package}{size}", log=self.log):
            try:
                self._get("download", package, log_path=self.log, cwd=where)
            except CommandFailed as error:
                reason = _complaint(error.output, r"E: *(.+)") or error.what
                raise InfraError(
                    f"{package} cannot be downloaded: {reason}",
                    hint=f"is the network up? full log: {self.log}",
                ) from error
        files = list(where.glob("*.deb"))
        if len(files) != 1:
            raise InfraError(f"apt-get download {package} left no package in {where}")
        return files[0]

    def mirror(self) -> str | None:
        """Return the URI of the Debian archive that the sources name; None if none does.

        It is known by the ``Origin`` in its signed lists, so they must have been fetched.
        """
        words = ("indextargets", "--format=$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
        done = self._get(*words, check=False, cwd=Path("/"))
        for line in done.output.splitlines():
            origin, label, uri = line.split("|", 2)
            # Security updates and backports of old have a label of their own.
            if origin == label == "Debian":
                return uri
        return None

    def _get(
        self, *words: str, cwd: Path, check: bool = True, log_path: Path | None = None
    ) -> Completed:
        command = (
            *("apt-get", "-q", "-oAcquire::Retries=2"),
            *(f"-oAcquire::{kind}::Timeout={STALLED}" for kind in ("http", "https")),
            *self.options,
            *words,
        )
        return run(
            command,
            cwd=cwd,
            env=_ENVIRONMENT,
            check=check,
            log_path=log_path,
            watched=log_path is not None,
        )

    def _cache(self, *words: str) -> Completed:
        command = ("apt-cache", *self.options, *words)
        return run(command, cwd=Path("/"), env=_ENVIRONMENT, check=False)


def _complaint(output: str, pattern: str) -> str:
    """Return what *pattern* captures in the first of apt's lines that begins with it."""
    match = re.search(f"^(?:{pattern})", output, re.M)
    return match[match.lastindex or 0].strip() if match else ""


def installed_version(package: str) -> str | None:
    """Return the version of *package* that is installed, None if it is not."""
    words = ("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${Version}", package)
    done = run(words, cwd=Path("/"), check=False)
    status, _, version = done.output.partition("|")
    return version if done.returncode == 0 and status.strip() == "ii" else None


def package_version(path: Path) -> str:
    """Return the version that a package file says it is.

    :raises InfraError: it is no package file.
    """
    try:
        return run(["dpkg-deb", "--field", path, "Version"], cwd=Path("/")).output.strip()
    except CommandFailed as error:
        raise InfraError(f"{path.name}: not a Debian package", hint=error.hint) from error


def suite_source(mirror: str, suite: str) -> str:
    """Return the sources.list line for one suite of the Debian archive.

    :raises ToolMissing: the archive's keys are not installed.
    """
    if not KEYRING.exists():
        raise ToolMissing(f"{KEYRING}: no such file", hint="apt-get install debian-archive-keyring")
    return f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
