# SPDX-License-Identifier: GPL-2.0-only
"""The real lane of the userspace suites: Linux 6.12 under QEMU and UML; 7.3 in check-all."""

from __future__ import annotations

import re

import pytest

from realrun import iommuq

pytestmark = pytest.mark.real

#: The step before the patch that brings the rule.
BEFORE = "mock/0001"


def verdicts(text: str) -> dict[str, str]:
    """Read the printed verdicts, by test."""
    lines = re.findall(r"^([A-Za-z ]+?)  +(\w+\.\S+)$", text, re.MULTILINE)
    return {test: verdict for verdict, test in lines}


def test_userspace_cannot_have_a_device_that_firmware_needs() -> None:
    after = iommuq("selftest", "6.12", "resv_direct", "resv_direct_fail_nth")
    assert after.returncode == 0, after.stdout + after.stderr
    before = iommuq("selftest", "6.12", "resv_direct", "resv_direct_fail_nth", "--at", BEFORE)
    assert before.returncode == 1, before.stdout + before.stderr
    then, now = verdicts(before.stdout), verdicts(after.stdout)
    fixed = {test for test in now if now[test] == "pass" and then.get(test) == "FAIL"}
    assert "resv_direct.resv_direct.bind_refused_twice" in fixed
    assert "resv_direct_fail_nth.resv_direct_fail_nth.mixed_group" in fixed
    # The controls were right all along.
    for test in ("relaxable_binds", "plain_binds"):
        assert then[f"resv_direct.resv_direct.{test}"] == "pass"
    assert not [test for test in now if then.get(test) == "pass" and now[test] != "pass"]


def test_the_tree_s_own_suites_pass() -> None:
    done = iommuq("selftest", "6.12", "iommufd", "iommufd_fail_nth")
    assert done.returncode == 0, done.stdout + done.stderr
    found = verdicts(done.stdout)
    assert len(found) > 180
    assert set(found.values()) == {"pass"}


def test_under_uml_what_fails_is_known() -> None:
    done = iommuq("selftest", "6.12", "--on", "um")
    assert done.returncode == 0, done.stdout + done.stderr
    found = verdicts(done.stdout)
    assert set(found.values()) == {"pass", "known"}
    # The list matters: without it the same results are failures.
    without = iommuq("selftest", "6.12", "--on", "um", "--no-known")
    assert without.returncode == 1, without.stdout + without.stderr
    failed = {test for test, verdict in verdicts(without.stdout).items() if verdict == "FAIL"}
    assert failed == {test for test, verdict in found.items() if verdict == "known"}


@pytest.mark.full
@pytest.mark.parametrize("guest", ["qemu", "um"])
def test_newer_kernel(guest: str) -> None:
    done = iommuq("selftest", "7.3", "--on", guest)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(verdicts(done.stdout)) > 240
