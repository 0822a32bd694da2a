# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the commands as processes, from a cold cache to the table, on the toy kernel."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toykernel import BASE, FRAGMENT, IOMMU_C, KNOWN, SUITE_C, Project

TABLE = {
    "labels": ["baseline", "0001", "0002"],
    "toy_domain.block_refused": ["FAIL", "pass", "pass"],
    "toy_domain.plain_kept": ["pass", "pass", "pass"],
    "toy_domain.needs_pci": ["skip", "skip", "skip"],
    "toy_owner.late_device": ["known", "known", "known"],
    "toy_owner.claim": ["pass", "pass", "pass"],
    "kernel.no_splat_outside_of_cases": ["pass", "pass", "pass"],
}


def test_from_nothing_to_the_table(cold: Project) -> None:
    done = cold.run("run", BASE)
    assert done.code == 0
    assert done.cells == TABLE
    lines = done.out.splitlines()
    assert lines[0] == "Linux 6.12.117 (6.12.117), KUnit on User-mode Linux"
    fixes = "fixes 1 (toy_domain.block_refused), breaks none"
    assert f"0001 toy: refuse to block: {fixes}" in lines
    assert "0002 toy: drop the check: fixes none, breaks none" in lines
    assert lines[-1] == "PASS: toy: 6 tests at 3 steps"
    # Each step of the work on standard error, with a log that is there.
    logs = [Path(found) for found in re.findall(r"s, log (/\S+\.log)$", done.err, re.MULTILINE)]
    assert len(logs) == 8
    assert all(log.stat().st_size for log in logs)
    assert "Building toy 0001 for um: " in done.err
    assert cold.trace.count("make linux") == 3
    # Configured once: no patch touches a Kconfig file.
    assert cold.trace.count("kunit.py config") == 1


def test_the_second_run_is_answered_from_the_store(warm: Project) -> None:
    done = warm.run("run", BASE)
    assert done.code == 0
    assert done.cells == TABLE
    assert warm.trace == []
    assert "\x1b" not in done.out + done.err


def test_only_what_changed_is_built(warm: Project) -> None:
    maker = warm.maker
    maker.add(
        "resv/0003-more.patch", maker.mail("toy: more", {IOMMU_C: ("return 5;", "return 4;")})
    )
    warm.edit(KNOWN, "tests = [", 'until = "resv/0003"\ntests = [')
    done = warm.run("run", BASE)
    assert done.code == 0, done
    assert done.cells["toy_owner.late_device"] == ["known", "known", "known", "pass"]
    assert "0003 toy: more: fixes 1 (toy_owner.late_device), breaks none" in done.out
    assert warm.trace.count("make linux") == 1


def test_comments_in_a_fragment_are_no_change(warm: Project) -> None:
    warm.edit(FRAGMENT, "# As small", "# Another comment.\n# As small")
    assert warm.run("run", BASE).code == 0
    assert warm.trace == []


def test_kunit_on_one_step(warm: Project) -> None:
    done = warm.run("kunit", BASE)
    assert done.code == 0
    assert "pass            toy_domain.block_refused\n" in done.out
    assert done.out.endswith("PASS: toy 0002: 4 pass, 1 skipped, 1 known\n")

    done = warm.run("kunit", BASE, "--at", "baseline")
    assert done.code == 1
    assert "FAIL            toy_domain.block_refused\n" in done.out
    assert "    Expected toy_block() == -22, but\n" in done.out
    assert "toy_block() == 0 (0x0)" in done.out
    assert "FAIL: toy baseline: 3 pass, 1 skipped, 1 known, 1 FAIL" in done.out
    assert warm.trace == []


def test_kunit_filters(warm: Project) -> None:
    done = warm.run("kunit", BASE, "toy_domain.plain*", "toy_owner")
    assert done.code == 0, done
    tests = [line.split()[-1] for line in done.out.splitlines() if line.count(".") == 1]
    assert tests[:1] == ["toy_domain.plain_kept"]
    assert "toy_domain.block_refused" not in done.out
    assert "toy_owner.claim" in done.out
    # A filter is a boot of its own, and its results are kept as well.
    assert warm.trace == ["kunit.py exec"] * 2
    assert warm.run("kunit", BASE, "toy_domain.plain*", "toy_owner").out == done.out
    assert warm.trace == ["kunit.py exec"] * 2


def test_kunit_again(warm: Project) -> None:
    assert warm.run("kunit", BASE, "--again").code == 0
    assert warm.trace == ["kunit.py exec"]


def test_a_step_needs_no_later_patch(warm: Project) -> None:
    maker = warm.maker
    mail = maker.mail("toy: more", {IOMMU_C: ("return 5;", "return 4;")})
    maker.add("resv/0003-bad.patch", mail.replace(b"-\treturn 5;", b"-\treturn 6;"))
    assert warm.run("kunit", BASE, "--at", "0002").code == 0
    done = warm.run("run", BASE)
    assert done.code == 1
    assert "resv/0003-bad.patch" in done.err
    assert IOMMU_C in done.err


def test_quiet(cold: Project) -> None:
    done = cold.run("--quiet", "run", BASE)
    assert done.code == 0
    assert done.err == ""
    assert done.cells == TABLE


def test_unexpected_pass(warm: Project) -> None:
    text = (warm.root / KNOWN).read_text().replace("toy_owner.late_device", "toy_owner.claim")
    (warm.root / KNOWN).write_text((warm.root / KNOWN).read_text() + text)
    done = warm.run("run", BASE)
    assert done.code == 1
    assert done.cells["toy_owner.claim"] == ["PASS!"] * 3
    assert "0001: toy_owner.claim: unexpected pass" in done.out
    assert done.out.endswith("FAIL: toy: 3 findings\n")
    done = warm.run("kunit", BASE, "--at", "0001")
    assert done.code == 1
    assert "unexpected pass toy_owner.claim" in done.out


def test_expired_entry(warm: Project) -> None:
    warm.edit(KNOWN, "2999-01-01", "2020-02-29")
    done = warm.run("run", BASE)
    assert done.code == 1
    assert done.cells["toy_owner.late_device"] == ["EXPIRED"] * 3
    assert "0002: toy_owner.late_device: expired" in done.out


def test_regression_is_named_with_its_patch(warm: Project) -> None:
    maker = warm.maker
    maker.add("resv/0003-bad.patch", maker.mail("toy: bad", {IOMMU_C: ("return 2;", "return 9;")}))
    maker.add("resv/0004-no.patch", maker.mail("toy: no", {IOMMU_C: ("return 5;", "return 6;")}))
    done = warm.run("run", BASE)
    assert done.code == 1
    assert done.cells["toy_domain.plain_kept"] == ["pass", "pass", "pass", "FAIL", "FAIL"]
    assert "0003 toy: bad: fixes none, breaks 1 (toy_domain.plain_kept)" in done.out
    # Once, and with the patch that is to blame.
    closing = done.out.partition("\n\n0003")[0] and done.out.split("\n\n")[-1].splitlines()
    assert closing == ["0003 breaks toy_domain.plain_kept", "FAIL: toy: 0003 breaks 1 test"]


def test_a_failure_that_no_patch_brought(warm: Project) -> None:
    warm.edit(KNOWN, "toy_owner.late_device", "toy_owner.other")
    done = warm.run("run", BASE)
    assert done.code == 1
    assert done.cells["toy_owner.late_device"] == ["FAIL"] * 3
    assert "toy_owner.late_device fails with the whole queue applied" in done.out


def test_a_step_that_does_not_build_keeps_none_from_being_tried(warm: Project) -> None:
    maker = warm.maker
    bad = ("return 5;", "return oops;")
    maker.add("resv/0003-bad.patch", maker.mail("toy: bad", {IOMMU_C: bad}))
    maker.add("resv/0004-mend.patch", maker.mail("toy: mend", {IOMMU_C: bad[::-1]}))
    done = warm.run("run", BASE)
    assert done.code == 1
    assert done.cells["toy_domain.block_refused"] == ["FAIL", "pass", "pass", "-", "pass"]
    assert "0003 toy: bad: does not build" in done.out
    assert re.search(
        r"^0003: resv/0003-bad\.patch does not build for um: drivers/iommu/iommu\.c:\d+:\d+: error:"
        r" .oops. undeclared .*\(full log: /\S+\.log\)$",
        done.out,
        re.MULTILINE,
    )
    # The one before is not built again, and the one after has the image of another.
    assert warm.trace == ["kunit.py config", "make olddefconfig", "make linux"]


def test_a_new_warning_is_named_with_its_patch(warm: Project) -> None:
    maker = warm.maker
    maker.add(
        "resv/0003-warn.patch",
        maker.mail("toy: warn", {IOMMU_C: ("return 5;", "int unused;\n\n\treturn 5;")}),
    )
    maker.add("resv/0004-no.patch", maker.mail("toy: no", {"README": "Toy.\n"}))
    done = warm.run("run", BASE)
    assert done.code == 1
    warning = f"{IOMMU_C}: unused variable ‘unused’ [-Wunused-variable]"
    assert done.out.split("\n\n")[-1].splitlines() == [
        f"0003 adds a warning: {warning}",
        "FAIL: toy: 1 finding",
    ]


def test_a_splat_fails_the_case_it_fell_in(warm: Project) -> None:
    warm.edit(SUITE_C, "\t(void)test;", '\tputs("BUG: sleeping function called from toy.c:1");')
    done = warm.run("kunit", BASE)
    assert done.code == 1
    assert "FAIL            toy_owner.claim" in done.out
    assert "sleeping function" in done.out


def test_exit_code_of_a_wrong_command_line(warm: Project) -> None:
    for words, named in {
        ("kunit", BASE, "--arch", "vax"): "vax",
        ("run", BASE, "--timeout", "0"): "--timeout",
        ("run", BASE, "--timeout", "nan"): "--timeout",
        ("run", BASE, "extra"): "extra",
        ("frobnicate",): "frobnicate",
        ("--frobnicate",): "--frobnicate",
    }.items():
        done = warm.run(*words)
        assert done.code == 2
        assert named in done.err
        assert done.out == ""
        assert len(done.err.splitlines()) == 2
    assert warm.trace == []


def test_on_a_terminal(warm: Project) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "iommuq", "run", BASE],
        env={**warm.environment, "TERM": "xterm", "COLUMNS": "80"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        out = b""
        # Reading fails once nobody has the other end open.
        try:
            while data := os.read(leader, 4096):
                out += data
        except OSError:
            pass
        os.close(leader)
    assert process.returncode == 0
    row = next(line for line in out.decode().splitlines() if "block_refused" in line)
    assert re.sub(r"\x1b\[[\d;]*m", "", row).split() == ["block_refused", "✗", "✓", "✓"]


@pytest.mark.parametrize("command", ["run", "kunit"])
def test_output_that_nobody_takes(warm: Project, command: str) -> None:
    words = [sys.executable, "-m", "iommuq", command, BASE]
    # It is at exit that a small output is written.
    warm.extra["PYTHONUNBUFFERED"] = ""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            words, env=warm.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert len(done.stderr.partition("iommuq: ")[2].splitlines()) <= 2
    # As in `iommuq run | head -1`, where head is gone before we print.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        words, env=warm.environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert "iommuq: " not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_output_without_unicode(warm: Project) -> None:
    maker = warm.maker
    mail = maker.mail("toy: größer", {IOMMU_C: ("return 2;", "return 9;")})
    maker.add("resv/0003-bad.patch", mail)
    # A message of more lines than are shown: an ellipsis follows.
    expect = "KUNIT_EXPECT_EQ(test, toy_plain(), 2);"
    warm.edit(SUITE_C, expect, f'{expect}\n\tputs("é");' * 8)
    for command in ("run", "kunit"):
        done = warm.run(command, BASE, PYTHONIOENCODING="ascii:strict")
        assert done.code == 1
        assert "iommuq: " not in done.err
        assert ("gr\\xf6\\xdfer" if command == "run" else "\\u2026") in done.out


def test_an_image_of_equal_size_forges_no_verdict(warm: Project) -> None:
    """It is built again."""
    images = {}
    for path in warm.root.glob("cache/images/*/image.json"):
        data = json.loads(path.read_text())
        images[data["title"].split()[1]] = path.parent / "linux"
    forged, size = images["0001"].read_bytes(), images["baseline"].stat().st_size
    assert len(forged) <= size
    images["baseline"].write_bytes(forged.ljust(size, b"\0"))
    done = warm.run("kunit", BASE, "--at", "baseline", "--again")
    assert "toy_domain.block_refused" in done.out
    assert done.code == 1
    assert f"{images['baseline']}: sha256 is " in done.err
    warm.run("report", "--json", str(warm.root / "run.json"))
    (cell,) = json.loads((warm.root / "run.json").read_text())["run"]["cells"]
    assert cell["image"] == hashlib.sha256(images["baseline"].read_bytes()).hexdigest()
