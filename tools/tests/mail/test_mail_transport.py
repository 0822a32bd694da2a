# SPDX-License-Identifier: GPL-2.0-only
"""No mail leaves loopback by accident, and what was sent half-way is known and resumed."""

from __future__ import annotations

import ast
import smtplib
import socket
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest

import iommuq
from iommuq.mail import b4tool, outbox
from iommuq.mail.outbox import Outbox, Server, connection
from iommuq.system.errors import InfraError, UserError
from mailservers import LOOPBACK, Post, serve_post, silent_port, unused_port

EVERYBODY = ("ada@example.com", "bob@example.com")


def never() -> tuple[smtplib.SMTP | list[str] | None, str]:
    raise AssertionError("connected")


def server(host: str = LOOPBACK, port: int = 0, permitted: str = "", **more: str) -> Server:
    values = {"smtpserver": host, "smtpserverport": str(port), **more}
    return Server.configured(values, permitted)


def test_default_is_loopback() -> None:
    default = Server.configured({}, "")
    assert default.title == LOOPBACK
    default.check()
    server("localhost", 25).check()
    server("::1").check()


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "0.0.0.0", "::"])
def test_other_hosts_are_refused_before_anything_is_connected(host: str) -> None:
    with (
        pytest.raises(UserError, match="not on loopback") as caught,
        connection(server(host), never),
    ):
        pass
    assert "iommuq.mailServer" in caught.value.hint


def test_names_are_what_they_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, *_: object, **__: object) -> list[Any]:
        addresses = {"mixed.example.org": [LOOPBACK, "192.0.2.1"], "far.example.org": ["192.0.2.1"]}
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for host in ("mixed.example.org", "far.example.org"):
        with pytest.raises(UserError, match=r"192\.0\.2\.1"), connection(server(host), never):
            pass
    server("far.example.org", permitted="far.example.org").check()
    with pytest.raises(UserError):
        # What is permitted is that one, and not all.
        server("mixed.example.org", permitted="far.example.org").check()


def test_commands_that_take_mail_are_refused(tmp_path: Path) -> None:
    for each in (server("/usr/sbin/sendmail"), server(sendmailcmd="msmtp -a work")):
        with pytest.raises(UserError, match="a command"), connection(each, never):
            pass
    command = f"{tmp_path}/sendmail"
    with connection(server(command, permitted=command), lambda: ([command], "")) as line:
        assert line == [command]
    # b4 looks at the configuration, too, and must have come to the same.
    with (
        pytest.raises(UserError, match="not checked"),
        connection(server(), lambda: ([command], "")),
    ):
        pass


def test_peer_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far:
        class sock:  # noqa: N801
            @staticmethod
            def getpeername() -> tuple[str, int]:
                return "192.0.2.1", 25

        @staticmethod
        def quit() -> None:
            pass

    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    with (
        pytest.raises(UserError, match="not on loopback"),
        connection(server(), lambda: (cast(smtplib.SMTP, Far()), "")),
    ):
        pass


def test_one_place_connects() -> None:
    """Whoever adds a second way out has to change this test, and to say why."""
    allowed = {
        "SMTP": set[str](),
        "SMTP_SSL": set[str](),
        "LMTP": set[str](),
        "get_smtp": {"mail/b4side.py"},
        "sendmail": {"mail/outbox.py"},
        "send_message": set[str](),
        "send_mail": set[str](),
        "cmd_send": {"mail/b4side.py"},
        "create_connection": set[str](),
    }
    root = Path(iommuq.__file__).parent
    found: dict[str, set[str]] = {name: set() for name in allowed}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in allowed:
                    found[name].add(path.relative_to(root).as_posix())
    assert found == allowed


def test_b4_itself_never_sends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b4 send is not allowed"):
        b4tool.b4("send", "-o", str(tmp_path), cwd=tmp_path)


def smtp(port: int) -> tuple[smtplib.SMTP, str]:
    """Connect as b4 does."""
    return smtplib.SMTP(LOOPBACK, port), "ada@example.com"


def test_server_that_is_down() -> None:
    with (
        unused_port() as port,
        pytest.raises(InfraError, match="connection refused"),
        connection(server(port=port), lambda: smtp(port)),
    ):
        pass


def test_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PATIENCE", 0.3)
    with (
        silent_port() as port,
        pytest.raises(InfraError, match=r"no answer within 0\.3"),
        connection(server(port=port), lambda: smtp(port)),
    ):
        pass
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    """Return an outbox with a letter and two patches for two people."""
    for number in range(3):
        mail = EmailMessage()
        mail["From"] = "Ada Toy <ada@example.com>"
        mail["To"] = EVERYBODY[0]
        mail["Cc"] = f'"Bob, B." <{EVERYBODY[1]}>, {EVERYBODY[0]}'
        mail["Subject"] = f"[PATCH {number}/2] toy {number}"
        mail["Message-ID"] = f"<{number}@example.com>"
        mail.set_content("From here\n.\nto there\n")
        (tmp_path / f"{2 - number:04}.eml").write_bytes(mail.as_bytes())
    made = Outbox(tmp_path)
    made.seal({"head": "1"})
    return made


def deliver(box: Outbox, post: Post) -> str:
    with connection(server(port=post.port), lambda: smtp(post.port)) as line:
        return outbox.deliver(box, line, "ada@example.com")


def test_all_goes_out_once_and_in_order(box: Outbox) -> None:
    with serve_post() as post:
        assert deliver(box, post) == ""
        assert deliver(box, post) == ""
    assert [each.message["Subject"] for each in post.taken] == [
        f"[PATCH {number}/2] toy {number}" for number in range(3)
    ]
    assert all(each.recipients == EVERYBODY for each in post.taken)
    assert post.taken[0].data.endswith(b"From here\r\n.\r\nto there\r\n")
    assert box.rest() == []


def test_refused_recipient_stops_and_alone_is_sent_to_later(box: Outbox) -> None:
    with serve_post() as post:
        post.refuse[EVERYBODY[1]] = "550 no such user"
        problem = deliver(box, post)
        assert problem == "[PATCH 0/2] toy 0: refused for bob@example.com: 550 no such user"
        assert [each.recipients for each in post.taken] == [EVERYBODY[:1]]
        assert box.states()["0002.eml", EVERYBODY[0]] == ("sent", "")
        assert box.states()["0002.eml", EVERYBODY[1]] == ("refused", "550 no such user")
        post.refuse.clear()
        assert deliver(box, post) == ""
    assert [each.recipients for each in post.taken] == [
        EVERYBODY[:1],
        EVERYBODY[1:],
        EVERYBODY,
        EVERYBODY,
    ]


def test_all_recipients_refused(box: Outbox) -> None:
    with serve_post() as post:
        post.refuse = dict.fromkeys(EVERYBODY, "550 no")
        assert "refused for ada@example.com: 550 no, bob@example.com: 550 no" in deliver(box, post)
        assert post.taken == []
        assert len(box.rest()) == 3


@pytest.mark.parametrize(("way", "state"), [("refuse_after", "failed"), ("drop_after", "unknown")])
def test_server_that_gives_up_half_way(box: Outbox, way: str, state: str) -> None:
    with serve_post() as post:
        setattr(post, way, 1)
        assert deliver(box, post).startswith("[PATCH 1/2] toy 1: ")
        assert [box.states()[name, EVERYBODY[0]][0] for name in ("0002.eml", "0001.eml")] == [
            "sent",
            state,
        ]
        assert [letter.name for letter, _ in box.rest()] == ["0001.eml", "0000.eml"]
        setattr(post, way, None)
        assert deliver(box, post) == ""
    assert [each.message["Message-ID"] for each in post.taken] == [
        f"<{number}@example.com>" for number in range(3)
    ]


def test_who_is_given_up_is_left_out(box: Outbox) -> None:
    for letter, _ in box.rest():
        box.note(letter.name, "skipped", EVERYBODY[1])
    with serve_post() as post:
        assert deliver(box, post) == ""
    assert all(each.recipients == EVERYBODY[:1] for each in post.taken)


def test_journal_of_somebody_who_was_killed(box: Outbox) -> None:
    box.note("0002.eml", "sent", EVERYBODY[0])
    with (box.folder / "journal").open("a") as journal:
        journal.write('["0002.eml", "se')
    assert box.begun
    assert box.rest()[0][1] == EVERYBODY[1:]
