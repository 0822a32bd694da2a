# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.review.fetch: b4 in its own process, and archives that answer or do not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from iommuq.mail.review import fetch as fetching
from iommuq.system.errors import InfraError, UserError
from mailfetched import WANTED, changes, get
from mailservers import needs_archive, serve_archive
from seriesmaker import Series


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory for patches; b4 runs in its own process."""
    folder = tmp_path / "mails"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def test_no_archive_is_asked_that_nobody_named(process: Path) -> None:
    """b4's own default is the real one."""
    with pytest.raises(UserError, match="no archive is configured") as caught:
        fetching.fetch("x@example.com", process)
    assert "b4.midmask" in caught.value.hint


def midmask(server: socket.socket) -> list[str]:
    return [f"b4.midmask=http://127.0.0.1:{server.getsockname()[1]}/list/%s"]


def test_archive_that_is_down(process: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = midmask(server)
    with pytest.raises(InfraError) as caught:
        fetching.fetch("x@example.com", process, config=config)
    assert "\n" not in str(caught.value)


def test_archive_that_is_slow(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the request and says nothing; b4 is ended."""
    monkeypatch.setattr(fetching, "LIMIT", 6.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(InfraError, match="did not answer within 6 s"),
    ):
        fetching.fetch("x@example.com", process, config=midmask(server))


def answer_once(server: socket.socket, response: bytes) -> threading.Thread:
    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(response)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nrubbish",
        b"HTTP/1.0 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"\xff\xfe rubbish",
    ],
)
def test_archive_that_has_no_answer(process: Path, response: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer_once(server, response)
        with pytest.raises((UserError, InfraError)) as caught:
            fetching.fetch("x@example.com", process, config=midmask(server))
        server.shutdown(socket.SHUT_RDWR)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_worker_as_a_process(process: Path, series: Series, tmp_path: Path) -> None:
    """The whole way, once, and from a directory whose modules are somebody else's."""
    (tmp_path / "email.py").write_text("raise SystemExit('not the one of the library')\n")
    posted = get(process, series.write(tmp_path / "x.mbox"))
    assert changes(posted) == WANTED


def test_worker_takes_no_other_input(tmp_path: Path) -> None:
    argv: Sequence[str] = [sys.executable, "-P", "-m", "iommuq.mail.review.fetch_worker"]
    done = subprocess.run(argv, input=b"{}", capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == b""


@needs_archive
def test_archive(process: Path, series: Series, tmp_path: Path) -> None:
    """A real one: the thread is found by any of its messages, and by its address."""
    with serve_archive(tmp_path / "archive") as archive:
        for each in series.mails:
            archive.deliver(each.as_bytes())
        config = [f"b4.midmask={archive.midmask}"]
        posted = fetching.fetch("patch2@example.com", process, config=config)
        assert changes(posted) == WANTED
        address = archive.midmask.replace("%s", "cover@example.com/")
        assert fetching.fetch(address, process).title == "toy: Mend it"
        with pytest.raises(UserError, match="has no message nobody@"):
            fetching.fetch("nobody@example.com", process, config=config)
