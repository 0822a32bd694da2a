# SPDX-License-Identifier: GPL-2.0-only
"""The checks of a patch before it is sent, and what b4 makes of them."""

from __future__ import annotations

import email
import email.policy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import toy
import toykernel
from commandcall import call
from iommuq.checks import programs
from iommuq.checks import show as report
from iommuq.checks.model import CHECKS, Check, Finding, Report, Skipped, Status, Subject
from iommuq.checks.runner import check_mail, choose
from iommuq.checks.tables import Program, load_answers
from iommuq.cli.commands import queue
from iommuq.system.errors import UserError

GOOD = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: Ada Toy <ada@example.com>
Date: Wed, 7 Jun 2023 12:00:00 +0200
Subject: [PATCH] iommu: Note what toys need

Because of toys.

Link: https://lore.kernel.org/r/1
Signed-off-by: Ada Toy <ada@example.com>
---
 drivers/iommu/iommu.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/drivers/iommu/iommu.c b/drivers/iommu/iommu.c
index 1111111..2222222 100644
--- a/drivers/iommu/iommu.c
+++ b/drivers/iommu/iommu.c
@@ -1,3 +1,3 @@
 a
-b
+c
 d
"""
QUICK = ("subject", "width", "trailers", "signed-off", "blanks")


def statuses(text: str) -> dict[str, Status]:
    return {each.check: each.status for each in check_mail(text.encode(), QUICK)}


def test_good_mail() -> None:
    assert set(statuses(GOOD).values()) == {Status.PASS}


@pytest.mark.parametrize(
    ("old", "new", "check", "status"),
    [
        ("iommu: Note", "Note", "subject", "fail"),
        ("Note what toys need", "note what toys need", "subject", "warn"),
        ("toys need", "toys need.", "subject", "warn"),
        ("Note what", "Noted what", "subject", "warn"),
        ("Note what", "Note " + "w" * 95, "subject", "warn"),
        ("iommu: Note", "mm/slub: Note", "subject", "warn"),
        ("Because of toys.", "of toys " * 12, "width", "warn"),
        (
            "Because of toys.\n\nLink: https://lore.kernel.org/r/1\nSigned-off-by: Ada Toy "
            "<ada@example.com>\n",
            "",
            "width",
            "fail",
        ),
        ("Link: https://lore", "Link: lore", "trailers", "fail"),
        ("Link: https://lore.kernel.org/r/1", 'Fixes: 12345 ("x")', "trailers", "fail"),
        ("Link: https://lore.kernel.org/r/1", "Assisted-by: somebody", "trailers", "fail"),
        ("Signed-off-by: Ada Toy <ada@example.com>", "Signed-off-by: Ada", "trailers", "fail"),
        ("Because of toys.", "Fixes: b0a4 of toys.\n\nBecause.", "trailers", "warn"),
        ("Signed-off-by: Ada Toy <ada@example.com>\n", "", "signed-off", "fail"),
        ("+c\n", "+c \n", "blanks", "warn"),
        ("+c\n", "+<<<<<<< HEAD\n", "blanks", "fail"),
    ],
)
def test_bad_mail(old: str, new: str, check: str, status: str) -> None:
    assert old in GOOD
    found = statuses(GOOD.replace(old, new))
    assert found[check] == status


@pytest.mark.parametrize(
    "line",
    [
        'Fixes: 123456789abc ("iommu: Break toys")',
        "Assisted-by: Tool:1.0 sparse",
        "Closes: https://example.org/1 # [1]",
        "Reported-by: A B <a@b.c>",
    ],
)
def test_trailers_of_good_form(line: str) -> None:
    found = statuses(GOOD.replace("Link: https://lore.kernel.org/r/1", line))
    assert found["trailers"] is Status.PASS


def test_long_lines_that_cannot_be_broken() -> None:
    for line in ("x" * 90, "Link: https://example.org/" + "x" * 80, "    code " * 12):
        assert statuses(GOOD.replace("Because of toys.", line))["width"] is Status.PASS


def test_what_needs_a_tree_is_skipped_for_a_mail() -> None:
    found = {each.check: each for each in check_mail(GOOD.encode())}
    for name in ("checkpatch", "kernel-doc", "includes", "applies"):
        assert found[name].status is Status.SKIP, name
    assert "build-um" not in found


def test_tool_that_is_missing_is_skipped() -> None:
    check = Check("x", "x", lambda _: [], needs=("no-such-tool",))
    found = check.report(subject()).findings
    assert found == (Finding(Status.SKIP, "no-such-tool is not installed"),)


def subject(text: str = GOOD, where: Path | None = None) -> Subject:
    from iommuq.queue.model import Patch
    from iommuq.queue.parse import read_mails

    path = (where or Path("/nowhere")) / "p.patch"
    if where is None:
        patch = Patch("A <a@b>", "0 +0000", "s", "s\n", b"", 0, (), "", path, "p", "", "p")
        return Subject(patch, b"")
    path.write_text(text)
    mail = read_mails([path])[0]
    fields = {name: getattr(mail, name) for name in ("subject", "author", "date", "message")}
    patch = Patch(
        path=path,
        name="p",
        section="",
        label="p",
        diff=mail.diff,
        diff_line=1,
        changes=mail.changes,
        sha256="",
        **fields,
    )
    return Subject(patch, text.encode())


def program(script: str) -> Program:
    return Program("x", "x", ["sh", "-c", script, "sh", "{mail}"], ["sh"], "ERROR", "WARNING")


def test_program_that_finds_something(tmp_path: Path) -> None:
    found = programs.run_program(
        program("echo $1:3: ERROR bad; echo WARNING so so; echo fine; exit 1"),
        subject(where=tmp_path),
    )
    assert found == [Finding(Status.FAIL, "3: ERROR bad"), Finding(Status.WARN, "WARNING so so")]


def test_program_that_finds_nothing(tmp_path: Path) -> None:
    assert programs.run_program(program("echo fine"), subject(where=tmp_path)) == []


def test_program_that_fails_in_its_own_words_is_no_pass(tmp_path: Path) -> None:
    found = programs.run_program(program("echo oops; exit 7"), subject(where=tmp_path))
    assert found == [Finding(Status.FAIL, "oops")]


@pytest.mark.parametrize(
    "script", ["kill -9 $$", 'echo Cannot locate >&2; echo "Can\'t locate Foo.pm"; exit 2']
)
def test_program_that_cannot_run_is_skipped(tmp_path: Path, script: str) -> None:
    with pytest.raises(Skipped, match="cannot run here"):
        programs.run_program(program(script), subject(where=tmp_path))


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    assert {
        "applies",
        "build-um",
        "build-x86_64",
        "sparse",
        "checkpatch",
        "kernel-doc",
        "coccicheck",
        "includes",
        "spelling",
        "subject",
        "width",
        "trailers",
        "signed-off",
    } <= set(names)
    with pytest.raises(UserError, match="no check 'x'; there are"):
        choose(["x"], slow=False)


def test_skipped_never_shows_as_passed() -> None:
    reports = [Report("x", "0001", (Finding(Status.SKIP, "y is not installed"),))]
    assert reports[0].status is Status.SKIP
    assert "pass" not in report.as_table(reports) + report.as_b4(reports)
    assert json.loads(report.as_json(reports))[0]["status"] == "skip"


def test_answered_finding_does_not_fail() -> None:
    finding = Finding(Status.FAIL, "x")
    assert Report("x", "1", (finding,)).status is Status.FAIL
    assert Report("x", "1", (replace(finding, answer="because"),)).status is Status.PASS


def test_answers_that_are_malformed(tmp_path: Path) -> None:
    path = tmp_path / "checks.toml"
    path.write_text('[[answer]]\ncheck = "x"\npatch = "*"\ntext = "y"\nreason = " "\n')
    with pytest.raises(UserError, match="reason is empty"):
        load_answers(tmp_path)


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> toykernel.Project:
    """A project with the toy kernel whose images are built already."""
    made = toykernel.template(tmp_path_factory.getbasetemp())
    return toykernel.copy_project(made, tmp_path / "project", warm=True)


def test_new_warnings_of_a_patch(project: toykernel.Project) -> None:
    """What is warned of already is not the patch's; what it brings is."""
    maker = project.maker
    warns = "static int toy_unused(void)\n{\n\treturn 0;\n}\n\nint toy_plain(void)"
    edit = {toykernel.IOMMU_C: ("int toy_plain(void)", warns)}
    maker.add("resv/0003-toy-warn.patch", maker.mail("toy: Warn", edit))
    edit = {toykernel.IOMMU_C: ("return 2;", "return 1 + 1;")}
    maker.add("resv/0004-toy-add.patch", maker.mail("toy: Add", edit))
    done = project.run("queue", "check", toykernel.BASE, "--only", "build-um", "--json")
    found = {each["subject"]: each for each in json.loads(done.out)}
    assert done.code == 1, done
    assert [found[label]["status"] for label in ("0001", "0002", "0003", "0004")] == [
        "pass",
        "pass",
        "fail",
        "pass",
    ]
    (finding,) = found["0003"]["findings"]
    assert "toy_unused" in finding["text"]
    # And once more, without a build.
    project.forget_trace()
    again = project.run("queue", "check", toykernel.BASE, "--only", "build-um", "--json")
    assert json.loads(again.out) == json.loads(done.out)
    assert project.trace == []


def test_patch_that_does_not_build(project: toykernel.Project) -> None:
    maker = project.maker
    edit = {toykernel.IOMMU_C: ("return 2;", "return nothing;")}
    maker.add("resv/0003-toy-break.patch", maker.mail("toy: Break", edit))
    done = project.run("queue", "check", toykernel.BASE, "--patch", "0003", "--only", "build-um")
    assert done.code == 1
    assert "does not build for um" in done.out


def test_answer_makes_the_queue_clean(project: toykernel.Project) -> None:
    words = ("queue", "check", toykernel.BASE, "--only", "subject")
    done = project.run(*words)
    assert done.code == 1
    assert "capital letter" in done.out
    (project.root / "patches" / toykernel.BASE / "checks.toml").write_text(
        "".join(
            f'[[answer]]\ncheck = "subject"\npatch = "*"\ntext = "{text}"\nreason = "toys"\n'
            for text in ("capital letter", "files like these")
        )
    )
    done = project.run(*words)
    assert done.code == 0, done
    assert "answered: toys" in done.out


# What follows is b4's own code, fed with our command.

COMMAND = f"{sys.executable} -m iommuq queue check-mail"


def message(text: str) -> email.message.EmailMessage:
    parsed = email.message_from_string(text, policy=email.policy.EmailPolicy(utf8=True))
    assert isinstance(parsed, email.message.EmailMessage)
    return parsed


@pytest.fixture
def with_iommuq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the package under test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.usefixtures("with_iommuq")
def test_b4_reads_what_we_say_in_a_review(toy_work: Path) -> None:
    checks = pytest.importorskip("b4.review.checks")
    bad = GOOD.replace("iommu: Note", "Note")
    mails = [("good@x", message(GOOD)), ("bad@x", message(bad))]
    found = checks.run_perpatch_checks(mails, [f"{COMMAND} --only subject"], str(toy_work))
    assert [each["status"] for each in found["good@x"]] == ["pass"]
    (each,) = found["bad@x"]
    assert (each["tool"], each["status"]) == ("iommuq subject", "fail")
    assert "no prefix" in each["summary"]


@pytest.mark.usefixtures("with_iommuq")
def test_b4_reads_what_we_say_of_a_series(toy_work: Path) -> None:
    """The mail is the cover letter, in which there is nothing to check."""
    checks = pytest.importorskip("b4.review.checks")
    head = GOOD[: GOOD.index("---\n drivers")].replace("[PATCH]", "[PATCH 0/2]")
    assert checks.run_series_checks(("x@y", message(head)), [COMMAND], str(toy_work)) == []


@pytest.mark.usefixtures("with_iommuq")
def test_b4_shows_skipped_as_a_warning(toy_work: Path) -> None:
    checks = pytest.importorskip("b4.review.checks")
    command = f"{COMMAND} --only checkpatch"
    found = checks.run_perpatch_checks([("x@y", message(GOOD))], [command], str(toy_work))
    (each,) = found["x@y"]
    assert each["status"] == "warn"
    assert "skip" in each["summary"]


@pytest.mark.usefixtures("with_iommuq")
def test_b4_prep_check(toy_work: Path) -> None:
    """`b4 prep --check` itself, on a branch with a good and a bad patch."""
    pytest.importorskip("b4")
    b4 = Path(sys.executable).with_name("b4")
    if not b4.exists():
        pytest.skip("the command b4 is not installed")

    # b4 looks for its branches among the commits of the last year.
    now = {name: value for name, value in os.environ.items() if not name.endswith("_DATE")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=toy_work, env=now, capture_output=True, text=True, check=False, timeout=120
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    for key, value in {
        # b4 only takes branches of one's own, and the tests commit as this person.
        "user.name": "Toy Committer",
        "user.email": "committer@example.com",
        "b4.prep-perpatch-check-cmd": f"{COMMAND} --form lines --only subject --only blanks",
    }.items():
        toy.git("config", key, value, cwd=toy_work)
    run(str(b4), "--no-interactive", "--offline-mode", "prep", "-n", "toys", "-f", "HEAD")
    for name, subject_line in (("README", "iommu: Mend toys"), ("Kconfig", "Mend more")):
        (toy_work / name).write_text(f"{subject_line}\n")
        message_text = f"{subject_line}\n\nBecause.\n\nSigned-off-by: Ada Toy <ada@example.com>"
        run("git", "commit", "-q", "-a", "-m", message_text)
    done = run(str(b4), "--no-interactive", "--offline-mode", "prep", "--check")
    said = done.stdout + done.stderr
    assert "iommu: Mend toys" in said, said
    assert "no prefix that names the subsystem" in said
    assert said.count("ERROR") == 1


def test_command_line_without_a_mail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is no mail is the user's mistake; a letter has nothing to check."""
    path = tmp_path / "in"
    path.write_bytes(b"From: a\n\nhello\n")
    with path.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert call(queue.check_mail_, "json", ()) == 0
    assert capsys.readouterr().out == "[]\n"
    path.write_text(GOOD.replace("From: Ada Toy <ada@example.com>\n", ""))
    with path.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(UserError, match="no author"):
            call(queue.check_mail_, "json", ())
    assert shutil.which("git")
