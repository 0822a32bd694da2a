# SPDX-License-Identifier: GPL-2.0-only
"""A mailing branch and the queue take from each other what belongs to them."""

from __future__ import annotations

from pathlib import Path

import pytest

import mailproject
from mailproject import FIRST, SECOND, SENDER, SERIES, TESTS, Sender
from toykernel import BASE, SUITE_C


@pytest.fixture
def sender(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sender:
    """Return somebody with a branch."""
    made = mailproject.template(tmp_path_factory.getbasetemp())
    found = mailproject.sender(made, tmp_path / "project")
    found.prep()
    return found


def refresh(sender: Sender) -> str:
    done = sender.run("queue", "refresh", "--from", str(sender.tree))
    assert done.code == 0, done
    return done.out


def test_branch_returns_into_the_queue(sender: Sender) -> None:
    before = {name: (sender.folder / name).read_bytes() for name in (FIRST, SECOND)}
    assert sender.mail("sign", "--yes").code == 0
    # Nothing changed but who stands for it, and that stays here.
    assert "patch" not in refresh(sender)
    assert {name: (sender.folder / name).read_bytes() for name in before} == before
    sender.amend("toy: Count up to two", "return 1 + 1;", "return 2 + 0;")
    said = refresh(sender)
    assert f"changed    {FIRST}" in said
    assert SECOND not in said
    assert (sender.folder / SECOND).read_bytes() == before[SECOND]
    assert "return 2 + 0;" in (sender.folder / FIRST).read_text()
    assert "Signed-off-by" not in (sender.folder / FIRST).read_text()
    assert TESTS not in (sender.folder / "series").read_text()
    assert refresh(sender) == "the queue is up to date\n"
    # The queue's own branch went along.
    ours = sender.git("log", "--format=%s", f"iommuq/{BASE}").splitlines()
    assert ours[:3] == ["toy: Mend the late device", "toy: Count up to two", "toy: Pave the way"]
    assert sender.run("queue", "apply", BASE).code == 0


def test_checkpatch_of_the_tree_has_its_say(sender: Sender) -> None:
    """b4 takes its standard error for failures, and it complains there of what it lacks."""
    program = sender.tree / "scripts/checkpatch.pl"
    program.write_text(
        "#!/bin/sh\ngrep -q '^Subject: .*Count' && echo '-:7: WARNING: told'\necho noise >&2\n"
    )
    program.chmod(0o755)
    # As if the tree had come with it.
    sender.git("update-index", "--assume-unchanged", "scripts/checkpatch.pl")
    done = sender.mail("check")
    assert done.code == 1
    assert done.out.count(": checkpatch: 7: WARNING: told") == 1
    assert "noise" not in done.out
    assert "passed" not in done.out
    # Besides ours, and not in their place.
    assert done.out.count(": iommuq: signed-off: ERROR: no Signed-off-by in a sent mail") == 3
    assert "no checkpatch" not in done.out


def test_work_on_the_queues_branch_is_not_lost(sender: Sender) -> None:
    sender.git("checkout", "--quiet", f"iommuq/{BASE}")
    sender.git("commit", "--quiet", "--amend", "-m", "toy: Mend the device")
    sender.git("checkout", "--quiet", f"b4/{SERIES}")
    done = sender.run("queue", "refresh", "--from", str(sender.tree))
    assert done.code == 2
    assert "has commits that are not in the queue" in done.err


def test_prep_again_takes_up_what_changed(sender: Sender) -> None:
    assert sender.mail("sign", "--yes").code == 0
    change_id = sender.git("log", "--format=%B").split('"change-id": "')[1].split('"')[0]
    sender.project.edit(SUITE_C, "Nobody has mended this yet.", "Somebody has mended this.")
    done = sender.mail("check")
    assert done.code == 1
    assert "the suites changed since `iommuq mail prep`" in done.out
    assert "no proof for this tree" in done.out
    done = sender.prep()
    assert f"v1, change-id {change_id}" in done.out
    assert done.out.count("To: Joe") == 1
    messages = sender.git("log", "-3", "--format=%s|%(trailers:key=Signed-off-by,valueonly)")
    # Who changed nothing need not sign again; what changed is unsigned.
    lines = [line for line in messages.splitlines() if line]
    assert lines[0] == f"{TESTS}|"
    assert lines[1:] == [f"toy: Mend the late device|{SENDER}", f"toy: Count up to two|{SENDER}"]
    assert (
        "Somebody has mended this."
        in (sender.tree / "drivers/iommu/tests/iommu_kunit.c").read_text()
    )
