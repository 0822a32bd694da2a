# SPDX-License-Identifier: GPL-2.0-only
"""The life of a series, with real b4, real public-inbox and real SMTP, all on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mailproject
from mailproject import FIRST, NEEDED, SECOND, Keys, Sender, reply
from mailservers import LIST, needs_archive, serve_archive, serve_post
from toykernel import BASE

pytestmark = [pytest.mark.real, needs_archive]


@pytest.fixture
def sender(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sender:
    made = mailproject.template(tmp_path_factory.getbasetemp())
    return mailproject.sender(made, tmp_path / "project")


def test_life_of_a_series(sender: Sender, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    with serve_archive(tmp_path / "archive") as archive, serve_post(archive) as post:
        # A branch of b4's, with what the series needs below it and the suites on top.
        done = sender.prep()
        assert "needs  pre/0001 toy: Pave the way" in done.out
        assert "To: Joe Maintainer <joe@example.com>" in done.out
        sender.use(post, archive)
        sender.configure({"patatt.keyringsrc": str(keys.make())})
        subjects = sender.git("log", "--format=%s").splitlines()
        assert subjects[:4] == [
            "toy: Add KUnit tests",
            "toy: Mend the late device",
            "toy: Count up to two",
            "toy: Keep the promise",
        ]
        suite = (sender.tree / "drivers/iommu/tests/iommu_kunit.c").read_text()
        assert "TOY_HAS_DRIVER" not in suite
        assert "Here is a driver" in suite
        assert not (sender.tree / "drivers/iommu/tests/toy_compat.h").exists()

        # Nothing is sent that nobody signed off, and nothing without --really.
        done = sender.mail("check")
        assert done.code == 1
        assert done.out.count("STOP signed-off") == 3
        assert "complete: kunit on um (native)" in done.out
        assert sender.mail("send", "--really").code == 1
        assert sender.mail("sign", "--yes").code == 0
        done = sender.mail("send")
        assert done.code == 0, done
        assert "Nothing was sent. 4 messages would go to 127.0.0.1" in done.out
        assert post.connections == 0

        # v1.
        done = sender.mail("send", "--really")
        assert done.code == 0, done
        assert "v1: 4 messages sent" in done.out
        first = [each.message for each in post.taken]
        assert [each["Subject"][:11] for each in first] == [f"[PATCH {n}/3]" for n in range(4)]
        letter = first[0]
        assert letter["X-Change-ID"]
        assert all(each["In-Reply-To"] == letter["Message-ID"] for each in first[1:])
        text = letter.get_content().replace("\r\n", "\n")
        assert "prerequisite-patch-id: " in text
        assert "  late_device                                 F  F  p" in text
        assert max(map(len, text[text.index("Proof:") :].split("\n---\n")[0].splitlines())) <= 75
        assert LIST in post.taken[0].recipients
        assert len(archive.messages()) == 4
        change_id = letter["X-Change-ID"]
        assert f"sent/{change_id}-v1" in sender.git("tag")
        # The queue knows what was sent, and what is at work now.
        assert f"change-id: {change_id}\nrevision: 2\nv1: " in sender.cover
        assert "Changes in v2:" in sender.cover
        assert "To: " not in sender.cover
        assert "Signed-off-by" not in (sender.folder / FIRST).read_text()

        # Answers: one plain, one signed, one forged, one for somebody else, one on all.
        archive.deliver(reply(first[1], "Reviewed-by: Bob Reviewer <bob@example.com>").as_bytes())
        carol = "Carol Signer <carol@example.com>"
        signed = keys.sign(reply(first[2], f"Tested-by: {carol}", sender=carol))
        archive.deliver(signed)
        false = keys.sign(reply(first[1], "Nacked.", sender=carol, msgid="<f@example.com>"))
        archive.deliver(false.replace(b"Nacked.", f"Acked-by: {carol}".encode()))
        other = reply(first[2], "Acked-by: Joe Maintainer <joe@example.com>")
        archive.deliver(other.as_bytes())
        dan = "Dan Late <dan@example.com>"
        archive.deliver(reply(letter, f"Acked-by: {dan}", sender=dan).as_bytes())

        # The first patch changes meanwhile: what was said of it is stale.
        sender.amend("toy: Count up to two", "return 1 + 1;", "return 2 + 0;")
        done = sender.mail("trailers")
        assert done.code == 1, done
        assert "stale: Reviewed-by: Bob Reviewer <bob@example.com>\n    given to v1 of" in done.out
        assert f"taken: Tested-by: {carol}" in done.out
        assert "signed by ed25519/carol@example.com" in done.out
        assert f"attestation fails: Acked-by: {carol}" in done.out
        assert "BAD SIGNATURE of ed25519/carol@example.com" in done.out
        assert "not by the sender: Acked-by: Joe Maintainer <joe@example.com>" in done.out
        assert f"taken: Acked-by: {dan}" in done.out
        assert f"stale: Acked-by: {dan}" in done.out
        first_patch, second = ((sender.folder / name).read_text() for name in (FIRST, SECOND))
        assert "return 2 + 0;" in first_patch
        assert "-by: " not in first_patch
        assert f"\nTested-by: {carol}\n" in second
        assert f"\nAcked-by: {dan}\n" in second
        assert "Joe" not in second
        assert "Signed-off-by" not in second
        assert (sender.folder / NEEDED).read_text()  # what is below is left alone

        # v2 is another content: it wants a proof and a changelog of its own.
        done = sender.mail("check")
        assert "no proof for this tree" in done.out
        assert "not filled in: - EDITME" in done.out
        assert sender.run("prove", BASE).code == 0
        sender.write_cover(
            "- EDITME: describe what is new in this series revision.\n"
            "- EDITME: use bulletpoints and terse descriptions.",
            "- patch 1: count with a zero",
        )
        done = sender.mail("send", "--really")
        assert done.code == 0, done
        assert len(post.taken) == 8
        again = [each.message for each in post.taken[4:]]
        assert again[0]["Subject"] == "[PATCH v2 0/3] toy: Keep the promise"
        assert again[0]["X-Change-ID"] == change_id
        assert f"Tested-by: {carol}" in again[2].get_content()
        assert "- patch 1: count with a zero" in again[0].get_content()
        assert "revision: 3" in sender.cover

        # And what is the difference?
        page = tmp_path / "diff.html"
        done = sender.mail("diff", "v1", "v2", "--html", str(page))
        assert done.code == 0, done
        assert "return 1 + 1" in done.out
        assert "return 2 + 0" in done.out
        assert "<span class=now>" in page.read_text()
        done = sender.mail("diff")
        assert done.out.count(" = ") == 3, done

        # The other side: what came of it for somebody who has the archive, and a sandbox.
        if shutil.which("bwrap") is None:
            return
        words = ("--base", BASE, "--at", "pre/0001", "-c", f"b4.midmask={archive.midmask}")
        done = sender.run("mail", "review", again[0]["Message-ID"].strip("<>"), *words)
        assert done.code == 0, done
        assert "2/3 fixes 1, breaks 0 of kunit" in done.out
        [draft] = sender.project.root.glob("review-*/0000-reply.eml")
        text = draft.read_text()
        assert f"In-Reply-To: {again[0]['Message-ID']}" in text
        assert "# Tested-by: Toy Committer <committer@example.com>" in text
