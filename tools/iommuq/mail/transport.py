# SPDX-License-Identifier: GPL-2.0-only
"""Open the connection that mail is sent through; only this module does.

A server not on loopback, or a command, must also be permitted by ``iommuq.mailServer``.
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
#: Seconds to wait for one answer of a server.
PATIENCE = 60.0


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
