# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.draft: what a reply says, and that its form holds whatever is in it."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import b4
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iommuq.bases.sources import Base
from iommuq.mail.review import draft
from iommuq.mail.review.fetch import Attestation, Message, Posted
from iommuq.mail.review.model import Answer, Checked, Ran, Remark, Reviewed, exit_code
from iommuq.mail.review.place import Place
from iommuq.queue.parse import Mail
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, UserError

DIFF = b"""\
---
 a.c | 3 ++-

diff --git a/a.c b/a.c
--- a/a.c
+++ b/a.c
@@ -10,3 +10,4 @@ int f(void)
 {
-\treturn 0;
+\tint x;
+\treturn g();
 }
"""
TEXT = "From: Ada\nSubject: [PATCH] x\n\nMessage.\n\nSigned-off-by: A <a@example.com>\n"


def message(number: int, **changes: object) -> Message:
    name = f"[PATCH {number}/2] iommu: Do it"
    reply = {
        "From": "Me <me@example.com>",
        "To": "Ada <ada@example.com>",
        "Cc": "list@example.com",
        "Subject": f"Re: {name}",
        "In-Reply-To": f"<p{number}@example.com>",
        "References": f"<p0@example.com> <p{number}@example.com>",
    }
    made = Message(f"p{number}@example.com", name, "Ada", "today", "What.\n\nMore.\n", reply)
    return replace(made, **changes)  # type: ignore[arg-type]


def ran(label: str, **changes: object) -> Ran:
    plain = Ran(label, "kunit", None, (), ("s.a", "s.b"), (), (), (), (), {}, "native")
    return replace(plain, **changes)  # type: ignore[arg-type]


def reviewed(*runs: Ran, reports: tuple[Checked, ...] = (), cover: bool = True) -> Reviewed:
    mail = Mail("A <a@example.com>", "0 +0000", "x", TEXT.partition("\n\n")[2], DIFF, 7, (), "0")
    base = cast(Base, type("B", (), {"kernel": "6.12.1", "version": "6.12.1-1"})())
    lines = tuple((TEXT + DIFF.decode()).split("\n"))
    return Reviewed(
        Posted(1, (1,), 3, "", message(0) if cover else None, (message(1), message(2))),
        Place(base, "base", (), "", met=False),
        (mail, mail),
        (lines, lines),
        ("before", "0001", "0002"),
        Answer({"kunit": "KUnit on UML"}, "gcc 12", runs, reports),
    )


CLEAN = (ran("before"), ran("0001"), ran("0002"))


def bodies(found: Reviewed) -> dict[str, str]:
    """Return the texts of the drafts, as a mail program reads them."""
    made = {}
    for each in draft.compose(found):
        parsed = email.message_from_bytes(each.data, policy=email.policy.default)
        assert not parsed.defects
        made[each.name] = parsed.get_content()
    return made


def test_nothing_to_say_is_one_mail() -> None:
    found = reviewed(*CLEAN)
    made = bodies(found)
    assert list(made) == ["0000-reply.eml"]
    text = made["0000-reply.eml"]
    assert "On today, Ada wrote:\n> What.\n> [...]\n" in text
    assert "Applied to Linux 6.12.1 (6.12.1-1)." in text
    assert "No patch changes a result: 2 pass, before and after." in text
    assert "# Tested-by: Me <me@example.com>" in text
    assert exit_code(found) == EXIT_OK


@pytest.mark.parametrize(
    "last",
    [
        ran("0002", passed=("s.a",), failed=("s.b",)),
        ran("0002", passed=(), failure="0002 does not build for um: a.c:12:1: error: no"),
        ran("0002", warnings=("a.c: warning: x",)),
        ran("0002", passed=("s.a",), flaky=("s.b",)),
    ],
)
def test_no_tested_by_for_what_is_not_well(last: Ran) -> None:
    found = reviewed(CLEAN[0], CLEAN[1], last)
    made = bodies(found)
    assert list(made) == ["0000-reply.eml", "0002-reply.eml"]
    assert "Tested-by" not in made["0000-reply.eml"]
    assert "See my replies to 2/2." in " ".join(made["0000-reply.eml"].split())
    assert exit_code(found) == EXIT_VERDICT


def test_no_tested_by_without_a_test() -> None:
    nothing = [replace(each, passed=()) for each in CLEAN]
    text = bodies(reviewed(*nothing))["0000-reply.eml"]
    assert "No test ran." in text
    assert "Tested-by" not in text


def test_no_verdict_is_no_verdict() -> None:
    lost = ran("0002", passed=(), unknown=("kernel.boots",))
    assert exit_code(reviewed(CLEAN[0], CLEAN[1], lost)) == EXIT_INFRA


def test_test_that_failed_before_is_nobodys_fault() -> None:
    fails = [ran(name, passed=("s.a",), failed=("s.b",)) for name in ("before", "0001", "0002")]
    found = reviewed(*fails)
    assert exit_code(found) == EXIT_OK
    assert "1 passes, 1 fails (s.b), before and after." in bodies(found)["0000-reply.eml"]


def test_table_is_what_changes() -> None:
    before = ran("before", passed=("s.b",), failed=("s.a",))
    found = reviewed(before, ran("0001"), ran("0002", passed=("s.a",), failed=("s.b",)))
    text = bodies(found)["0000-reply.eml"]
    assert "1/2 fixes 1 test. 2/2 breaks 1 test.\n" in text
    assert "        base    1/2    2/2\n  s\n" in text
    assert "\n    a   FAIL   pass   pass\n" in text
    assert "\n    b   pass   pass   FAIL\n" in text
    assert "There are no others." in text


def test_build_failure_is_quoted_where_it_is() -> None:
    failure = "review/0001.patch does not build for um: a.c:12:9: error: implicit 'g'"
    text = bodies(reviewed(CLEAN[0], ran("0001", failure=failure, passed=()), CLEAN[2]))
    quoted = text["0001-reply.eml"]
    wanted = "> +++ b/a.c\n> @@ -10,3 +10,4 @@ int f(void)\n>  {\n> +\tint x;\n> +\treturn g();\n\n"
    assert wanted in quoted
    assert quoted.index("return g()") < quoted.index("It does not build:\n| a.c:12:9: error")


def test_checks_are_quoted_where_they_are() -> None:
    """checkpatch counts the lines of the mail."""
    lines = (TEXT + DIFF.decode()).split("\n")
    number = lines.index("+\tint x;") + 1
    remark = Remark("warn", f"{number}: WARNING:LINE_SPACING: Missing a blank line")
    text = bodies(reviewed(*CLEAN, reports=(Checked("checkpatch", "0002", (remark,)),)))
    quoted = text["0002-reply.eml"]
    assert "> +\tint x;\n\ncheckpatch:\n| WARNING:LINE_SPACING: Missing a blank line\n" in quoted
    assert "> @@ -10,3 +10,4 @@ int f(void)\n" in quoted
    assert "return g()" not in quoted
    assert "Checked with checkpatch.pl --strict." in " ".join(text["0000-reply.eml"].split())


def test_skipped_check_is_told_to_the_person_alone() -> None:
    report = Checked("sparse", "0001", (Remark("skip", "sparse is not installed"),))
    text = bodies(reviewed(*CLEAN, reports=(report,)))["0000-reply.eml"]
    assert "# Not checked: sparse (sparse is not installed)" in text
    assert "Checked with" not in text


def test_signatures_are_told_to_the_person_alone() -> None:
    found = reviewed(*CLEAN)
    bad = message(1, attestation=(Attestation("badsig", "DKIM/example.com"),), errors=("why",))
    found = replace(found, posted=replace(found.posted, patches=(bad, message(2))))
    text = bodies(found)["0000-reply.eml"]
    said = [line for line in text.splitlines() if "BADSIG" in line]
    assert said
    assert all(line.startswith("# ") for line in said)


def test_one_patch_alone_has_one_reply() -> None:
    single = reviewed(*CLEAN[:2])
    report = Checked("subject", "0001", (Remark("warn", "the subject ends with a full stop"),))
    assert single.answer is not None
    single = replace(
        single,
        posted=replace(single.posted, cover=None, patches=(message(1),)),
        mails=single.mails[:1],
        texts=single.texts[:1],
        labels=single.labels[:2],
        answer=replace(single.answer, reports=(report,)),
    )
    [(name, text)] = bodies(single).items()
    assert name == "0000-reply.eml"
    assert text.index("the subject ends with a full stop") < text.index("Applied to")
    assert text.count("Ada wrote:") == 1


def test_without_a_cover_letter_the_first_patch_has_it() -> None:
    report = Checked("subject", "0001", (Remark("warn", "so it is"),))
    made = bodies(reviewed(*CLEAN, reports=(report,), cover=False))
    assert list(made) == ["0000-reply.eml"]
    assert "so it is" in made["0000-reply.eml"]


EVIL = st.text(
    alphabet=st.sampled_from(list("ab <>@,\"'\\\n\r\t\0\x1b\u202e\u00e9:=?()")), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(EVIL, EVIL, EVIL)
def test_headers_hold_whatever_is_in_them(subject: str, people: str, ids: str) -> None:
    """Property: nobody who sends a mail can put a header or a text into our reply."""
    found = reviewed(*CLEAN)
    reply = {"From": people, "To": people, "Cc": people, "Subject": f"Re: {subject}"}
    reply |= {"In-Reply-To": ids, "References": ids}
    evil = message(0, reply=reply, subject=subject, sender=people, date=ids, body=subject)
    made = draft.compose(replace(found, posted=replace(found.posted, cover=evil)))
    head, _, body = made[0].data.partition(b"\n\n")
    names = {line.split(b":")[0] for line in head.split(b"\n") if line[:1] != b" "}
    assert names <= {
        b"From", b"To", b"Cc", b"Subject", b"In-Reply-To", b"References",
        b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding",
    }  # fmt: skip
    assert b"\x1b" not in made[0].data
    assert b"\0" not in made[0].data
    assert b"\r" not in made[0].data
    assert body.startswith(b"# A draft; nothing was sent.")


FORGED = (
    "Reviewed-by: Eve <eve@example.com>",
    "x" * 60 + " Acked-by: Eve <eve@example.com>",
    "a\nFixes: 0123456789ab (x)",
    "a\r\n\r\nTested-by: Eve <eve@example.com>",
    "\u2028Reviewed-by: Eve <eve@example.com>",
    "Link: https://example.com/" + "y" * 80,
    "# Tested-by: Eve <eve@example.com>",
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.sampled_from(FORGED), EVIL), st.integers(0, 80))
def test_untrusted_text_makes_no_trailer(said: str, shift: int) -> None:
    """Property: neither a mail nor what came out of the sandbox makes a trailer in a reply."""
    said = "w" * shift + " " + said
    evil = message(1, sender=said, date=said, body=f"{said}\n\n{said}", remarks=(said,))
    runs = (
        ran("before", passed=(f"s.{said}", said), accelerator=said),
        ran("0001", passed=(), warnings=(said,), flaky=(said,), unknown=(f"{said}.b",)),
        ran("0002", passed=(), failure=f"{said}: {said}", messages={said: said}),
        ran("0002", lane="selftest", passed=(), failed=(said,), messages={said: said}),
    )
    reports = tuple(
        Checked(check, "0001", (Remark("fail", said, said), Remark("skip", said)))
        for check in ("checkpatch", "signed-off", said)
    )
    found = reviewed(*runs, reports=reports)
    assert found.answer is not None
    place = replace(found.place, wanted=said)
    posted = replace(found.posted, cover=evil, patches=(evil, evil), notes=(said,))
    answer = replace(found.answer, lanes={"kunit": said, "selftest": said}, compiler=said)
    found = replace(found, place=place, posted=posted, answer=answer)
    for each in (found, replace(found, answer=None, refusal=(1, said))):
        for made in draft.compose(each):
            body = made.data.partition(b"\n\n")[2].decode()
            trailers, _ = b4.LoreMessage.find_trailers(body)
            assert [trailer.as_string() for trailer in trailers] == []
            for line in body.splitlines():
                # The first line of a quote says who is quoted, and so it holds their name.
                if not line.startswith(("> ", "| ", "  | ", "# ", "On ")):
                    assert "eve@" not in line
                    assert not re.match(r"\s*[\w-]{2,}:\s+\S", line), line


def test_words_of_the_sandbox_are_one_line_each() -> None:
    endless = Remark("warn", f"{'9' * 5000}: a line")
    said = Remark("fail", "a\x1b[2Jb\nTested-by: Eve <eve@example.com>", "x\ny")
    broken = ran(
        "0002", passed=("s.a",), failed=("s.b",), messages={"s.b": "no\nTested-by: Eve\x07"}
    )
    reports = (Checked("subject", "0001", (said, endless)),)
    for text in bodies(reviewed(CLEAN[0], CLEAN[1], broken, reports=reports)).values():
        assert "\x1b" not in text
        assert "\x07" not in text
        assert not any(line.startswith("Tested-by") for line in text.splitlines())


def test_text_that_goes_on_and_on() -> None:
    many = tuple(Remark("warn", f"remark {number}") for number in range(500))
    tests = tuple(f"suite.case_{number}" for number in range(500))
    broken = ran("0002", passed=(), failed=tests)
    before = [ran(label, passed=tests) for label in ("before", "0001")]
    made = bodies(reviewed(*before, broken, reports=(Checked("width", "0001", many),)))
    assert all(len(text.splitlines()) < 120 for text in made.values())
    assert "and 492 more like these" in made["0001-reply.eml"]
    assert "and 476 more that change" in made["0000-reply.eml"]
    assert "and 492 more" in made["0002-reply.eml"]


def test_files(tmp_path: Path) -> None:
    made = draft.compose(reviewed(*CLEAN))
    paths = draft.write(made, tmp_path / "out")
    assert [path.name for path in paths] == ["0000-reply.eml"]
    with pytest.raises(UserError, match="never overwritten"):
        draft.write(made, tmp_path / "out")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="never overwritten"):
        draft.check_target(tmp_path / "file")
    assert draft.default_name("iommu: Keep it; rm -rf / ../..") == "review-iommu-keep-it-rm-rf"
    assert draft.default_name("../../..") == "review-series"
