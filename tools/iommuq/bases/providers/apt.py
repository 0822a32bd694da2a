# SPDX-License-Identifier: GPL-2.0-only
"""Download packages with apt, without root; the lists of the system are only read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.system import progress
from iommuq.system.errors import CommandFailed, InfraError, ToolMissing
from iommuq.system.run import Completed, run

#: Keys of all suites of the archive, also newer ones.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: Timeout of a server in seconds.
STALLED = 60

# Messages in English: they are parsed.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "DEBIAN_FRONTEND": "noninteractive"}
_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d{1,15})\b", re.M)


@dataclass(frozen=True)
class Candidate:
    """The package file that apt would download."""

    file: str
    size: int  # in bytes


@dataclass(frozen=True)
class Apt:
    """apt with one set of sources and lists.

    :ivar options: ``-o`` options that choose them; none: those of the system.
    :ivar log: file for the output of updates and downloads.
    """

    log: Path
    options: tuple[str, ...] = ()

    @classmethod
    def private(cls, where: Path, log: Path, sources: str | None = None) -> Apt:
        """Return an apt with its own lists, which `update` has to fill.

        :param where: an existing directory for the lists.
        :param sources: lines of a sources.list; None: the sources of the system.
        """
        (where / "lists" / "partial").mkdir(parents=True)
        (where / "archives" / "partial").mkdir(parents=True)
        settings = {
            "Dir::State::Lists": where / "lists",
            "Dir::Cache": where,
            # The user of the sandbox may not have access to the directory.
            "APT::Sandbox::User": "",
        }
        if sources is not None:
            (where / "sources.list").write_text(sources, encoding="utf-8")
            settings["Dir::Etc::SourceList"] = where / "sources.list"
            settings["Dir::Etc::SourceParts"] = Path("/dev/null")
        return cls(log, tuple(f"-o{key}={value}" for key, value in settings.items()))

    def update(self) -> str:
        """Fetch the lists.

        :return: apt's message if a source failed, which may not matter here; else empty.
        """
        with progress.task("Fetching apt's lists of packages", log=self.log):
            done = self._get("update", log_path=self.log, check=False, cwd=Path("/"))
        return _complaint(done.output, r"[WE]: *(Failed to fetch.+)|E: *(.+)")

    def find(self, package: str) -> Candidate | None:
        """Return the file that apt would download for *package*; None if there is none."""
        done = self._get("download", "--print-uris", package, check=False, cwd=Path("/"))
        match = _URI_LINE.search(done.output)
        return match and Candidate(match["file"], int(match["size"]))

    def alike(self, package: str) -> list[str]:
        """Return name and version of packages whose name differs only in its version."""
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
        :raises InfraError: the download failed.
        :raises DiskFull: no space is left.
        """
        found = self.find(package)
        size = f", {found.size >> 20} MiB" if found else ""
        with progress.task(f"Downloading {package}{size}", log=self.log):
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
        """Return the URI of the Debian archive in the fetched lists; None without one."""
        words = ("indextargets", "--format=$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
        done = self._get(*words, check=False, cwd=Path("/"))
        for line in done.output.splitlines():
            *names, uri = line.split("|", 2)
            # Security updates and old backports have another label.
            if names == ["Debian", "Debian"]:
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
    """Return the group of *pattern* in the first line of apt that begins with it."""
    match = re.search(f"^(?:{pattern})", output, re.M)
    return match[match.lastindex or 0].strip() if match else ""


def installed_version(package: str) -> str | None:
    """Return the installed version of *package*; None if it is not installed."""
    words = ("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${Version}", package)
    done = run(words, cwd=Path("/"), check=False)
    status, _, version = done.output.partition("|")
    return version if done.returncode == 0 and status.strip() == "ii" else None


def package_version(path: Path) -> str:
    """Return the version of a package file.

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
