# SPDX-License-Identifier: GPL-2.0-only
"""Guests that end in every way but the right one, played by a QEMU of our own."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.guests import accel, boot, channel, machine, qemu, uml
from iommuq.guests.boot import GuestLost, GuestReport
from iommuq.guests.channel import Transcript
from iommuq.guests.initramfs import Initramfs, Suite
from iommuq.system import files
from iommuq.system.errors import InfraError, ToolMissing

HEAD = r"""#!/bin/sh
case $1 in --version) echo "QEMU emulator version ${VERSION:-7.2.22 (Debian)}"; exit ;; esac
while [ $# -gt 0 ]; do
    case $1 in
    file,id=report,path=*) exec 3>"${1#*path=}" ;;
    -pidfile) echo $$ >"$2"; [ -z "$PIDS" ] || cp "$2" "$PIDS" ;;
    esac
    shift
done
say() { printf '%s\n' "$*" >&3; }
"""
BOOT = "echo booting; say iommuq 1\n"
SUITE = "say 0 begin 1.0; say '0 |ok 1'; say 0 end 0 2.0\n"

Boot = Callable[..., GuestReport]


@pytest.fixture
def bootable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Return a function that boots what a shell script does."""
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "nokvm")
    program = tmp_path / "bin" / qemu.PROGRAM
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "bzImage").touch()
    (tmp_path / "x.cpio").touch()

    def start(
        script: str,
        *,
        suites: int = 1,
        boot_limit: float = 20.0,
        limit: float | None = None,
        hopeless: Callable[[Transcript], str] | None = None,
    ) -> GuestReport:
        program.write_text(HEAD + script)
        program.chmod(0o755)
        asked = tuple(Suite(f"suite{number}", ("/bin/true",)) for number in range(suites))
        return boot.boot(
            replace(machine.load_machine("q35"), boot_limit=boot_limit),
            tmp_path / "bzImage",
            Initramfs(tmp_path / "x.cpio", asked),
            tmp_path / "log",
            limit=limit,
            hopeless=hopeless,
        )

    qemu._version.cache_clear()
    return start


def gone(pid: int) -> bool:
    """Wait a moment for a process to end."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_whole_report(bootable: Boot, tmp_path: Path) -> None:
    report = bootable(
        BOOT
        + "printf '[    1.000000] iommuq: begin 0 suite0\\r\\n'; echo 'iommuq: suite0| ok 1'\n"
        + "echo '[    1.5] WARNING: at x'; echo 'iommuq: end 0 suite0'\n"
        + SUITE
        + "say 1 begin 3.0; say 1 limit; say 1 end 137 9.5; say 2 missing /dev/iommu; say done 3\n",
        suites=3,
    )
    first, second, third = report.suites
    assert (first.name, first.status, first.trouble) == ("suite0", 0, "")
    assert first.output == ("ok 1",)
    assert first.seconds == 1.0
    assert report.interleaved(first) == ["ok 1", "[    1.5] WARNING: at x"]
    assert second.status is None
    assert second.trouble == "did not end within 60 s and was killed"
    assert second.seconds == 6.5
    assert third.status is None
    assert "no /dev/iommu" in third.trouble
    assert report.accelerator == "tcg"
    assert 0 < report.boot_seconds < 10
    log = (tmp_path / "log").read_text()
    assert log.startswith("$ cd ")
    assert "booting\n" in log


def test_the_console_may_be_garbage(bootable: Boot) -> None:
    report = bootable(BOOT + "printf 'a\\000b\\377c\\n\\033[0m'\n" + SUITE + "say done 1\n")
    assert report.suites[0].status == 0
    assert "a\x00b\\xffc" in report.console


def test_a_console_that_says_all_is_well_is_no_report(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="before its first suite"):
        bootable("echo 'TAP version 13'; echo 1..1; echo 'ok 1'; echo 'iommuq: end 0 suite0'\n")


def test_a_report_cut_in_the_middle(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="malformed report at '0 en', in suite0") as caught:
        bootable(BOOT + "say 0 begin 1.0; say '0 |ok 1'; printf '0 en' >&3; echo last words\n")
    assert caught.value.exit_code == 3
    assert caught.value.tail.splitlines() == ["booting", "last words"]
    # What there was is kept, for the case that it died in.
    (lost,) = caught.value.report.suites
    assert lost.output == ("ok 1",)
    assert lost.status is None
    assert lost.trouble == "did not end"


def test_a_report_that_just_ends(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match=r"q35 ended, after suite0 \(full log"):
        bootable(BOOT + SUITE)


def test_fewer_suites_than_were_asked_for(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="after suite0"):
        bootable(BOOT + SUITE + "say done 1\n", suites=2)


def test_a_panic_is_named(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="in suite0: Kernel panic - not syncing: oh no") as caught:
        bootable(
            BOOT
            + "say 0 begin 1.0; echo '[    2.000000] Kernel panic - not syncing: oh no'\n"
            + "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do echo line $i; done\n"
        )
    assert len(caught.value.tail.splitlines()) == boot.TAIL_LINES
    assert caught.value.hint.startswith("full log: ")
    assert "\n" not in str(caught.value)


def test_qemu_dies_by_a_signal(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="killed by SIGSEGV, in suite0"):
        bootable(BOOT + "say 0 begin 1.0; kill -SEGV $$\n")


def test_qemu_refuses_a_device(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="qemu-system-x86_64: -device edu: 'edu' is not a valid"):
        bootable(
            "echo \"qemu-system-x86_64: -device edu: 'edu' is not a valid device\" >&2; exit 1\n"
        )


def test_a_guest_that_cannot_be_set_up(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="cannot run suites: 3 huge pages fit into memory"):
        bootable(BOOT + "say broken 3 huge pages fit into memory, 256 are asked for\n")


def test_a_suite_that_cannot_be_killed(bootable: Boot) -> None:
    with pytest.raises(GuestLost, match="a suite survived SIGKILL, in suite0"):
        bootable(BOOT + "say 0 begin 1.0; say 0 stuck; say broken the runner ended with 1\n")


def test_a_hang_before_the_first_suite(
    bootable: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pid"))
    begin = time.monotonic()
    with pytest.raises(GuestLost, match=r"did not start its first suite within 0\.5 s") as caught:
        bootable(BOOT + "sleep 60\n", boot_limit=0.5)
    assert time.monotonic() - begin < 10
    assert gone(int((tmp_path / "pid").read_text()))
    assert math.isnan(caught.value.report.boot_seconds)


def test_a_hang_in_a_suite(bootable: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pid"))
    with pytest.raises(GuestLost, match="did not end within 1 s, in suite0"):
        bootable(BOOT + "say 0 begin 1.0; sleep 60\n", limit=1.0)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_guest_that_is_hopeless(bootable: Boot) -> None:
    def hopeless(transcript: Transcript) -> str:
        said = transcript.suites[-1].output if transcript.suites else []
        return "hangs" if said == ["ok 1"] else ""

    with pytest.raises(GuestLost, match="q35 hangs, in suite0") as caught:
        bootable(BOOT + "say 0 begin 1.0; say '0 |ok 1'; sleep 60\n", hopeless=hopeless)
    assert caught.value.report.suites[0].output == ("ok 1",)


@pytest.mark.parametrize(
    "flood",
    [
        "say 0 begin 1.0; while :; do say '0 |ok 1'; done\n",
        "while :; do echo noise; done\n",
        "yes '' \n",
        "cat /dev/zero\n",
        # The report is whole, but a splat may be in what was dropped.
        SUITE + "yes noise | head -c 200000; say done 1\n",
    ],
    ids=["report", "console", "empty lines", "no line ends", "whole report"],
)
def test_a_guest_that_writes_without_end(
    bootable: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flood: str
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pid"))
    monkeypatch.setattr(channel, "OUTPUT_LIMIT", 1 << 20)
    monkeypatch.setattr(boot, "CONSOLE_LIMIT", 1 << 20)
    monkeypatch.setattr(boot, "LINES", 20_000)
    begin = time.monotonic()
    with pytest.raises(GuestLost, match="q35 wrote more than 1 MiB or 20000 lines") as caught:
        bootable(BOOT + flood, limit=30.0)
    assert time.monotonic() - begin < 15
    assert gone(int((tmp_path / "pid").read_text()))
    assert len(caught.value.report.console) <= 20_000
    assert (tmp_path / "log").stat().st_size < 2 << 20


def test_a_guest_that_does_not_power_off(bootable: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "END_LIMIT", 0.3)
    begin = time.monotonic()
    report = bootable(BOOT + SUITE + "say done 1; sleep 60\n")
    assert report.suites[0].status == 0
    assert time.monotonic() - begin < 10


def test_a_guest_out_of_memory(bootable: Boot) -> None:
    report = bootable(
        BOOT
        + "echo 'iommuq: begin 0 suite0'\n"
        + "echo '[    9.000000] Out of memory: Killed process 70 (x)'\n"
        + "echo 'iommuq: end 0 suite0'; say 0 begin 1.0; say 0 end 137 2.0; say done 1\n"
    )
    assert report.suites[0].status == 137
    assert "guest out of memory: Out of memory: Killed process 70" in report.suites[0].trouble


def test_markers_that_the_console_lost(bootable: Boot) -> None:
    report = bootable(
        BOOT
        + "echo 'iommuq: begin 0 suite0'; echo a; echo 'iommuq: begin 1 suite1'; echo b\n"
        + SUITE
        + "say 1 begin 3.0; say 1 end 0 4.0; say done 2\n",
        suites=2,
    )
    first, second = report.suites
    assert report.interleaved(first) == ["a"]
    assert report.interleaved(second) == ["b"]


def test_qemu_is_too_old(bootable: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERSION", "5.10.0")
    with pytest.raises(InfraError, match=r"QEMU 5\.10 is too old, machine q35 needs 6\.2"):
        bootable(BOOT + SUITE + "say done 1\n")


def test_qemu_10_is_newer_than_6(bootable: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERSION", "10.0.2")
    assert bootable(BOOT + SUITE + "say done 1\n").suites[0].status == 0


def test_qemu_is_none(bootable: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERSION", "unknown")
    with pytest.raises(InfraError, match="prints no version"):
        bootable(BOOT)


def test_qemu_is_missing(bootable: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=qemu.PROGRAM):
        bootable(BOOT)


def test_there_is_no_kernel(bootable: Boot, tmp_path: Path) -> None:
    (tmp_path / "bzImage").unlink()
    with pytest.raises(InfraError, match="no such kernel"):
        bootable(BOOT)


def test_a_machine_that_needs_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "nokvm")
    q35 = machine.load_machine("q35")
    assert q35.qemu is not None
    only = replace(q35, qemu=replace(q35.qemu, accelerators=("kvm",)))
    with pytest.raises(InfraError, match="needs KVM: there is no /dev/kvm"):
        qemu.choose_accelerator(only)
    assert qemu.choose_accelerator(q35) == "tcg"
    monkeypatch.setattr(accel, "kvm", lambda: accel.Usability(True, "a guest booted"))
    assert qemu.choose_accelerator(q35) == "kvm"
    backwards = replace(q35, qemu=replace(q35.qemu, accelerators=("tcg", "kvm")))
    assert qemu.choose_accelerator(backwards) == "tcg"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_no_guest_outlives_us(
    bootable: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    # Written by the fixture's function, booted by a process that we may kill.
    with pytest.raises(GuestLost):
        bootable(BOOT + 'say 0 begin 1.0; [ -z "$PIDS" ] || sleep 60\n')
    monkeypatch.setenv("PIDS", str(tmp_path / "pid"))
    monkeypatch.setenv("IOMMUQ_ROOT", str(files.project_root()))
    ours = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, pathlib\n"
            "from iommuq.guests import accel, boot, machine, initramfs\n"
            "here = pathlib.Path(sys.argv[1])\n"
            "accel.DEVICE = here / 'nokvm'\n"
            "suites = (initramfs.Suite('suite0', ('/bin/true',)),)\n"
            "made = initramfs.Initramfs(here / 'x.cpio', suites)\n"
            "boot.boot(machine.load_machine('q35'), here / 'bzImage', made, here / 'log')\n",
            str(tmp_path),
        ],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}/stat").read_text().startswith("0")
    ours.send_signal(signum)
    ours.wait(10)
    assert gone(pid)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_what_is_preloaded_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (library,) = uml.environment().values()
    assert library.startswith(str(files.cache_dir()))
    done = subprocess.run(
        ["/bin/echo", "works"], env={"LD_PRELOAD": library}, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"works\n", b"")
    monkeypatch.setenv("PATH", "/nowhere")
    assert uml.environment() == {"LD_PRELOAD": library}
    os.unlink(library)  # noqa: PTH108 - a string
    with pytest.raises(ToolMissing, match="gcc"):
        uml.environment()


def test_a_uml_kernel_that_is_none(tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    kernel.write_text('#!/bin/sh\necho "iommuq 1" >&3\necho "$@"\necho "done 1" >&3\n')
    kernel.chmod(0o755)
    (tmp_path / "x.cpio").touch()
    made = Initramfs(tmp_path / "x.cpio", (Suite("suite0", ("/bin/true",)),))
    with pytest.raises(GuestLost, match="malformed report at 'done 1'") as caught:
        boot.boot(machine.load_machine("um"), kernel, made, tmp_path / "log")
    assert f"initrd={tmp_path}/x.cpio" in caught.value.tail
    assert caught.value.report.accelerator == "native"


def test_a_uml_kernel_that_works(tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    lines = "iommuq 1\\n0 begin 0.2\\n0 |ok 1\\n0 end 0 0.3\\ndone 1\\n"
    kernel.write_text(f"#!/bin/sh\nprintf '{lines}' >&3\n")
    kernel.chmod(0o755)
    (tmp_path / "x.cpio").touch()
    made = Initramfs(tmp_path / "x.cpio", (Suite("suite0", ("/bin/true",)),))
    report = boot.boot(machine.load_machine("um"), kernel, made, tmp_path / "log")
    assert report.suites[0].output == ("ok 1",)
