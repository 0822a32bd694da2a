# SPDX-License-Identifier: GPL-2.0-only
"""Messages to send, with fixed message ids, and an append-only journal of each attempt.

After an interruption, the rest is sent in the same thread.
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import json
import os
import re
import smtplib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from iommuq.system import files
from iommuq.system.errors import CommandFailed, InfraError, UserError, os_errors_as
from iommuq.system.progress import one_line
from iommuq.system.run import run
from iommuq.system.tables import load_json

#: The configuration variable that permits a server which is not on loopback.
PERMISSION = "iommuq.mailServer"
#: Seconds to wait for one answer of a server.
PATIENCE = 60.0
_FACTS = "outbox.json"
_JOURNAL = "journal"
# Seconds for a command to send one mail.
_LIMIT = 120.0


@dataclass(frozen=True)
class Server:
    """Where mail is sent to.

    :ivar host: a name or an address; empty if a command is used.
    :ivar port: 0 for the default.
    :ivar command: sends mail in place of a server.
    :ivar permitted: the host or command that the user permits besides loopback.
    """

    host: str
    port: int
    command: str
    permitted: str

    @classmethod
    def configured(cls, sendemail: Mapping[str, object], permitted: str) -> Server:
        """Read git's configuration of mail.

        :param sendemail: the section, keys in lower case.
        :param permitted: the value of `PERMISSION`.
        :raises UserError: the port is not a number.
        """
        host = str(sendemail.get("smtpserver") or "127.0.0.1")
        command = str(sendemail.get("sendmailcmd") or ("" if "/" not in host else host))
        port = str(sendemail.get("smtpserverport") or "0")
        if not port.isdecimal() or int(port) > 65535:
            raise UserError(f"sendemail.smtpserverport: {port!r} is not a port")
        return cls("" if command else host, int(port), command, permitted)

    @property
    def title(self) -> str:
        """The command, or host and port."""
        return self.command or (f"{self.host}:{self.port}" if self.port else self.host)

    def check(self) -> None:
        """Check that mail may be sent there, without connecting.

        :raises UserError: it is not on loopback, and not permitted.
        :raises InfraError: there is no such host.
        """
        wanted = self.command or self.host
        if self.permitted == wanted:
            return
        hint = f"to permit it: `git config {PERMISSION} '{wanted}'`"
        if self.command:
            raise UserError(f"{self.command}: a command, and not permitted", hint=hint)
        for address in _addresses(self.host, self.port):
            if not ipaddress.ip_address(address).is_loopback:
                text = f"{self.host} ({address}) is not on loopback, and not permitted"
                raise UserError(text, hint=hint)


def _addresses(host: str, port: int) -> set[str]:
    try:
        found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InfraError(
            f"{host}: {getattr(error, 'strerror', None) or error}",
            hint="check sendemail.smtpserver",
        ) from error
    # A link-local address ends with a percent sign and its interface.
    return {str(each[4][0]).partition("%")[0] for each in found}


@contextlib.contextmanager
def connection(
    server: Server, connect: Callable[[], tuple[smtplib.SMTP | list[str] | None, str]]
) -> Iterator[smtplib.SMTP | list[str]]:
    """Open the connection for mail, for the duration of the block.

    :param connect: `b4.get_smtp`, which handles encryption and passwords.
    :return: the connection, or the argument vector of the command that sends mail.
    :raises UserError: mail may not be sent there.
    :raises InfraError: the server does not answer.
    """
    server.check()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        smtp, _ = connect()
    except (OSError, smtplib.SMTPException) as error:
        raise InfraError(
            f"{server.title}: {reason(error)}", hint="nothing was sent; try again later"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    if isinstance(smtp, list):
        if not server.command:
            raise UserError("b4 would send with a command that was not checked")
        yield smtp
        return
    assert smtp is not None
    try:
        _see_peer(server, smtp)
        yield smtp
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtp.quit()


def _see_peer(server: Server, smtp: smtplib.SMTP) -> None:
    """Check the address that was connected to, before the first mail."""
    if server.permitted == server.host:
        return
    peer = smtp.sock.getpeername()[0] if smtp.sock is not None else "no address"
    if smtp.sock is None or not ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
        raise UserError(f"{server.host} is connected to {peer}, which is not on loopback")


def reason(error: Exception) -> str:
    """Return why a server failed, in words."""
    # smtplib reports a timeout as a closed connection.
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return f"{error.smtp_code} {words}"
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class Letter:
    """A message in an outbox: the name of its file, and its content."""

    name: str
    data: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, parsed."""
        return message_from_bytes(self.data, policy=policy.default)

    @property
    def subject(self) -> str:
        """Its subject, on one line."""
        return one_line(re.sub(r"\s+", " ", str(self.message["Subject"])))

    @property
    def msgid(self) -> str:
        """Its message id, without brackets."""
        return str(self.message["Message-ID"]).strip().strip("<>")

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses in To and Cc, each once."""
        lines = [str(each) for key in ("To", "Cc") for each in self.message.get_all(key, [])]
        found = (address for _, address in email.utils.getaddresses(lines) if address)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Outbox:
    """A directory with messages and their journal."""

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether all messages were written."""
        return (self.folder / _FACTS).is_file()

    def letters(self) -> list[Letter]:
        """Return the messages in the order in which they are sent."""
        with os_errors_as(InfraError, self.folder):
            paths = sorted(self.folder.glob("*.eml"))
            letters = [Letter(path.name, path.read_bytes()) for path in paths]
        return sorted(letters, key=_number)

    def seal(self, facts: dict[str, Any]) -> None:
        """Record that all messages were written.

        :param facts: about them: the branch and its last commit.
        """
        files.write_json(self.folder / _FACTS, facts)

    def facts(self) -> dict[str, Any]:
        """Return the facts given to `seal`."""
        path, hint = self.folder / _FACTS, "the journal there lists what was sent"
        return load_json(dict[str, Any], path, InfraError(f"{path}: damaged", hint=hint)) or {}

    def note(self, letter: str, what: str, recipient: str, text: str = "") -> None:
        """Append a line to the journal, and sync it to disk."""
        line = json.dumps([letter, what, recipient, text]) + "\n"
        path = self.folder / _JOURNAL
        with os_errors_as(InfraError, path), path.open("a", encoding="utf-8") as journal:
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())

    def states(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return the last state, and the server's answer, by message and recipient.

        States: ``trying``, ``sent``, ``refused``, ``failed``, ``unknown``, ``skipped``.
        """
        return {
            (letter, recipient): (what, text) for letter, what, recipient, text in self._journal()
        }

    def _journal(self) -> Iterator[tuple[str, str, str, str]]:
        path = self.folder / _JOURNAL
        with os_errors_as(InfraError, path):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                letter, what, recipient, answer = json.loads(line)
            except ValueError:
                # The last line may be incomplete if the process was killed.
                continue
            yield letter, what, recipient, answer

    def rest(self) -> list[tuple[Letter, tuple[str, ...]]]:
        """Return the messages not sent yet, each with the recipients to send it to."""
        states = self.states()
        found = []
        for letter in self.letters():
            left = tuple(
                each
                for each in letter.recipients
                if states.get((letter.name, each), ("", ""))[0] not in ("sent", "skipped")
            )
            if left:
                found.append((letter, left))
        return found

    @property
    def begun(self) -> bool:
        """Whether any message may have been sent."""
        return any(True for _ in self._journal())


def _number(letter: Letter) -> tuple[int, str]:
    match = re.search(r"(\d+)/\d+\]", letter.subject)
    return (int(match[1]) if match else 0), letter.name


def deliver(box: Outbox, line: smtplib.SMTP | list[str], sender: str) -> str:
    """Send the messages not sent yet, in order, up to the first failure.

    :param line: from `connection`.
    :return: the failure, in one line; empty if all were sent.
    """
    for letter, recipients in box.rest():
        for each in recipients:
            box.note(letter.name, "trying", each)
        try:
            refused = _send(line, sender, recipients, letter.data)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except (OSError, smtplib.SMTPException) as error:
            answered = isinstance(error, smtplib.SMTPResponseException)
            for each in recipients:
                box.note(letter.name, "failed" if answered else "unknown", each)
            return f"{letter.subject}: {one_line(reason(error))}"
        for each in recipients:
            if each in refused:
                code, text = refused[each]
                words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
                box.note(letter.name, "refused", each, one_line(f"{code} {words}"))
            else:
                box.note(letter.name, "sent", each)
        if refused:
            who = ", ".join(
                one_line(f"{each}: {box.states()[letter.name, each][1]}") for each in refused
            )
            return f"{letter.subject}: refused for {who}"
    return ""


def _send(
    line: smtplib.SMTP | list[str], sender: str, recipients: tuple[str, ...], data: bytes
) -> dict[str, tuple[int, bytes]]:
    if isinstance(line, list):
        try:
            run([*line, *recipients], cwd=Path("/"), stdin=data, timeout=_LIMIT)
        except CommandFailed as error:
            raise smtplib.SMTPResponseException(error.returncode, error.what) from error
        return {}
    # CRLF line ends, as b4 sends them.
    wire = re.sub(rb"\r\n|\n|\r(?!\n)", b"\r\n", data)
    return line.sendmail(sender, list(recipients), wire)
