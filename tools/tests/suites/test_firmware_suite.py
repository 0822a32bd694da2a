# SPDX-License-Identifier: GPL-2.0-only
"""How scenarios are run: who shares a boot, and what a guest that misbehaves comes to."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firmwareguests import KERNEL, SUBJECT, TABLES, WARN, Guests, of, put_in_place, statuses, well
from iommuq.firmware import override, program, scenario
from iommuq.firmware.kernels import Kernel
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.guests.boot import GuestLost, GuestReport
from iommuq.guests.channel import SuiteState, Transcript
from iommuq.guests.initramfs import Initramfs
from iommuq.guests.machine import Machine
from iommuq.results.store import Status, Store
from iommuq.suites.firmware import run as firmware
from iommuq.suites.firmware.cases import cases, plan, run_key
from iommuq.suites.firmware.run import run_scenarios, side_by_side
from iommuq.suites.kunit import Subject
from iommuq.system import run as processes
from iommuq.system.errors import InfraError, UserError
from iommuq.system.groups import pool


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    """Return the guests that are booted instead of QEMU's."""
    return put_in_place(tmp_path, monkeypatch)


def test_all_goes_well(guests: Guests) -> None:
    wanted = of("claim-group")
    runs = run_scenarios(KERNEL, wanted, SUBJECT)
    assert len(runs) == 3
    assert all(set(statuses(run).values()) == {Status.PASS} for run in runs)
    assert runs[0].results[0].test == "q35-amd.claim-group.region_is_direct"
    # One boot a machine for its table, and one for the scenario.
    assert len(guests.boots) == 6


def test_another_kernel_than_the_one_that_was_opened(guests: Guests, tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(b"one")
    kernel = replace(KERNEL, image=image, sha256=hashlib.sha256(b"one").hexdigest())
    (run,) = run_scenarios(kernel, of("claim-group", "q35-amd"), SUBJECT)
    assert run.image == kernel.sha256
    image.write_bytes(b"two")
    with pytest.raises(InfraError, match="bzImage: has changed since it was opened"):
        run_scenarios(kernel, of("claim-idle", "q35-amd"), SUBJECT)
    assert len(guests.boots) == 2


def test_the_table_is_read_once(guests: Guests) -> None:
    run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    run_scenarios(KERNEL, of("claim-idle", "q35-amd"), SUBJECT)
    assert [names for _, names in guests.boots].count(["table"]) == 1
    assert override.find(machines.load_machine("q35-amd")) == TABLES["IVRS"]


def test_what_did_not_change_is_not_run_again(guests: Guests) -> None:
    store = Store()
    first = run_scenarios(KERNEL, of("claim-group"), SUBJECT, store=store)
    booted = len(guests.boots)
    other = Subject("6.12", "0001", "6.1.0-toy")
    again = run_scenarios(KERNEL, of("claim-group"), other, store=store)
    assert len(guests.boots) == booted
    assert [run.id for run in again] == [run.id for run in first]
    # The same kernel may be another step.
    assert again[0].results[0].patch == "0001"
    run_scenarios(KERNEL, of("claim-group"), SUBJECT, store=store, again=True)
    assert len(guests.boots) > booted


def test_who_shares_a_boot() -> None:
    wanted = cases(scenario.choose(["claim-group", "claim-idle", "identity", "remove-rescan"]))
    batches = [[case.name for case in batch] for batch in plan(wanted)]
    assert ["q35-amd.claim-group", "q35-amd.claim-idle"] in batches
    # Other kernel arguments, and one that disturbs.
    assert ["q35-amd.identity"] in batches
    assert ["q35-amd.remove-rescan"] in batches
    assert sum(map(len, batches)) == len(wanted)


@pytest.mark.parametrize(("memory", "largest", "at_most"), [(0, 1024, 1), (10**6, 1024, 10**6)])
def test_side_by_side_within_memory(memory: int, largest: int, at_most: int) -> None:
    assert 1 <= side_by_side(memory, largest) <= at_most
    assert side_by_side(1300, 1024) == 1


def test_what_takes_long_is_begun_first(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that starts last and takes a minute is waited for by an idle machine."""
    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    monkeypatch.setattr(firmware, "side_by_side", lambda *_: 1)
    wanted = cases(scenario.choose(["claim-group", "claim-idle", "switch-dma"]), ["q35-amd"])
    run_scenarios(KERNEL, wanted, SUBJECT)
    first, second = (names for _, names in guests.boots)
    assert "switch-dma" in first
    assert {"claim-group", "claim-idle"} <= set(second)


def test_two_lists_at_once_share_the_processors(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the steps of a proof do, each of which would start a guest for every processor."""
    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    both = threading.Barrier(2)
    met = []

    def boot(machine: Machine, *rest: Any, **more: Any) -> GuestReport:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
            met.append(machine.name)
        return guests.boot(machine, *rest, **more)

    monkeypatch.setattr(firmware, "boot", boot)
    monkeypatch.setattr(firmware, "turns", threading.BoundedSemaphore(1))
    wanted = cases(scenario.choose(["identity"]), ["q35-amd"])
    kernels = [replace(KERNEL, key=key) for key in ("one", "other")]
    with pool(2) as executor:
        runs = [executor.submit(run_scenarios, each, wanted, SUBJECT) for each in kernels]
        assert all(run.result()[0].results for run in runs)
    assert len(guests.boots) == 2
    assert not met


def test_two_steps_with_the_same_kernel_boot_once(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`iommuq prove` has the scenarios of two steps in hand, and neither has results yet."""
    wanted = cases(scenario.choose(["claim-cdev", "release"]), ["q35-amd"])
    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    both = threading.Barrier(2)
    first = guests.boot

    def boot(*words: Any, **more: Any) -> GuestReport:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return first(*words, **more)

    monkeypatch.setattr(firmware, "boot", boot)
    subjects = [replace(SUBJECT, patch=name) for name in ("0005", "0006")]
    with pool(2) as executor:
        asked = [executor.submit(run_scenarios, KERNEL, wanted, one) for one in subjects]
        found = [future.result() for future in asked]
    assert len(guests.boots) == len(plan(wanted))
    for subject, runs in zip(subjects, found, strict=True):
        assert {run.patch for run in runs} == {subject.patch}
        assert all(statuses(run) for run in runs)
    # Who wants it anew has it anew.
    run_scenarios(KERNEL, wanted, SUBJECT, again=True)
    assert len(guests.boots) == 2 * len(plan(wanted))


def test_an_override_that_is_ignored_is_never_a_pass(guests: Guests) -> None:
    guests.ignores_override = True
    (run,) = run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert set(statuses(run).values()) == {Status.ERROR}
    assert "ignored the table" in run.results[0].message
    assert "ACPI_TABLE_UPGRADE" in run.results[0].message


def test_a_scenario_that_fails(guests: Guests) -> None:
    lines = well("claim-group", "q35-amd")
    number = next(n for n, line in enumerate(lines) if line.endswith("EINVAL"))
    lines[number] = f"step {number} ok group"
    guests.plays["claim-group"] = lines
    (run,) = run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    failed = [check for check, status in statuses(run).items() if status is not Status.PASS]
    assert failed == ["claim_refused"]


def test_a_splat_ends_the_boot_for_the_others(guests: Guests) -> None:
    guests.console["claim-group"] = WARN
    wanted = cases(scenario.choose(["claim-again", "claim-group", "claim-idle"]), ["q35-amd"])
    runs = run_scenarios(KERNEL, wanted, SUBJECT)
    assert [statuses(run)["no_splat"] for run in runs] == [Status.PASS, Status.FAIL, Status.PASS]
    assert [names[1:] for _, names in guests.boots] == [
        [],
        ["claim-again", "claim-group", "claim-idle"],
        ["claim-idle"],
    ]


def test_a_guest_that_is_lost_is_an_error_of_that_scenario_alone(guests: Guests) -> None:
    guests.plays["claim-group"] = None
    wanted = cases(scenario.choose(["claim-again", "claim-group", "claim-idle"]), ["q35-amd"])
    again, lost, idle = run_scenarios(KERNEL, wanted, SUBJECT)
    assert set(statuses(again).values()) == {Status.PASS}
    assert set(statuses(lost).values()) == {Status.ERROR}
    assert "it panicked" in lost.results[0].message
    assert set(statuses(idle).values()) == {Status.PASS}


def test_a_guest_that_never_came_up_is_tried_once_more(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def boot(*_: object, **__: object) -> GuestReport:
        nonlocal tries
        tries += 1
        nothing = GuestReport((), "tcg", float("nan"), ())
        raise GuestLost("guest lost: q35-amd panicked", hint="", tail="", report=nothing)

    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    monkeypatch.setattr(firmware, "boot", boot)
    (run,) = run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert tries == 2
    assert set(statuses(run).values()) == {Status.ERROR}
    assert guests.boots == []


def test_a_qemu_without_the_iommu_is_not_tried_again(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    said = f"{qemu.PROGRAM}: -device amd-iommu: 'amd-iommu' is not a valid device model name"

    def boot(*_: object, **__: object) -> GuestReport:
        nonlocal tries
        tries += 1
        nothing = GuestReport((), "tcg", float("nan"), ())
        raise GuestLost(f"guest lost: q35-amd ended: {said}", hint="", tail="", report=nothing)

    monkeypatch.setattr(firmware, "boot", boot)
    with pytest.raises(InfraError, match="not a valid device model name"):
        run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert tries == 1
    assert guests.boots == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/sys/bus/pci/drivers/vfio-pci", "VFIO_PCI"),
        ("/sys/class/iommu/ivhd0", "no driver for AMD-Vi"),
    ],
)
def test_what_the_guest_lacks_is_an_error(guests: Guests, path: str, said: str) -> None:
    guests.answers[path] = "no"
    (run,) = run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert set(statuses(run).values()) == {Status.ERROR}
    assert said in run.results[0].message


def test_what_a_scenario_needs_and_the_guest_lacks_is_a_skip(guests: Guests) -> None:
    guests.answers["/dev/iommu"] = "no"
    (run,) = run_scenarios(KERNEL, of("claim-cdev", "q35-amd"), SUBJECT)
    assert set(statuses(run).values()) == {Status.SKIP}
    assert run.results[0].message == "6.1.0-toy has no /dev/iommu"


def test_faults_are_a_need_like_others(guests: Guests) -> None:
    path = "/sys/kernel/debug/fail_page_alloc/require-start"
    guests.answers[path] = "no"
    (run,) = run_scenarios(KERNEL, of("static-faults", "q35-amd"), SUBJECT)
    assert set(statuses(run).values()) == {Status.SKIP}
    assert run.results[0].message == f"6.1.0-toy has no {path}"


def test_what_is_known_to_be_missing_needs_no_boot(guests: Guests) -> None:
    kernel = Kernel(
        "k", "6.1.0-toy", "", Path("/x"), (),
        dict.fromkeys((*machines_need(), "VFIO_DEVICE_CDEV"), "y"), "other",
    )  # fmt: skip
    (run,) = run_scenarios(kernel, of("claim-cdev", "q35-amd"), SUBJECT)
    assert set(statuses(run).values()) == {Status.SKIP}
    assert run.results[0].message == "6.1.0-toy is built without IOMMUFD"
    assert guests.boots == []


def machines_need() -> list[str]:
    from iommuq.firmware.kernels import needs

    return [*needs().options, *needs().iommu.values()]


def test_a_kernel_that_cannot_be_tested_is_refused_before_any_boot(guests: Guests) -> None:
    kernel = Kernel("k", "6.1", "", Path("/x"), (), {}, "other")
    with pytest.raises(UserError, match="built without"):
        run_scenarios(kernel, of("claim-group"), SUBJECT)
    assert guests.boots == []


def test_a_table_that_is_none_is_not_kept(guests: Guests) -> None:
    guests.tables["IVRS"] = b"IVRS" + bytes(60)
    with pytest.raises(InfraError, match="the table of q35-amd"):
        run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert override.find(machines.load_machine("q35-amd")) is None


def test_a_guest_without_a_table(guests: Guests) -> None:
    guests.tables.clear()
    with pytest.raises(InfraError, match="no IVRS in the guest: ENOENT"):
        run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)


def test_a_damaged_table_in_the_cache_is_read_again(guests: Guests) -> None:
    amd = machines.load_machine("q35-amd")
    path = override.cached(amd)
    path.parent.mkdir(parents=True)
    path.write_bytes(TABLES["IVRS"][:-3])
    run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT)
    assert override.find(amd) == TABLES["IVRS"]
    assert guests.boots[0] == ("q35-amd", ["table"])


def test_no_table_where_there_is_no_iommu(guests: Guests) -> None:
    (run,) = run_scenarios(KERNEL, of("no-iommu"), SUBJECT)
    assert set(statuses(run).values()) == {Status.PASS}
    assert guests.boots == [("q35-plain", ["table", "no-iommu"])]


def test_a_guest_in_which_a_step_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    hung, transcript = firmware._Hung(threading.Event()), Transcript()
    assert hung(transcript) == ""
    transcript.suites.append(SuiteState(begin=1.0, output=["step 0 ok"]))
    assert hung(transcript) == ""
    now += firmware.SILENCE - 1
    assert hung(transcript) == ""
    transcript.suites[0].output.append("step 1 HANG no answer within 20 s")
    assert hung(transcript) == ""
    now += firmware.HANG_GRACE + 1
    assert hung(transcript) == "hangs"
    transcript.suites[0].status = 1
    assert hung(transcript) == ""
    transcript.suites.append(SuiteState(begin=2.0))
    assert hung(transcript) == ""
    now += firmware.SILENCE + 1
    assert hung(transcript) == "hangs without output"


def test_an_interrupt_ends_the_guests_that_run(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("q35-amd", "q35-intel"):
        found = machines.load_machine(name)
        override.keep(found, TABLES["IVRS" if name == "q35-amd" else "DMAR"])
    up, stopped = threading.Event(), []

    def boot(
        machine: Machine, *_: object, hopeless: Callable[[Transcript], str], **_options: object
    ) -> GuestReport:
        if machine.name == "q35-amd":
            assert up.wait(20)
            raise KeyboardInterrupt
        up.set()
        deadline = time.monotonic() + 20
        while not hopeless(Transcript()) and time.monotonic() < deadline:
            time.sleep(0.01)
        stopped.append(hopeless(Transcript()))
        nothing = GuestReport((), "tcg", float("nan"), ())
        raise GuestLost("guest lost: was stopped", hint="", tail="", report=nothing)

    monkeypatch.setattr(firmware, "boot", boot)
    monkeypatch.setattr(firmware, "side_by_side", lambda *_: 2)
    store = Store()
    wanted = cases([scenario.load_scenario("claim-group")], ["q35-amd", "q35-intel"])
    with pytest.raises(KeyboardInterrupt):
        run_scenarios(KERNEL, wanted, SUBJECT, store=store)
    assert stopped == ["was stopped"]
    # What was cut off is no result.
    assert all(store.find(run_key(KERNEL, case)) is None for case in wanted)
    assert guests.boots == []


def test_an_interrupt_of_a_whole_proof_starts_no_further_guest(
    guests: Guests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It reaches the main thread alone, which ends what the others have started."""
    override.keep(machines.load_machine("q35-amd"), TABLES["IVRS"])
    started = threading.Event()
    boots = []

    def boot(machine: Machine, *_: object, **__: object) -> GuestReport:
        boots.append(machine.name)
        processes.run(
            ["sh", "-c", "echo up; sleep 1000"],
            cwd=tmp_path,
            check=False,
            on_line=lambda _: started.set(),
        )
        nothing = GuestReport((), "tcg", float("nan"), ())
        raise GuestLost("guest lost: killed", hint="", tail="", report=nothing)

    monkeypatch.setattr(firmware, "boot", boot)
    monkeypatch.setattr(firmware, "side_by_side", lambda *_: 1)
    store = Store()
    wanted = cases(scenario.choose(["claim-group", "identity"]), ["q35-amd"])

    def interrupted() -> None:
        with pool(1) as executor:
            executor.submit(run_scenarios, KERNEL, wanted, SUBJECT, store=store)
            assert started.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert boots == ["q35-amd"]
    assert all(store.find(run_key(KERNEL, case)) is None for case in wanted)
    assert guests.boots == []


def test_a_failure_before_the_guest_was_lost_answers_for_a_later_run(guests: Guests) -> None:
    store = Store()
    lines = well("claim-group", "q35-amd")
    number = next(n for n, line in enumerate(lines) if line.endswith("EINVAL"))
    guests.plays["claim-group"] = [*lines[:number], f"step {number} ok"]
    (run,) = run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT, store=store)
    assert {Status.FAIL, Status.ERROR} <= set(statuses(run).values())
    booted = len(guests.boots)
    run_scenarios(KERNEL, of("claim-group", "q35-amd"), SUBJECT, store=store)
    assert len(guests.boots) == booted


def test_who_shares_a_boot_is_part_of_the_key() -> None:
    (shared,) = of("claim-group", "q35-amd")
    other = replace(shared.scenario, alone=True)
    # It comes from the name of the file, and no copy has it.
    object.__setattr__(other, "name", shared.scenario.name)
    alone = replace(shared, scenario=other)
    assert alone.name == shared.name
    assert run_key(KERNEL, shared) != run_key(KERNEL, alone)


def test_what_is_edited_while_guests_run_is_another_run(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the old program saw must not answer for the new one."""
    store = Store()
    wanted = of("claim-group", "q35-amd")
    before = run_key(KERNEL, wanted[0])

    def boot(
        machine: Machine, image: Path, archive: Initramfs, log: Path, **options: object
    ) -> GuestReport:
        monkeypatch.setattr(program, "key", lambda: "edited")
        return guests.boot(machine, image, archive, log, **options)

    monkeypatch.setattr(firmware, "boot", boot)
    run_scenarios(KERNEL, wanted, SUBJECT, store=store)
    after = run_key(KERNEL, wanted[0])
    assert before != after
    assert (store.find(before) is not None, store.find(after)) == (True, None)
