# SPDX-License-Identifier: GPL-2.0-only
"""Provider ``git``: a tag, branch or commit of a local or remote repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from iommuq.bases.providers.job import (
    BASE_REF,
    Job,
    Provided,
    base_commit,
    kernel_version,
    require_secure,
)
from iommuq.system import progress
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.git.command import git
from iommuq.system.git.objects import Objects
from iommuq.system.progress import one_line
from iommuq.system.run import run, tail
from iommuq.system.tables import Table, require

_IS_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/]+:(?!/)")
# transport.c, transport_get(); `ext::COMMAND` would run a program.
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCHEMES = ("https", "ssh", "git+ssh", "ssh+git", "file")
_MALFORMED = re.compile(r"^error: object .*", re.M)
_UNKNOWN_REF = ("couldn't find remote ref", "not our ref", "invalid refspec")


@dataclass(frozen=True)
class GitSource(Table):
    """A ``[source]`` table with ``provider = "git"``.

    :ivar url: a repository; a path is relative to the folder of ``base.toml``.
    :ivar ref: tag, branch or full commit id.
    :ivar insecure: the URL may be ``http://`` or ``git://``.
    :ivar signed: *ref* is a tag with a good signature of a key in the user's keyring.
    """

    url: str
    ref: str
    provider: Literal["git"] = "git"
    insecure: bool = False
    signed: bool = False

    def __post_init__(self) -> None:
        require(self.url and not self.url.startswith("-"), "url must name a repository")
        require(not _HELPER.match(self.url), "url names a remote helper, which runs a program")
        require_secure(self.url, _SCHEMES, ("http", "git"), insecure=self.insecure)
        require(
            re.fullmatch(r"[^-\s:~^?*\[\\+][^\s:~^?*\[\\]*", self.ref),
            "ref must be a tag, a branch or a commit id",
        )

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.ref

    def provide(self, job: Job) -> Provided:
        """Fetch one commit without its history.

        :raises UserError: there is no such local repository or ref, or it is no kernel.
        :raises InfraError: the repository could not be reached.
        """
        url = self.url if _IS_URL.match(self.url) else str(job.place(self.url))
        # Not iommuq.system.git: the user's configuration applies (proxies, credentials, insteadOf).
        command = (
            *("git", f"--git-dir={job.repo}", "-c", "fetch.unpackLimit=1"),
            *("-c", "fetch.fsckObjects=true", "-c", "transfer.fsckObjects=true"),
            *("fetch", "--depth=1", "--no-tags", "--no-write-fetch-head"),
            *("--no-auto-maintenance", "--", url, f"+{self.ref}:refs/iommuq/fetched"),
        )
        with progress.task(f"Fetching {self.ref} for {job.name} from {url}", log=job.log):
            try:
                run(
                    command,
                    cwd=job.work,
                    env={
                        "GIT_TERMINAL_PROMPT": "0",
                        "LC_ALL": "C.UTF-8",
                        "LANGUAGE": "",
                        # Also of what `insteadOf` and a server lead to.
                        "GIT_ALLOW_PROTOCOL": "file:https:ssh" + ":http:git" * self.insecure,
                    },
                    log_path=job.log,
                    watched=True,
                )
            except CommandFailed as error:
                raise _explain(error, self, url, job) from error
            if self.signed:
                check = ("git", f"--git-dir={job.repo}", "verify-tag", "refs/iommuq/fetched")
                if run(check, cwd=job.work, log_path=job.log, check=False).returncode != 0:
                    what = f"{url}: {self.ref} has no good signature of a key in your keyring"
                    raise InfraError(what, hint=f"full log: {job.log}")
                # The signature is of the name in the tag, which a server may give another ref.
                name = ("for-each-ref", "--format=%(tag)", "refs/iommuq/fetched")
                signed = git(*name, git_dir=job.repo, cwd=job.repo).output.strip()
                if signed != self.ref.removeprefix("refs/tags/"):
                    what = f"{url}: {self.ref} is the signed tag of {one_line(signed)}"
                    raise InfraError(what)
        git("update-ref", BASE_REF, "refs/iommuq/fetched^{commit}", git_dir=job.repo, cwd=job.repo)
        commit = base_commit(job.repo)
        job.verify(commit, "")
        makefile = Objects(job.repo, job.work).read_file(commit, "Makefile") or b""
        kernel = kernel_version(makefile.decode("utf-8", "replace"), f"{self.ref} of {url}")
        return Provided(commit, "", commit, kernel)


def _explain(error: CommandFailed, source: GitSource, url: str, job: Job) -> Exception:
    file = job.folder / "base.toml"
    if any(words in error.output for words in _UNKNOWN_REF):
        return UserError(f"{url} has no {source.ref!r}", hint=f"see `ref` in {file}")
    if "does not appear to be a git repository" in error.output and not _IS_URL.match(source.url):
        return UserError(f"{url} is not a git repository", hint=f"see `url` in {file}")
    if "' not allowed" in error.output:
        what = f"{url}: refused: {tail(error.output, 1)}"
        return UserError(what, hint="see `insteadOf` in your git configuration")
    if malformed := _MALFORMED.search(error.output):
        return UserError(f"{url}: refused: {malformed[0]}", hint=f"full log: {job.log}")
    return InfraError(
        f"{url}: cannot be fetched: {tail(error.output, 1)}",
        hint=f"is the network up? full log: {job.log}",
    )
