# SPDX-License-Identifier: GPL-2.0-only
"""Provider ``tarball``: a source archive in a local file or on a web server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from iommuq.bases.providers.archive import import_archive
from iommuq.bases.providers.job import Job, Provided, require_secure
from iommuq.system import progress
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import file_sha256
from iommuq.system.tables import Table, require

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

#: Timeout of a server in seconds.
STALLED = 60.0

_SUFFIX = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?)$")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class TarballSource(Table):
    """A ``[source]`` table with ``provider = "tarball"``.

    :ivar url: ``https://…``, ``http://…``, ``file:///…``, or a path relative to the folder
        of ``base.toml``.
    :ivar insecure: it may be ``http://``.
    """

    url: str
    provider: Literal["tarball"] = "tarball"
    insecure: bool = False

    def __post_init__(self) -> None:
        require(self.url and self.url.isprintable() and " " not in self.url, "url is malformed")
        urlsplit(self.url)  # Raises ValueError.
        require_secure(self.url, ("file", "https"), ("http",), insecure=self.insecure)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.url

    def provide(self, job: Job) -> Provided:
        """Download an archive and make a commit of it.

        :raises UserError: there is no such file, or it is no kernel.
        :raises InfraError: it could not be downloaded, or is damaged.
        """
        parts = urlsplit(self.url)
        if parts.scheme in ("http", "https"):
            path = job.work / (Path(unquote(parts.path)).name or "archive")
            _download(self, path, job)
        else:
            path = job.place(unquote(parts.path) if parts.scheme else self.url)
            if not path.is_file():
                raise UserError(f"{path}: no such file", hint=f"see {job.folder / 'base.toml'}")
        version = _SUFFIX.sub("", path.name)
        sha256 = file_sha256(path)
        job.verify(version, sha256)
        return import_archive(job, path, version=version, sha256=sha256)


def _opener(*, insecure: bool) -> OpenerDirector:
    """Return what opens URLs, and is led to no other than https on the way."""
    from urllib.request import HTTPRedirectHandler, build_opener

    class Redirect(HTTPRedirectHandler):
        def redirect_request(self, request: Any, *rest: Any) -> Any:
            target = rest[-1]
            if not (insecure or target.startswith("https://")):
                raise InfraError(f"{request.full_url}: leads to {target}", hint="not https")
            return super().redirect_request(request, *rest)

    return build_opener(Redirect)


def _download(source: TarballSource, path: Path, job: Job) -> None:
    # Not at the top: slow to import.
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    url, hint = source.url, "is the network up?"
    with progress.task(f"Downloading {url}", log=job.log) as step, path.open("wb") as file:
        try:
            with _opener(insecure=source.insecure).open(url, timeout=STALLED) as answer:
                length = int(answer.headers.get("Content-Length") or 0)
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    step.update(note=f"{file.tell() >> 20} of {length >> 20} MiB")
        except urllib.error.HTTPError as error:
            raise InfraError(f"{url}: HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise InfraError(f"{url}: {error.reason}", hint=hint) from error
        except (HTTPException, TimeoutError, ConnectionError) as error:
            raise InfraError(f"{url}: the download was interrupted: {error}", hint=hint) from error
        if length and file.tell() != length:
            raise InfraError(f"{url}: cut after {file.tell()} of {length} bytes", hint=hint)
