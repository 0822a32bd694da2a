# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's words mean for the checks of a scenario."""

from __future__ import annotations

import time

import pytest

from iommuq.firmware.scenario import Action, Scenario
from iommuq.results.store import Status
from iommuq.suites.firmware import verdicts
from iommuq.suites.firmware.verdicts import Ended, judge, read

STEPS = (
    Action("bind marked vfio-pci"),
    Action("claim group marked", "refused", ("EINVAL", "EPERM")),
    Action("dma marked region", "reached", "REACHED"),
)
ONE = Scenario("t", "h", ("m",), STEPS)
#: Lines of the script before the steps: a device, and "listen".
FIRST = 2
READY = ("step 0 ok 1234:11e8", "step 1 ok /dev/kmsg")
WELL = (*READY, "step 2 ok", "step 3 EPERM VFIO_SET_IOMMU", "step 4 REACHED 0x3e000000", "end")


def judged(*lines: str, trouble: str = "", splats: tuple[str, ...] = ()) -> dict[str, str]:
    found = judge(ONE, "m", read(lines), FIRST, trouble=trouble, splats=splats)
    return {one.check: f"{one.status.value} {one.message}".strip() for one in found}


def test_all_is_well() -> None:
    assert judged(*WELL) == {"refused": "pass", "reached": "pass", "no_splat": "pass"}


def test_another_word_than_expected_is_a_failure() -> None:
    lines = [line.replace("EPERM VFIO_SET_IOMMU", "ok group") for line in WELL]
    found = judged(*lines)
    assert found["refused"] == "fail `claim group marked`: ok (group), and not EINVAL or EPERM"
    # What comes after is judged all the same: that is how an exposure shows.
    assert found["reached"] == "pass"


def test_a_step_that_only_sets_up_is_no_verdict_on_the_kernel() -> None:
    found = judged(*READY, "step 2 UNBOUND its driver is none", *WELL[3:])
    assert found["refused"].startswith("error `bind marked vfio-pci` before it: UNBO")
    assert found["reached"].startswith("error")
    assert found["no_splat"] == "pass"


@pytest.mark.parametrize("word", ["HANG no answer within 20 s", "DIED Killed"])
def test_a_step_that_never_ends_fails_and_ends_the_rest(word: str) -> None:
    found = judged(*WELL[:3], f"step 3 {word}", trouble="exit status 1")
    assert found["refused"].startswith("fail ")
    # The kernel is to blame, but not once for each check.
    assert found["reached"].startswith("skip `claim group marked` before it")
    assert found["no_splat"].startswith("skip ")


def test_a_hang_in_what_only_sets_up_is_an_error() -> None:
    found = judged(*READY, "step 2 HANG no answer")
    assert {text.partition(" ")[0] for text in found.values()} == {"error"}


@pytest.mark.parametrize("word", verdicts.UNTOLD)
def test_an_oracle_that_does_not_work_is_an_error(word: str) -> None:
    found = judged(*WELL[:4], f"step 4 {word}", "end")
    assert found["reached"].startswith("error ")
    assert found["refused"] == "pass"


@pytest.mark.parametrize(
    ("word", "status"),
    [("OFF", "error"), ("STUCK", "error"), ("NOEDU", "error"), ("NOMEMORY", "error"),
     ("UNSEEN", "skip"), ("REACHED", "fail"), ("BLOCKED", "pass")],
)  # fmt: skip
def test_a_write_that_nothing_is_known_about_is_not_blocked(word: str, status: str) -> None:
    steps = (Action("dma marked other", "blocked", "BLOCKED"),)
    found = judge(Scenario("t", "h", ("m",), steps), "m", read([f"step 0 {word} why", "end"]), 0)
    assert found[0].status.value == status


def test_what_nobody_may_look_at_is_skipped() -> None:
    found = judged(*WELL[:4], "step 4 UNSEEN this kernel lets nobody look", "end")
    assert found["reached"] == "skip `dma marked region`: this kernel lets nobody look"
    assert found["no_splat"] == "pass"


def test_a_device_that_is_missing_is_an_error_of_all() -> None:
    found = judged("step 0 MISSING there is nothing at 0000:00:05.0", *WELL[1:])
    assert {text.partition(" ")[0] for text in found.values()} == {"error"}
    assert "there is nothing at 0000:00:05.0" in found["refused"]


def test_a_program_that_was_killed_says_so() -> None:
    found = judged(*WELL[:4], trouble="did not end within 90 s and was killed")
    assert found["refused"] == "pass"
    assert found["reached"] == "error did not end within 90 s and was killed"
    assert found["no_splat"].startswith("error")


def test_no_output_at_all() -> None:
    found = judged()
    assert {text.partition(" ")[0] for text in found.values()} == {"error"}


def test_a_splat_fails_whatever_else_there_was() -> None:
    assert judged(*WELL, splats=("WARNING: a", "BUG: b"))["no_splat"] == "fail WARNING: a\nBUG: b"
    assert judged(splats=("WARNING: a",))["no_splat"].startswith("fail")


def test_what_a_broken_kernel_does_not_come_to_is_skipped() -> None:
    found = judged(*WELL[:4], trouble="the guest was lost", splats=("BUG: a",))
    assert found == {
        "refused": "pass",
        "reached": "skip the guest was lost",
        "no_splat": "fail BUG: a",
    }
    # A machine that is not what it should be tells nothing about the kernel.
    found = judged("step 0 MISSING", splats=("BUG: a",))
    assert found["refused"].startswith("error")


def test_what_makes_no_sense_is_left_out() -> None:
    said = read(["step x ok", "step 1", "bytes 0 4", "\x1b[0m", "step 1 ok\x07", "bytes 2 zz"])
    assert said.data == {}
    assert said.steps == {1: Ended("ok\x07")}
    assert not said.whole


def test_the_first_word_of_a_step_counts() -> None:
    assert read(["step 1 EINVAL", "step 1 ok"]).steps[1].word == "EINVAL"


def test_bytes_are_joined() -> None:
    said = read(["bytes 0 444d", "bytes 0 4152", "step 0 ok 4 bytes", "end"])
    assert said.data[0] == b"DMAR"
    assert said.whole


def test_steps_of_other_machines_are_left_out() -> None:
    other = Scenario(
        "t", "h", ("m", "n"), (Action("listen", "a", machines=("n",)), Action("listen", "b"))
    )
    found = judge(other, "m", read(["step 0 ok", "end"]), 0)
    assert [(one.check, one.status) for one in found] == [
        ("b", Status.PASS),
        ("no_splat", Status.PASS),
    ]


def test_a_hang_is_the_last_word() -> None:
    assert verdicts.has_hung(["step 1 ok", "step 2 HANG no answer"])
    assert not verdicts.has_hung(["step 2 HANG no answer", "end"])
    assert not verdicts.has_hung([])


def test_a_hostile_program_is_read_in_linear_time() -> None:
    begin = time.thread_time()
    said = verdicts.read([*["bytes 0 " + "aa" * 30] * 100_000, "step " + "9" * 5000 + " ok"])
    assert len(said.data[0]) == 3_000_000
    assert said.steps == {}
    assert time.thread_time() < begin + 5
