# SPDX-License-Identifier: GPL-2.0-only
"""What people, servers and threads do to a series that is mailed, and what is said of it."""

from __future__ import annotations

import mailbox
from collections.abc import Iterable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

import mailproject
from mailproject import FIRST, SECOND, SERIES, Sender, reply
from mailservers import LOOPBACK, serve_post, unused_port
from toykernel import BASE

BOB = "Bob Reviewer <bob@example.com>"


@pytest.fixture
def fresh(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sender:
    """Return somebody who has no branch yet."""
    made = mailproject.template(tmp_path_factory.getbasetemp())
    return mailproject.sender(made, tmp_path / "project")


@pytest.fixture
def ready(fresh: Sender) -> Sender:
    """Return somebody who may send, by nobody yet."""
    fresh.prep()
    assert fresh.mail("sign", "--yes").code == 0
    fresh.configure({"b4.send-no-patatt-sign": "yes", "b4.midmask": "http://127.0.0.1:9/x/%s"})
    return fresh


def test_nobody_says_who_sends(fresh: Sender) -> None:
    anonymous = {"GIT_COMMITTER_NAME": "", "GIT_COMMITTER_EMAIL": ""}
    done = fresh.mail("prep", BASE, SERIES, "--into", str(fresh.tree), **anonymous)
    assert done.code == 2
    assert "no sender: git has no user.name or no user.email" in done.err
    assert "git config --global user.name" in done.err
    assert "b4/" not in fresh.git("branch", "--list")


def test_series_that_cannot_be_mailed(fresh: Sender) -> None:
    done = fresh.mail("prep", BASE, "nonsense", "--into", str(fresh.tree))
    assert done.code == 2
    assert "no series 'nonsense'" in done.err
    assert "series: pre, follow" in done.err
    (fresh.folder / SERIES / "0000-cover.md").unlink()
    done = fresh.mail("prep", BASE, SERIES, "--into", str(fresh.tree))
    assert done.code == 2
    assert "2 patches and no cover letter" in done.err
    done = fresh.mail("check")
    assert done.code == 2
    assert "is not a mail branch" in done.err


def test_nothing_is_signed_without_being_asked_for(fresh: Sender) -> None:
    fresh.prep()
    done = fresh.mail("sign")
    assert done.code == 2
    assert "standard input is not a terminal" in done.err
    assert "Signed-off-by" not in fresh.git("log", "-3", "--format=%B")


def test_server_that_may_not_or_does_not(ready: Sender) -> None:
    ready.configure({"sendemail.smtpserver": "192.0.2.1"})
    done = ready.mail("send", "--really")
    assert done.code == 2
    assert "192.0.2.1 (192.0.2.1) is not on loopback, and not permitted" in done.err
    assert not (ready.project.root / "state/mail").exists()
    with unused_port() as port:
        ready.configure({"sendemail.smtpserver": LOOPBACK, "sendemail.smtpserverport": str(port)})
        done = ready.mail("send", "--really")
    assert done.code == 3
    assert f"127.0.0.1:{port}: connection refused" in done.err
    assert "v1" not in ready.git("tag")


def test_server_that_is_lost_half_way(ready: Sender) -> None:
    with serve_post() as post:
        ready.use(post)
        post.refuse["joe@example.com"] = "550 no such user"
        done = ready.mail("send", "--really")
        assert done.code == 3
        assert "joe@example.com 550 no such user" in done.out
        assert "stopped at [PATCH 0/3] toy: Keep the promise: refused for joe@ex" in done.out
        assert "v1" not in ready.git("tag")
        post.refuse.clear()
        post.drop_after = 3
        done = ready.mail("send", "--really")
        assert done.code == 3
        assert done.out.count("sent       [PATCH") == 2
        assert "unknown    [PATCH 2/3]" in done.out
        assert "to send    [PATCH 3/3]" in done.out
        post.drop_after = None
        before = len(post.taken)
        done = ready.mail("send", "--really")
        assert done.code == 0, done
        rest = [each.message["Subject"] for each in post.taken[before:]]
        assert rest == ["[PATCH 2/3] toy: Mend the late device", "[PATCH 3/3] toy: Add KUnit tests"]
    # One thread, whatever happened on the way.
    assert len({each.message["Message-ID"].rpartition("-")[2] for each in post.taken}) == 1
    assert [each.recipients for each in post.taken[:2]] == [
        ("iommu@lists.example.com", "ada@example.com", "committer@example.com"),
        ("joe@example.com",),
    ]
    assert "v1" in ready.git("tag")


def letters(sender: Sender, folder: Path) -> list[EmailMessage]:
    """Return the messages of a series as they would be sent."""
    done = sender.mail("send", "--output", str(folder))
    assert done.code == 0, done
    found = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in folder.glob("*.eml")
    ]
    return sorted(found, key=lambda each: str(each["Subject"]))


def write(path: Path, mails: Iterable[EmailMessage | bytes]) -> Path:
    """Write mails as a Maildir."""
    box = mailbox.Maildir(path)
    for each in mails:
        box.add(each if isinstance(each, bytes) else each.as_bytes())
    return path


def test_threads_in_every_state(ready: Sender, tmp_path: Path) -> None:
    """Whatever forms mails come in, b4 reads them, and what is wrong with a thread is told."""
    cover, first, second, tests = letters(ready, tmp_path / "out")
    plain = reply(first, f"Reviewed-by: {BOB}", msgid="<plain@example.com>")
    encoded = reply(first, f"Tested-by: {BOB}", msgid="<base64@example.com>")
    encoded.set_content(
        "Fine — really.\n\nTested-by: Bob Reviewer <bob@example.com>\n", cte="base64"
    )
    flowed = reply(second, "", msgid="<flowed@example.com>")
    flowed.set_content(f"Fine \nwith me.\n\nAcked-by: {BOB}\n", params={"format": "flowed"})
    attached = reply(second, f"Reviewed-by: {BOB}", msgid="<attached@example.com>")
    attached.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="x")
    dos = reply(cover, f"Acked-by: {BOB}", msgid="<dos@example.com>").as_bytes()
    dos = dos.replace(b"\n", b"\r\n")
    wrong = reply(second, f"Tested-by: {BOB}", msgid="<charset@example.com>").as_bytes()
    wrong = wrong.replace(b'charset="utf-8"', b'charset="no-such-charset"') + b"\xff\xfe\n"
    nameless = reply(first, "Acked-by: Eve <eve@example.com>").as_bytes()
    nameless = b"\n".join(
        line for line in nameless.split(b"\n") if not line.lower().startswith(b"message-id")
    )
    # Out of order, and one twice.
    box = write(
        tmp_path / "box",
        [
            dos,
            attached,
            wrong,
            nameless,
            flowed,
            encoded,
            plain,
            tests,
            second,
            first,
            cover,
            plain,
        ],
    )
    done = ready.mail("trailers", "--mbox", str(box), "--look")
    assert done.code == 0, done
    # The order does not matter, and who has no message id cannot be answered to.
    assert done.out.count("thread: ") == 1
    assert "thread: cannot be read: Re: [PATCH 1/3]" in done.out
    for patch, trailer in (
        ("Count up to two", f"Reviewed-by: {BOB}"),
        ("Count up to two", f"Tested-by: {BOB}"),
        ("Count up to two", f"Acked-by: {BOB}"),
        ("Mend the late device", f"Acked-by: {BOB}"),
        ("Mend the late device", f"Reviewed-by: {BOB}"),
    ):
        assert f"taken: {trailer}\n    for v1 of toy: {patch}" in done.out, done.out
    assert "Eve" not in done.out
    assert BOB not in ready.git("log", "--format=%B")

    # One is missing, one is there twice, and there is a second version of a part.
    again = message_from_bytes(first.as_bytes(), policy=policy.default)
    again.replace_header("Message-ID", "<other@example.com>")
    newer = message_from_bytes(second.as_bytes(), policy=policy.default)
    newer.replace_header("Message-ID", "<newer@example.com>")
    newer.replace_header("Subject", "[PATCH v2 2/3] toy: Mend the late device")
    box = write(tmp_path / "other", [cover, first, again, tests, newer, plain])
    done = ready.mail("trailers", "--mbox", str(box))
    assert "thread: v1: 2 of 3 missing" in done.out
    assert "thread: v1: 1/3 was posted 2 times" in done.out
    assert "thread: v2: 1, 3 of 3 missing" in done.out
    assert f"taken: Reviewed-by: {BOB}" in done.out
    # What is sound is taken all the same.
    assert f"\nReviewed-by: {BOB}\n" in (ready.folder / FIRST).read_text()
    assert BOB not in (ready.folder / SECOND).read_text()


def test_archive_that_is_down(ready: Sender) -> None:
    with unused_port() as port:
        ready.configure({"b4.midmask": f"http://127.0.0.1:{port}/iommu/%s"})
        done = ready.mail("trailers")
    assert done.code == 3, done
    assert "no answer, or no message of this series" in done.err
    done = ready.mail("trailers", "--mbox", str(ready.tree / "missing"))
    assert done.code == 2
