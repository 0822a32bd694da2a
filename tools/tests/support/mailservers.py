# SPDX-License-Identifier: GPL-2.0-only
"""Real mail servers on loopback: a public-inbox archive, and SMTP that delivers into it.

Nothing here listens or talks beyond 127.0.0.1, and every port is one that the
kernel picked.  The archive's listening socket is made here and inherited, so
that there is no moment at which a client could come too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

#: The only address that anything here is bound to.
LOOPBACK = "127.0.0.1"
#: The list of the tests, as an address and as the archive calls it.
LIST = "iommu@lists.example.com"
INBOX = "iommu"
#: Seconds for one of public-inbox's programs, on a machine that is busy.
LIMIT = 120

_PROGRAMS = ("public-inbox-init", "public-inbox-mda", "public-inbox-httpd")

needs_archive = pytest.mark.skipif(
    any(shutil.which(name) is None for name in _PROGRAMS), reason="public-inbox is not installed"
)


@dataclass(frozen=True)
class Archive:
    """A V2 inbox of public-inbox below a directory.

    :ivar folder: the directory.
    :ivar url: what the archive is reached at while `served`, with a slash at its end.
    """

    folder: Path
    url: str

    @property
    def midmask(self) -> str:
        """What b4 makes the address of a message from: its ``b4.midmask``."""
        return f"{self.url}{INBOX}/%s"

    def deliver(self, mail: bytes) -> None:
        """Put a mail into the inbox, as the list's server does."""
        self._run("public-inbox-mda", "--no-precheck", mail=mail)

    def messages(self) -> list[EmailMessage]:
        """Return all mails of the inbox, the oldest first."""
        git_dir = self.folder / INBOX / "git" / "0.git"
        if not git_dir.exists():
            return []
        commits = _output("git", "rev-list", "--reverse", "--all", cwd=git_dir).split()
        mails = [_raw("git", "show", f"{each.decode()}:m", cwd=git_dir) for each in commits]
        return [message_from_bytes(mail, policy=policy.default) for mail in mails]

    def _run(self, *argv: str, mail: bytes = b"") -> None:
        done = subprocess.run(
            argv, input=mail, env=self.environment, capture_output=True, timeout=LIMIT, check=False
        )
        # public-inbox-mda puts what it cannot deliver aside and says so.
        if done.returncode != 0 or self._set_aside():
            raise AssertionError(f"{argv[0]}: {done.stderr.decode()}")

    def _set_aside(self) -> list[Path]:
        return list((self.folder / "emergency").rglob("new/*"))

    @property
    def environment(self) -> dict[str, str]:
        """What the programs of public-inbox are told."""
        return {
            **os.environ,
            "HOME": str(self.folder),
            "PI_CONFIG": str(self.folder / "config"),
            "PI_EMERGENCY": str(self.folder / "emergency"),
            "ORIGINAL_RECIPIENT": LIST,
        }


def _raw(*argv: str, cwd: Path) -> bytes:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, timeout=LIMIT).stdout


def _output(*argv: str, cwd: Path) -> bytes:
    return _raw(*argv, cwd=cwd).strip()


@contextlib.contextmanager
def serve_archive(folder: Path) -> Iterator[Archive]:
    """Make an inbox and serve it by HTTP for as long as the block lasts.

    :param folder: an empty or new directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
        archive = Archive(folder, url)
        place = str(folder / INBOX)
        archive._run("public-inbox-init", "-V2", INBOX, place, f"{url}{INBOX}", LIST)
        words = ("git", "config", "-f", str(folder / "config"))
        _raw(*words, "publicinboxmda.spamcheck", "none", cwd=folder)
        log = stack.enter_context((folder / "httpd.log").open("ab"))
        server = subprocess.Popen(
            # A socket that was inherited is number 3, and meant for whom LISTEN_PID names.
            [
                "sh",
                "-c",
                "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec public-inbox-httpd -W0",
            ],
            env=archive.environment,
            stdin=listener.fileno(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        stack.callback(_end, server)
        # Ours must not keep clients waiting if the server is no more.
        listener.close()
        yield archive


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(LIMIT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@dataclass(frozen=True)
class Delivery:
    """A mail that the SMTP server has taken.

    :ivar sender: the envelope's.
    :ivar recipients: the envelope's, those alone that were not refused.
    :ivar data: the mail.
    """

    sender: str
    recipients: tuple[str, ...]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        return message_from_bytes(self.data, policy=policy.default)


@dataclass
class Post:
    """An SMTP server, and what came to it; a test may change what it does at any time.

    :ivar port: on loopback.
    :ivar archive: where mail to the list goes; None for nowhere.
    :ivar refuse: recipient -> what it is answered with, ``550 no such user``.
    :ivar refuse_after: take so many mails, and answer all further ones with 451; None for
        no limit.
    :ivar drop_after: take so many mails, then cut the connection in the middle of the next.
    :ivar stall: never answer what comes after HELO.
    :ivar taken: the mails, in their order.
    :ivar connections: how many there were.
    """

    port: int
    archive: Archive | None = None
    refuse: dict[str, str] = field(default_factory=dict)
    refuse_after: int | None = None
    drop_after: int | None = None
    stall: bool = False
    taken: list[Delivery] = field(default_factory=list)
    connections: int = 0

    # What aiosmtpd calls; the names are its own.
    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, replies: list[str]
    ) -> list[str]:
        """Greet."""
        del server, envelope
        self.connections += 1
        session.host_name = hostname
        return replies

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer a sender, or do not."""
        del server, session
        if self.stall:
            await asyncio.sleep(10 * LIMIT)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or refuse it."""
        del server, session, options
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Take a mail, and deliver it to the list before it is answered for."""
        del session
        if self.drop_after is not None and len(self.taken) >= self.drop_after:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return "421 gone"
        if self.refuse_after is not None and len(self.taken) >= self.refuse_after:
            return "451 too much mail, try again later"
        assert isinstance(envelope.content, bytes)
        recipients = tuple(envelope.rcpt_tos)
        done = Delivery(envelope.mail_from or "", recipients, envelope.content)
        if self.archive is not None and LIST in recipients:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self.archive.deliver, done.data)
        self.taken.append(done)
        return "250 OK"


@contextlib.contextmanager
def serve_post(archive: Archive | None = None) -> Iterator[Post]:
    """Run an SMTP server for as long as the block lasts.

    :param archive: where mail to the list goes.
    """
    listener = socket.create_server((LOOPBACK, 0))
    post = Post(listener.getsockname()[1], archive)
    loop = asyncio.new_event_loop()

    def make() -> SMTP:
        return SMTP(post, hostname="localhost", enable_SMTPUTF8=True, loop=loop)

    server = loop.run_until_complete(loop.create_server(make, sock=listener))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield post
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(LIMIT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Yield a port of loopback at which nobody answers for as long as the block lasts."""
    # Bound, and not listening: a connection is refused, and nobody else can have it.
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Yield a port of loopback at which connections are taken, and nothing is ever said."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]
