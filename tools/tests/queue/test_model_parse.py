# SPDX-License-Identifier: GPL-2.0-only
"""The series file and mail-form patches: what is read, and what is refused."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Callable
from pathlib import Path

import pytest

import toy
from iommuq.queue.model import Patch, Queue, find_step, load_queue, named_step
from iommuq.queue.parse import FileChange
from iommuq.system.errors import UserError

DIFF = """\
---
 a.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/a.c b/a.c
index 1111111..2222222 100644
--- a/a.c
+++ b/a.c
@@ -1,3 +1,3 @@
 one
-two
+zwei
 three
--\x20
2.39.5
"""
HEAD = """\
From 3838d3f82038699bcf82a53a0497f2df188c1f58 Mon Sep 17 00:00:00 2001
From: Ada Toy <ada@example.com>
Date: Wed, 7 Jun 2023 12:00:00 +0200
Subject: [PATCH v2 1/2] toy: say it in German
"""
BODY = "\nIt was said in English.\n"
GOOD = HEAD + BODY + DIFF
NAME = "resv/0001-toy.patch"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "patches" / "6.12"
    (where / "resv").mkdir(parents=True)
    return where


@pytest.fixture
def read(folder: Path) -> Callable[[str | bytes], Patch]:
    """Return a function that reads a queue of one patch."""

    def reader(mail: str | bytes) -> Patch:
        (folder / "series").write_text(f"{NAME}\n", encoding="utf-8")
        (folder / NAME).write_bytes(mail if isinstance(mail, bytes) else mail.encode())
        (patch,) = load_queue(folder, "6.12").patches
        return patch

    return reader


Read = Callable[[str | bytes], Patch]


def test_format_patch_output(read: Read, folder: Path) -> None:
    patch = read(HEAD + BODY + DIFF)
    assert patch.name == NAME
    assert patch.path == folder / NAME
    assert (patch.section, patch.label) == ("resv", "0001")
    assert patch.subject == "toy: say it in German"
    assert patch.author == "Ada Toy <ada@example.com>"
    assert patch.date == "1686132000 +0200"
    assert patch.message == "toy: say it in German\n\nIt was said in English.\n"
    assert patch.changes == (FileChange("a.c", 1, 1),)
    lines = (HEAD + BODY + DIFF).splitlines()
    assert lines[patch.diff_line - 1] == "---"


def test_message_is_stripped_as_git_am_does(read: Read) -> None:
    assert read(HEAD + "\n\none  \n\n\n\ntwo\n\n" + DIFF).message.endswith("\n\none\n\ntwo\n")


@pytest.mark.parametrize(
    "mail",
    [
        pytest.param((HEAD + BODY + DIFF).replace("\n", "\r\n"), id="crlf"),
        pytest.param((HEAD + BODY + DIFF).partition("\n")[2], id="no mbox line"),
        pytest.param(
            HEAD
            + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes((BODY + DIFF).replace("\n", "\r\n").encode()).decode(),
            id="base64 with crlf inside",
        ),
        pytest.param(
            HEAD
            + "Content-Type: text/plain; charset=utf-8\n"
            + "Content-Transfer-Encoding: quoted-printable\n\n"
            + quopri.encodestring((BODY + DIFF).encode()).decode(),
            id="quoted-printable",
        ),
    ],
)
def test_transport_does_not_matter(read: Read, mail: str) -> None:
    plain = read(HEAD + BODY + DIFF)
    other = read(mail)
    assert (other.message, other.author, other.date) == (plain.message, plain.author, plain.date)
    assert other.diff.strip() == plain.diff.strip()
    assert other.sha256 != plain.sha256


@pytest.mark.parametrize(
    ("header", "charset"),
    [
        ("Content-Type: text/plain; charset=utf-8\n", "utf-8"),
        ("Content-Type: text/plain; charset=iso-8859-1\n", "iso-8859-1"),
        # What git am takes a body for that is no UTF-8.
        ("", "iso-8859-1"),
        ("", "utf-8"),
    ],
)
def test_charsets(read: Read, header: str, charset: str) -> None:
    head = HEAD.replace("Ada Toy", "=?iso-8859-1?q?J=F6rg?= Toy") + header
    patch = read(head.encode() + "\nGrüße.\n".encode(charset) + DIFF.encode())
    assert patch.author == "Jörg Toy <ada@example.com>"
    assert patch.message.endswith("\n\nGrüße.\n")


def test_latin_1_in_a_header_that_does_not_say_so(read: Read) -> None:
    patch = read(
        GOOD.replace("Ada Toy", "Jörg Toy").replace("German", "Français").encode("latin-1")
    )
    assert patch.author == "Jörg Toy <ada@example.com>"
    assert patch.subject == "toy: say it in Français"


def test_in_body_from_wins(read: Read) -> None:
    assert read(HEAD + "\nFrom: B <b@example.com>\n" + BODY + DIFF).author == "B <b@example.com>"


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("1686132000 +0200", "1686132000 +0200"),
        ("@5 -0330", "5 -0330"),
        ("2023-06-07 12:00:00 +0200", "1686132000 +0200"),
        ("Wed, 07 Jun 2023 10:00:00 -0000", "1686132000 +0000"),
    ],
)
def test_dates(read: Read, text: str, raw: str) -> None:
    date = "Date: Wed, 7 Jun 2023 12:00:00 +0200"
    assert read(HEAD.replace(date, f"Date: {text}") + BODY + DIFF).date == raw


def _without(word: str) -> str:
    return "".join(line for line in GOOD.splitlines(True) if not line.startswith(word))


@pytest.mark.parametrize(
    ("mail", "complaint"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param(" \n\n", "the file is empty", id="blank"),
        pytest.param(_without("From: "), "no author", id="no from"),
        pytest.param(GOOD.replace(" <ada@example.com>", ""), "no author", id="no address"),
        pytest.param(_without("Subject: "), "no subject", id="no subject"),
        pytest.param(_without("Date: "), "no date", id="no date"),
        pytest.param(GOOD.replace("7 Jun", "77 Jun"), "is no date", id="bad date"),
        pytest.param(HEAD + BODY, "no diff in it", id="no diff"),
        pytest.param(GOOD + GOOD, "holds 2 mails", id="two mails"),
        pytest.param("hello\n", "no author", id="not a mail"),
        pytest.param(GOOD.replace("+zwei", "+zw\0i"), ":18: NUL byte", id="nul"),
        pytest.param("\ufeff" + GOOD, ":1: byte order mark", id="bom"),
        pytest.param(GOOD.partition("+zwei")[0], ":18: corrupt patch", id="cut in a hunk"),
        pytest.param(GOOD.partition("@@")[0], ":14: the diff ends too early", id="cut at a hunk"),
        pytest.param(GOOD.replace("-1,3 +1,3", "-1,9 +1,9"), "corrupt patch", id="counts"),
        pytest.param(
            GOOD.replace("1 file changed, 1 insertion", "2 files changed, 3 insertion").partition(
                "-- \n"
            )[0],
            "the diff ends too early",
            id="cut between files",
        ),
        pytest.param(GOOD.replace("/a.c", "/../a.c"), "'../a.c' is outside", id="climbs out"),
        pytest.param(GOOD.replace("/a.c", "/.git/config"), "is outside the tree", id="into .git"),
        pytest.param(
            HEAD + BODY + "---\ndiff --git a/x.bin b/x.bin\nnew file mode 100644\n"
            "index 0000000..1111111\nGIT binary patch\nliteral 1\nIcmZQ%00061\n\n"
            "literal 0\nHcmV?d00001\n\n",
            ":11: a binary patch",
            id="binary",
        ),
        pytest.param(
            HEAD + "Content-Type: text/plain; charset=no-such-thing\n" + BODY + DIFF,
            "no-such-thing",
            id="unknown charset",
        ),
    ],
)
def test_bad_mails(read: Read, mail: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        read(mail)
    assert complaint in caught.value.what
    assert NAME in caught.value.what
    assert "\n" not in str(caught.value)


def test_an_edited_diffstat_is_no_cut(read: Read) -> None:
    assert read(GOOD.replace("1 insertion", "7 insertion")).changes == (FileChange("a.c", 1, 1),)


@pytest.mark.parametrize(
    "section",
    [
        "diff --git a/x.sh b/x.sh\nold mode 100644\nnew mode 100755\n",
        "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
        "diff --git a/x b/x\nnew file mode 100644\nindex 0000000..e69de29\n",
    ],
)
def test_changes_without_a_hunk(read: Read, section: str) -> None:
    (change,) = read(HEAD + BODY + "---\n" + section).changes
    assert (change.added, change.deleted) == (0, 0)


def test_the_guilty_one_of_many_is_named(folder: Path) -> None:
    names = [f"resv/000{number}-toy.patch" for number in range(1, 5)]
    for name in names:
        (folder / name).write_text(GOOD, encoding="utf-8")
    (folder / names[2]).write_text(GOOD + GOOD, encoding="utf-8")
    (folder / "series").write_text("\n".join(names), encoding="utf-8")
    with pytest.raises(UserError, match=r"0003-toy\.patch: holds 2 mails"):
        load_queue(folder, "6.12")


def test_series_syntax(folder: Path) -> None:
    for name in ("0001-a.patch", "0002-b.patch"):
        (folder / "resv" / name).write_text(GOOD, encoding="utf-8")
    (folder / "series").write_text(
        "# all\n\n  resv/0001-a.patch -p1 # why\n./resv/0002-b.patch\t# because\r\n#resv/x\n",
        encoding="utf-8",
    )
    queue = load_queue(folder, "6.12")
    assert [patch.name for patch in queue.patches] == ["resv/0001-a.patch", "resv/0002-b.patch"]


def test_empty_series(folder: Path) -> None:
    (folder / "series").write_text("# nothing yet\n", encoding="utf-8")
    queue = load_queue(folder, "6.12")
    assert queue.patches == ()
    assert queue.steps == ("baseline",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("resv/0009-no.patch\n", "series:1: there is no resv/0009-no.patch"),
        ("#\nresv/0001-a.patch\nresv/0001-a.patch\n", "series:3: .*named twice, first in line 2"),
        ("resv/0001-a.patch\nresv//0001-a.patch\n", "series:2: .*named twice"),
        ("resv/link.patch\nresv/0001-a.patch\n", "series:2: .*named twice"),
        ("../outside.patch\n", "series:1: .*is outside"),
        ("resv/../../outside.patch\n", "series:1: .*is outside"),
        ("/etc/passwd\n", "series:1: /etc/passwd is outside"),
        ("resv/escape.patch\n", "series:1: .*is a link to .*outside.patch"),
        ("resv/loop.patch\n", "series:1: .*cannot be read"),
        ("resv\n", "series:1: resv is not a file"),
        ("resv/0001-a.patch/x\n", "series:1: .*cannot be read"),
        ("resv/0001-a.patch -p0\n", "series:1: -p0: only -p1"),
        ("resv/0001-a.patch -R\n", "series:1: -R: only -p1"),
        ("resv/0001-a.patch\nbaseline/0001-b.patch\n", "series:2: .*comes after"),
    ],
)
def test_bad_series(folder: Path, text: str, complaint: str) -> None:
    (folder.parent / "outside.patch").write_text(GOOD, encoding="utf-8")
    (folder / "baseline").mkdir()
    for name in ("resv/0001-a.patch", "baseline/0001-b.patch"):
        (folder / name).write_text(GOOD, encoding="utf-8")
    (folder / "resv/escape.patch").symlink_to("../../outside.patch")
    (folder / "resv/link.patch").symlink_to("0001-a.patch")
    (folder / "resv/loop.patch").symlink_to("loop.patch")
    (folder / "series").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        load_queue(folder, "6.12")


def test_no_series_and_no_text(folder: Path) -> None:
    with pytest.raises(UserError, match="series: No such file"):
        load_queue(folder, "6.12")
    (folder / "series").write_bytes(b"resv/\xff\n")
    with pytest.raises(UserError, match="series: not UTF-8 at byte 5"):
        load_queue(folder, "6.12")


@pytest.fixture
def queue(queue_maker: toy.QueueMaker) -> Queue:
    queue_maker.three()
    text = {"drivers/iommu/Kconfig": ('"IOMMU"', '"Toy IOMMU"')}
    queue_maker.add("late/0002-toy-name.patch", queue_maker.mail("toy: name the IOMMU", text))
    text = {"README": ("A toy", "The toy")}
    queue_maker.add("late/readme.patch", queue_maker.mail("toy: name the toy", text))
    return load_queue(queue_maker.folder, "6.12")


def test_labels(queue: Queue) -> None:
    assert [patch.label for patch in queue.baseline] == ["baseline/0001"]
    assert queue.steps == ("baseline", "0001", "0002", "late/0002", "late/readme")


def test_the_series_with_a_cover_letter_is_the_main_one(queue: Queue) -> None:
    (queue.folder / "late/0000-cover.md").write_text("# toy\n", encoding="utf-8")
    again = load_queue(queue.folder, "6.12")
    assert again.steps == ("baseline", "resv/0001", "resv/0002", "0002", "readme")


def test_labels_stay_apart(queue_maker: toy.QueueMaker) -> None:
    for number, name in enumerate(["s/0001-a.patch", "s/0001-b.patch", "s/base.patch"]):
        mail = queue_maker.mail(f"toy: {number}", {"README": f"{number}\n"})
        queue_maker.add(name, mail)
    steps = load_queue(queue_maker.folder, "6.12").steps
    assert steps == ("baseline", "s/0001-a", "s/0001-b", "s/base")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("base", "base"),
        ("baseline", "baseline"),
        ("0001", "0001"),
        ("1", "0001"),
        ("0002", "0002"),
        ("resv/0001", "0001"),
        ("late/0002", "late/0002"),
        ("0002-toy-name.patch", "late/0002"),
        ("patches/6.12/resv/0002-toy-drop-check.patch", "0002"),
        ("readme.patch", "late/readme"),
        ("DROP the", "0002"),
    ],
)
def test_find_step(queue: Queue, text: str, label: str) -> None:
    assert find_step(queue, text) == label


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0009", "no patch '0009' for 6.12; there are base, baseline, 0001, 0002"),
        ("", "no patch ''"),
        ("2", "ambiguous: 0002 .* or late/0002"),
        ("toy: name", "ambiguous: late/0002 .* or late/readme"),
        ("baseline/0001", "is a patch of the baseline"),
    ],
)
def test_find_no_step(queue: Queue, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        find_step(queue, text)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("baseline", "baseline"),
        ("0001", "0001"),
        ("resv/0001", "0001"),
        ("resv/0002-toy-drop-check.patch", "0002"),
        ("resv/0002-toy-drop-check", "0002"),
        ("late/0002", "late/0002"),
        ("late/readme", "late/readme"),
        # A file says exactly what it means.
        ("", None),
        ("base", None),
        ("1", None),
        ("0003", None),
        ("resv", None),
        ("resv/000", None),
        ("other/0001", None),
        ("0002-toy-name.patch", None),
        ("baseline/0001", None),
        ("toy: name", None),
    ],
)
def test_named_step(queue: Queue, name: str, label: str | None) -> None:
    assert named_step(queue, name) == label
