# SPDX-License-Identifier: GPL-2.0-only
"""The one place that opens a connection for mail to leave by, and the rule for it.

Mail goes to a server on loopback.  Any other must be named twice: as
``sendemail.smtpserver``, which people have set for other work, and as
``iommuq.mailServer``, which says that this tool may use it, too.  The same
goes for a command that takes mail (``sendemail.sendmailcmd``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import smtplib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from iommuq.system.errors import InfraError, UserError

#: The configuration variable that permits a server which is not on loopback.
PERMISSION = "iommuq.mailServer"
#: Seconds that a server may take for one answer.
PATIENCE = 60.0

_DEFAULT = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """Where mail goes.

    :ivar host: a name or an address; empty if a command takes it.
    :ivar port: 0 for the usual one.
    :ivar command: what takes it in place of a server.
    :ivar permitted: what the user permits besides loopback.
    """

    host: str
    port: int
    command: str
    permitted: str

    @classmethod
    def configured(cls, sendemail: Mapping[str, object], permitted: str) -> Server:
        """Read git's configuration of mail, as b4 has it.

        :param sendemail: the section, keys in small letters.
        :param permitted: `PERMISSION`.
        :raises UserError: the port is no number.
        """
        host = str(sendemail.get("smtpserver") or _DEFAULT)
        command = str(sendemail.get("sendmailcmd") or ("" if "/" not in host else host))
        port = str(sendemail.get("smtpserverport") or "0")
        if not port.isdecimal() or int(port) > 65535:
            raise UserError(f"sendemail.smtpserverport: {port!r} is no port")
        return cls("" if command else host, int(port), command, permitted)

    @property
    def title(self) -> str:
        """What to call it."""
        return self.command or (f"{self.host}:{self.port}" if self.port else self.host)

    def check(self) -> None:
        """See that mail may go there; nothing is connected to.

        :raises UserError: it is not on loopback, and nobody permitted it.
        :raises InfraError: there is no such host.
        """
        wanted = self.command or self.host
        if self.permitted == wanted:
            return
        what = "a command" if self.command else "not on loopback"
        hint = f"`git config {PERMISSION} '{wanted}'` permits it, to really send"
        if self.command:
            raise UserError(f"{self.command}: {what}, which may send mail anywhere", hint=hint)
        for address in _addresses(self.host, self.port):
            if not ipaddress.ip_address(address).is_loopback:
                raise UserError(f"{self.host} ({address}) is {what}: no mail goes there", hint=hint)


def _addresses(host: str, port: int) -> set[str]:
    try:
        found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InfraError(
            f"{host}: {getattr(error, 'strerror', None) or error}",
            hint="sendemail.smtpserver says where mail goes",
        ) from error
    # A link-local address has its interface behind a percent sign.
    return {str(each[4][0]).partition("%")[0] for each in found}


#: What sends one mail: the envelope's sender and recipients, and the mail.
#: It returns what was refused, with the answer.
Send = Callable[[str, list[str], bytes], dict[str, tuple[int, bytes]]]


@contextlib.contextmanager
def connection(
    server: Server, connect: Callable[[], tuple[smtplib.SMTP | list[str] | None, str]]
) -> Iterator[smtplib.SMTP | list[str]]:
    """Open the connection that mail leaves by, for as long as the block lasts.

    Nothing else in this package connects to a server for mail.

    :param connect: `b4.get_smtp`, which knows of encryption and passwords.
    :return: the server's connection, or the words of the command that takes mail.
    :raises UserError: mail may not go there.
    :raises InfraError: the server does not answer.
    """
    server.check()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        smtp, _ = connect()
    except (OSError, smtplib.SMTPException) as error:
        raise InfraError(
            f"{server.title}: {reason(error)}", hint="nothing went out; try again later"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    if isinstance(smtp, list):
        if not server.command:
            raise UserError("b4 wants to send by a command that was not looked at")
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
    """See who is really at the other end, before anything is said about a mail."""
    if server.permitted == server.host:
        return
    peer = smtp.sock.getpeername()[0] if smtp.sock is not None else "nobody"
    if smtp.sock is None or not ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
        raise UserError(f"{server.host} led to {peer}, which is not on loopback")


def reason(error: Exception) -> str:
    """Say in words why a server failed."""
    # smtplib wraps it as a connection that was closed.
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody answers there"
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return f"{error.smtp_code} {words}"
    return str(error) or type(error).__name__
