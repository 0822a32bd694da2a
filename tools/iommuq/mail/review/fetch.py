# SPDX-License-Identifier: GPL-2.0-only
"""Get a posted series from an archive by its Message-ID, or from a file.

b4 does it in a process of its own; see `iommuq.mail.review.fetch_worker`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import iommuq
from iommuq.mail.review import reading
from iommuq.system import tables
from iommuq.system.errors import CommandTimeout, InfraError, UserError
from iommuq.system.progress import one_line
from iommuq.system.run import exceeded, run, tail
from iommuq.system.sandbox.bubblewrap import python_paths
from iommuq.system.sandbox.reader import read

#: Seconds for an archive, with all look-ups for signatures.
LIMIT = 180.0
#: Bytes of a file with mails.
MOST = 32 << 20
_BEGIN = re.compile(rb"From .*\r?\n")
_TO_A_SERVER = re.compile(r"https?://")


@dataclass(frozen=True)
class Attestation:
    """b4's result for one signature of a mail.

    :ivar status: ``signed``, ``badsig`` or ``nokey``.
    :ivar identity: ``DKIM/example.com`` or ``ed25519/ada@example.com``.
    :ivar mismatch: the sender of the mail, if another person signed it.
    """

    status: str
    identity: str
    mismatch: str = ""

    def __str__(self) -> str:
        words = {"signed": "Signed", "badsig": "BADSIG", "nokey": "No key"}
        text = f"{words.get(self.status, self.status)}: {self.identity}"
        return f"{text} (From: {self.mismatch})" if self.mismatch else text


@dataclass(frozen=True)
class Message:
    """A mail of the series.

    :ivar reply: headers of a reply to it.
    :ivar errors: of its signatures.
    :ivar remarks: changes by a mail program that were undone.
    """

    msgid: str
    subject: str
    sender: str
    date: str
    body: str
    reply: dict[str, str]
    attestation: tuple[Attestation, ...] = ()
    errors: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def signature(self) -> str:
        """The results for its signatures, in one line."""
        if not self.attestation:
            return "not signed"
        text = "; ".join(map(str, self.attestation))
        return f"{text} ({'; '.join(self.errors)})" if self.errors else text


@dataclass(frozen=True)
class Posted:
    """A complete series.

    :ivar revisions: the versions in the thread.
    :ivar base_commit: the base that it names; empty if none.
    :ivar notes: warnings of b4.
    :ivar mails: the patches as files, in order, in the form of ``b4 am``.
    """

    revision: int
    revisions: tuple[int, ...]
    messages: int
    base_commit: str
    cover: Message | None
    patches: tuple[Message, ...]
    notes: tuple[str, ...] = ()
    mails: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """The subject of the series, without prefixes."""
        head = self.cover or self.patches[0]
        return one_line(re.sub(r"^(?:\s*\[[^]]*\])+\s*", "", head.subject)) or "no subject"


def fetch(
    what: str,
    folder: Path,
    *,
    version: int | None = None,
    config: Sequence[str] = (),
    offline: bool = False,
) -> Posted:
    """Get a series.

    :param what: a Message-ID, an address in an archive, or a file or directory with mails.
    :param folder: an empty directory for the patches.
    :param version: None for the latest.
    :param config: settings of b4, ``b4.midmask=…``, besides git's configuration.
    :param offline: use no network, not even for the keys of signatures.
    :raises UserError: there is no such series, or it is not complete.
    :raises InfraError: the archive does not answer.
    """
    mbox: Path | None = None
    wanted: str | None = what
    if Path(what).exists():
        mbox, wanted = _readable(Path(what), folder), None
    elif "@" not in what:
        raise UserError(f"{what}: neither a file nor a Message-ID")
    elif offline:
        raise UserError("--offline: archives cannot be read", hint="name an mbox")
    elif not _TO_A_SERVER.match(what) and not _has_archive(config):
        raise UserError(
            "no archive is configured",
            hint="`git config --global b4.midmask https://lore.kernel.org/all/%s`",
        )
    wants = reading.needs(config, folder)
    request = {
        "what": wanted,
        "mbox": None if mbox is None else str(mbox),
        "version": version,
        "config": list(wants.config),
        "offline": offline,
        "folder": str(folder),
    }
    package = Path(iommuq.__file__).resolve().parents[1]
    try:
        done = read(
            [sys.executable, "-P", "-m", "iommuq.mail.review.fetch_worker"],
            cwd=folder,
            readable=[*python_paths(), *wants.readable],
            network=not offline,
            env={"PYTHONPATH": str(package), **wants.env},
            stdin=json.dumps(request),
            timeout=LIMIT,
            check=False,
            most=2 * MOST,
        )
    except CommandTimeout as error:
        if mbox is not None:
            raise UserError(f"{what}: not read within {LIMIT:g} s") from error
        raise InfraError(
            f"the archive did not answer within {LIMIT:g} s", hint="try again, or name an mbox"
        ) from error
    if done.returncode != 0 and (why := exceeded(done)):
        text = f"{one_line(what)}: b4 cannot read it: {why}"
        raise UserError(text, hint="or the machine is short of memory")
    try:
        return _posted(json.loads(done.output), folder)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        said = one_line(tail(done.stderr, 1)) or f"exit {done.returncode}"
        raise InfraError(f"b4 cannot read it: {said}", hint="run `b4 am` for details") from error


def _posted(answer: dict[str, Any], folder: Path) -> Posted:
    if "error" in answer:
        kind = UserError if answer["error"]["kind"] == "user" else InfraError
        raise kind(one_line(answer["error"]["what"]), hint=one_line(answer["error"]["hint"]))
    posted = tables.validate(Posted, answer, folder / "b4")
    mails = tuple(folder / f"{number:04}.eml" for number in range(1, len(posted.patches) + 1))
    if any(path.is_symlink() for path in mails):
        raise InfraError("b4 has written a link", hint="the patches are not read")
    return replace(posted, mails=mails)


def _has_archive(config: Sequence[str]) -> bool:
    """Tell whether an archive is configured; b4's default is not used."""
    if any(each.startswith("b4.midmask=") for each in config):
        return True
    done = run(["git", "config", "b4.midmask"], cwd=Path.cwd(), check=False)
    return bool(done.output.strip())


def _copied(maildir: Path, target: Path) -> Path:
    if not all((maildir / name).is_dir() for name in ("cur", "new", "tmp")):
        raise UserError(f"{maildir}: not a maildir", hint="name an mbox, a maildir or a mail")
    (target / "tmp").mkdir(parents=True)
    left = MOST
    for name in ("cur", "new"):
        (target / name).mkdir()
        for mail in sorted((maildir / name).iterdir()):
            data = mail.read_bytes() if mail.is_file() else b""
            left -= len(data)
            if left < 0:
                raise UserError(f"{maildir}: more than {MOST >> 20} MiB: too large for a series")
            (target / name / mail.name).write_bytes(data)
    return target


def _readable(path: Path, folder: Path) -> Path:
    """Return a copy of a file or Maildir for b4; a single mail becomes an mbox."""
    if path.is_dir():
        return _copied(path, folder / "maildir")
    try:
        # The size of a device or a pipe is not known.
        with path.open("rb") as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if len(data) > MOST:
        raise UserError(f"{path}: more than {MOST >> 20} MiB: too large for a series")
    if not data.strip():
        raise UserError(f"{path}: the file is empty")
    if b"\0" in data:
        raise UserError(f"{path}: NUL byte: not a mail")
    head = b"" if _BEGIN.match(data) else b"From mboxrd@z Thu Jan  1 00:00:00 1970\n"
    copy = folder / "thread.mbox"
    copy.write_bytes(head + data)
    return copy
