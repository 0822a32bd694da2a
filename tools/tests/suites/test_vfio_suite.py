# SPDX-License-Identifier: GPL-2.0-only
"""The tree's selftests/vfio: how a program is judged with each device, and what a guest tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firmwareguests import KERNEL, SUBJECT, TABLES, WARN
from iommuq.firmware import override, program, scenario
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport, SuiteReport
from iommuq.guests.initramfs import Initramfs
from iommuq.guests.machine import Machine
from iommuq.results.store import Status, Store, SuiteRun
from iommuq.suites.vfio import run as vfio
from iommuq.suites.vfio.run import Built, run_key, run_vfio
from iommuq.suites.vfio.suite import CONTROL, MARKED, Program, choose, load_suite
from iommuq.suites.vfio.verdicts import Judged, judge
from iommuq.system.errors import UserError
from iommuq.system.files import project_root

SUITE = load_suite(project_root())
PROGRAM = Program("prog", 60, unopened=("a.without",))
HEAD = ("TAP version 13", "1..1", "# Starting 1 tests from 1 test cases.", "#  RUN   a.case ...")
PASSES = (*HEAD, "#            OK  a.case", "ok 1 a.case")


def fails(*lines: str, case: str = "a.case") -> tuple[str, ...]:
    """Return what a program says whose only case fails with some lines."""
    end = ("# case: Test failed", f"#          FAIL  {case}", f"not ok 1 {case}")
    return (*HEAD, *lines, *end)


def asserts(expression: str, errno: int, *words: str) -> tuple[str, ...]:
    """Return what an assertion of libvfio says."""
    return (
        "lib/vfio_pci_device.c:302: Assertion Failure", "", f"  Expression: {expression}",
        "  Observed: 0xffffffffffffffff == 0", f"  [errno: {errno} - words]", *words,
    )  # fmt: skip


SET_CONTAINER = "  ioctl(device->group_fd, VFIO_GROUP_SET_CONTAINER, &fd) returned -1"
SKIPS = (*HEAD, "#      SKIP      no {}", "ok 1 a.case # SKIP no {}")


def judged(
    device: str, output: tuple[str, ...], status: int | None = 0, **more: str
) -> dict[str, Judged]:
    report = SuiteReport("prog", status, more.get("trouble", ""), output, 1.0, range(0))
    found = judge(SUITE, PROGRAM, device, report, [*output, *more.get("splat", "").splitlines()])
    return {one.test.removeprefix(f"prog.{device}."): one for one in found}


@pytest.mark.parametrize(
    ("device", "output", "status", "says"),
    [
        (CONTROL, PASSES, Status.PASS, ""),
        (CONTROL, fails(*asserts("__ret == 0", 22, SET_CONTAINER)), Status.FAIL, "errno: 22"),
        (MARKED, PASSES, Status.FAIL, "nothing may open this device"),
        (MARKED, fails(*asserts("__ret == 0", 22, SET_CONTAINER)), Status.PASS, ""),
        (MARKED, fails(*asserts("__ret == 0", 1, SET_CONTAINER)), Status.PASS, ""),
        (MARKED, fails(*asserts("device->fd >= 0", 22)), Status.PASS, ""),
        # Another program has the group, or there is no such device.
        (MARKED, fails(*asserts("__ret == 0", 16, SET_CONTAINER)), Status.FAIL, "not with EINVAL"),
        (MARKED, fails(*asserts("device->fd >= 0", 2)), Status.FAIL, "not with EINVAL or EPERM"),
        # It was opened, and something else failed, with the same errno.
        (MARKED, fails(*asserts("rc == 0", 22)), Status.FAIL, "not to open the device"),
        (MARKED, fails("# x.c:1:case:Expected 0 == rc (22)"), Status.FAIL, "not to open"),
        (MARKED, fails("# VFIO_DEVICE_BIND_IOMMUFD failed"), Status.FAIL, "not with EINVAL"),
        # The harness prints no errno.
        (MARKED, fails("# Expected 0 == vfio_device_bind_iommufd_ioctl(fd) (-1)"), Status.PASS, ""),
    ],
)
def test_a_case_with_each_device(
    device: str, output: tuple[str, ...], status: Status, says: str
) -> None:
    found = judged(device, output, 0 if output is PASSES else 1)
    assert found["a.case"].status is status
    assert says in found["a.case"].message
    assert found["ends_well"].status is Status.PASS


@pytest.mark.parametrize(
    ("device", "output", "status"),
    [
        (CONTROL, PASSES, 0),
        (MARKED, fails(*asserts("__ret == 0", 22, SET_CONTAINER)), 1),
        (CONTROL, fails("# x.c:1:case:Expected 0 == rc (22)"), 1),
        (CONTROL, PASSES[:-2], None),
    ],
)
def test_a_splat_in_a_case(device: str, output: tuple[str, ...], status: int | None) -> None:
    """It fails the case, also one that must fail, and one in which the kernel died."""
    report = SuiteReport(
        "prog", status, "" if status is not None else "died", output, 1.0, range(0)
    )
    placed = [*output[:4], *WARN.splitlines(), *output[4:]]
    found = {one.test: one for one in judge(SUITE, PROGRAM, device, report, placed)}
    case = found[f"prog.{device}.a.case"]
    assert case.status is Status.FAIL
    assert "WARNING" in case.message


@pytest.mark.parametrize("device", [CONTROL, MARKED])
def test_a_case_that_opens_nothing_passes_with_both(device: str) -> None:
    lines = tuple(line.replace("a.case", "a.without") for line in PASSES)
    assert judged(device, lines)["a.without"].status is Status.PASS
    failed = fails(SET_CONTAINER, "  [errno: 22 - words]", case="a.without")
    assert judged(device, failed, 1)["a.without"].status is Status.FAIL


@pytest.mark.parametrize(
    ("test", "reason", "expected"),
    [
        ("vfio_pci_device_test.control.vfio_pci_device_test.reset", "does not support reset", True),
        ("vfio_pci_device_test.control.vfio_pci_device_test.reset", "no memory", False),
        # A skip would hide that the device was opened.
        ("vfio_pci_device_test.marked.vfio_pci_device_test.reset", "does not support reset", False),
        ("vfio_pci_driver_test.marked.all", "No driver found for device", False),
    ],
)
def test_the_skips_that_are_expected(test: str, reason: str, expected: bool) -> None:
    assert SUITE.may_skip(test, f"Device {reason}") is expected


def test_a_skip_that_is_not_expected_is_a_failure() -> None:
    lines = tuple(line.format("memory") for line in SKIPS)
    found = judged(CONTROL, lines)["a.case"]
    assert found.status is Status.FAIL
    assert found.message.startswith("skipped, which selftests/vfio.toml does not expect: no memory")


@pytest.mark.parametrize(
    ("device", "status", "output", "verdict"),
    [
        # Before its first case: a skip that is not expected, and a refusal.
        (CONTROL, 4, ("No driver found for device",), Status.FAIL),
        (MARKED, 1, asserts("__ret == 0", 22, "Failed VFIO_DEVICE_BIND_IOMMUFD"), Status.PASS),
        (CONTROL, 1, asserts("__ret == 0", 22, "Failed VFIO_DEVICE_BIND_IOMMUFD"), Status.FAIL),
        # Content, and nothing was tried.
        (MARKED, 0, (), Status.ERROR),
        (CONTROL, 0, ("hello",), Status.ERROR),
        (CONTROL, 0, ("TAP version 13", "1..0"), Status.ERROR),
        (MARKED, 139, (), Status.FAIL),
    ],
)
def test_a_program_that_ends_early(
    device: str, status: int, output: tuple[str, ...], verdict: Status
) -> None:
    assert judged(device, output, status)["all"].status is verdict


@pytest.mark.parametrize(
    ("output", "status", "more", "verdict"),
    [
        (PASSES, 139, {}, Status.FAIL),
        (PASSES, None, {"trouble": "did not end"}, Status.ERROR),
        (PASSES[:-1], 1, {}, Status.ERROR),
        (PASSES, 0, {"splat": WARN}, Status.FAIL),
    ],
)
def test_how_a_program_ends(
    output: tuple[str, ...], status: int | None, more: dict[str, str], verdict: Status
) -> None:
    assert judged(CONTROL, output, status, **more)["ends_well"].status is verdict


class Guests:
    """Stands in for QEMU: all is well, unless a test says otherwise."""

    def __init__(self) -> None:
        self.boots: list[str] = []
        self.argv: dict[str, tuple[str, ...]] = {}
        self.ignores_table = False
        self.unbound = False
        self.ends_after = 1000
        self.console: tuple[str, ...] = ()

    def boot(
        self, machine: Machine, image: Path, archive: Initramfs, log: Path, *, foreign: bool
    ) -> GuestReport:
        del image, log
        assert not foreign
        self.boots.append(machine.name)
        assert machine.huge_pages == SUITE.huge_pages
        assert any(word.startswith("memmap=64K$0x3e000000") for word in machine.arguments)
        reports: list[SuiteReport] = []
        for number, suite in enumerate(archive.suites):
            if number == self.ends_after:
                report = GuestReport(tuple(reports), "tcg", 1.0, ())
                raise GuestLost("guest lost: it panicked", hint="", tail="oh no", report=report)
            self.argv[suite.name] = suite.argv
            output, status = self._play(machine, suite.name)
            reports.append(SuiteReport(suite.name, status, "", output, 1.0, range(0)))
        return GuestReport(tuple(reports), "tcg", 1.0, self.console)

    def _play(self, machine: Machine, name: str) -> tuple[tuple[str, ...], int]:
        if name == "table":
            own = override.find(machine)
            assert own is not None
            table = own if self.ignores_table else override.extended(own, machine, REGION)
            answers = [f"step {number} yes" for number in range(1, 6)]
            return (f"bytes 0 {table.hex()}", "step 0 ok", *answers, "end"), 0
        if name == "guest":
            _, first = scenario.script(SUITE.guest, machine)
            words = ["ok"] * first + [step.expected[0] for step in SUITE.guest.step]
            words[-1] = "UNBOUND" if self.unbound else words[-1]
            return (*(f"step {n} {word}" for n, word in enumerate(words)), "end"), 0
        if name.endswith(f".{MARKED}"):
            return fails(*asserts("__ret == 0", 22, SET_CONTAINER)), 1
        return PASSES, 0


REGION = SUITE.guest.region


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    """Return the guests that are booted instead of QEMU's; each knows its own table."""
    made = Guests()
    (tmp_path / "steps").write_text("#!/bin/sh\n")
    monkeypatch.setattr(program, "build", lambda: tmp_path / "steps")
    monkeypatch.setattr(qemu, "full_version", lambda: "version 7.2.0")
    monkeypatch.setattr(vfio, "boot", made.boot)
    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    override.keep(machines.load_machine("q35-intel"), TABLES["DMAR"])
    return made


@pytest.fixture
def tested(tmp_path: Path) -> Built:
    """Return a kernel and all programs but two: one did not compile, one is not in the tree."""
    built = tmp_path / "programs"
    built.mkdir()
    for one in SUITE.program[2:]:
        (built / one.name).write_text("#!/bin/sh\n")
    (built / f"{SUITE.program[0].name}.failed").write_text("x.c:1:1: error: no")
    return Built(KERNEL, built, "programs")


def verdicts(run: SuiteRun) -> dict[str, Status]:
    return {result.test: result.status for result in run.results}


def test_all_goes_well(guests: Guests, tested: Built) -> None:
    run = run_vfio(tested, SUITE, ["q35-amd", "q35-intel"], SUBJECT)
    found = verdicts(run)
    first, second, third = (one.name for one in SUITE.program[:3])
    assert found.pop(f"q35-amd.{first}.builds") is Status.FAIL
    assert found.pop(f"q35-amd.{second}.builds") is Status.SKIP
    assert f"q35-amd.{first}.control.ends_well" not in found
    for machine in ("q35-amd", "q35-intel"):
        for test in ("control.a.case", "marked.a.case", "marked.ends_well", "builds"):
            assert found[f"{machine}.{third}.{test}"] is Status.PASS
        assert found[f"{machine}.guest.region_is_direct"] is Status.PASS
    # Each program is given the address of its device.
    assert guests.argv[f"{third}.control"] == (f"/suites/{third}", "0000:00:06.0")
    assert guests.argv[f"{third}.marked"] == (f"/suites/{third}", "0000:00:05.0")
    # The second time it is in the store.
    run_vfio(tested, SUITE, ["q35-amd", "q35-intel"], SUBJECT)
    assert len(guests.boots) == 2
    run_vfio(tested, SUITE, ["q35-amd", "q35-intel"], SUBJECT, again=True)
    assert len(guests.boots) == 4


@pytest.mark.parametrize("how", ["ignores_table", "unbound"])
def test_a_guest_that_is_not_prepared_gives_no_verdict(
    guests: Guests, tested: Built, how: str
) -> None:
    """The marked device would be refused for another reason, or have no region."""
    setattr(guests, how, True)
    found = verdicts(run_vfio(tested, SUITE, ["q35-amd"], SUBJECT))
    programs = {test: one for test, one in found.items() if ".builds" not in test}
    ends = {one for test, one in programs.items() if test.startswith("q35-amd.vfio_")}
    assert ends == {Status.ERROR}


def test_a_guest_that_is_lost(guests: Guests, tested: Built) -> None:
    guests.ends_after = 4
    run = run_vfio(tested, SUITE, ["q35-amd"], SUBJECT)
    found = verdicts(run)
    third, fifth = SUITE.program[2].name, SUITE.program[4].name
    assert found[f"q35-amd.{third}.control.a.case"] is Status.PASS
    assert found[f"q35-amd.{fifth}.control.ends_well"] is Status.ERROR
    assert "panicked" in next(r.message for r in run.results if r.status is Status.ERROR)


def test_a_tree_without_the_programs(guests: Guests) -> None:
    run = run_vfio(Built(KERNEL, None, ""), SUITE, ["q35-amd", "q35-intel"], SUBJECT)
    assert verdicts(run) == {"q35-amd.all": Status.SKIP, "q35-intel.all": Status.SKIP}
    assert run.results[0].message == "this tree has no tools/testing/selftests/vfio"
    assert not guests.boots


def test_what_is_in_the_key(guests: Guests) -> None:
    del guests
    both = ["q35-amd", "q35-intel"]
    keys = {
        run_key(KERNEL, "one", SUITE, both),
        run_key(KERNEL, "two", SUITE, both),
        run_key(KERNEL, "", SUITE, both),
        run_key(replace(KERNEL, key="other"), "one", SUITE, both),
        run_key(KERNEL, "one", SUITE, both[:1]),
        run_key(KERNEL, "one", replace(SUITE, huge_pages=5), both),
    }
    assert len(keys) == 6


def test_the_machines() -> None:
    assert choose(SUITE, ()) == SUITE.guest.machines
    assert choose(SUITE, ("q35-intel",)) == ("q35-intel",)
    with pytest.raises(UserError, match="no machine 'q35'; there are q35-amd, q35-intel"):
        choose(SUITE, ("q35",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('errnos = ["EINVAL", "EPERM"]', 'errnos = ["EINVALID"]', "errnos: no errno 'EINVALID'"),
        ('errnos = ["EINVAL", "EPERM"]', "errnos = []", "errnos is empty"),
        ("[[program]]", "[[programs]]", "program"),
        ("limit = 180        # s", 'limit = "long"', "program.0.limit"),
        ('says = "mmap() failed"', 'says = " "', "skip.0: says is empty"),
        ('devices = ["marked"]', "devices = []", "guest.region.0: devices is empty"),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (project_root() / "selftests/vfio.toml").read_text()
    assert old in text
    (tmp_path / "selftests").mkdir()
    (tmp_path / "selftests/vfio.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_suite(tmp_path)


def test_the_store_is_that_of_the_caller(guests: Guests, tested: Built, tmp_path: Path) -> None:
    del guests
    store = Store(tmp_path / "own")
    run = run_vfio(tested, SUITE, ["q35-amd"], SUBJECT, store=store)
    assert store.find(run.key) is not None
    assert Store().find(run.key) is None


def test_a_splat_outside_of_all_programs(guests: Guests, tested: Built) -> None:
    """Such as one at boot: it has a case of its own."""
    name = "q35-amd.kernel.no_splat_outside_of_cases"
    for lines, status in (((), Status.PASS), (tuple(WARN.splitlines()), Status.FAIL)):
        guests.console = lines
        run = run_vfio(tested, SUITE, ["q35-amd"], SUBJECT, again=True)
        assert {one.test: one.status for one in run.results}[name] is status


def test_a_program_that_is_not_listed(guests: Guests, tested: Built) -> None:
    """A newer tree may have one more: it is not run, and that is said."""
    del guests
    assert tested.folder is not None
    (tested.folder / "vfio_new_test").touch()
    run = run_vfio(tested, SUITE, ["q35-amd"], SUBJECT, again=True)
    (one,) = [each for each in run.results if "vfio_new_test" in each.test]
    assert (one.status, one.test) == (Status.SKIP, "q35-amd.vfio_new_test.builds")
    assert "selftests/vfio.toml" in one.message
