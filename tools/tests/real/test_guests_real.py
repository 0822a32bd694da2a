# SPDX-License-Identifier: GPL-2.0-only
"""Our init in real guests, on kernels that were built before.

``IOMMUQ_TEST_KERNEL_Q35`` and ``IOMMUQ_TEST_KERNEL_UM`` name others, a
distribution's say.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.guests import boot, initramfs, machine
from iommuq.guests.boot import GuestLost
from iommuq.guests.initramfs import Suite
from iommuq.system import arches, files

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed"),
]

# Before the fixture that takes such variables away.
NAMED = {name: os.environ.get(f"IOMMUQ_TEST_KERNEL_{name.upper()}", "") for name in ("q35", "um")}
#: What tells a kernel for guests from one that is for KUnit alone.
SYMBOLS = {
    "q35": (
        "CONFIG_BLK_DEV_INITRD=y",
        "CONFIG_VIRTIO_CONSOLE=y",
        "CONFIG_HUGETLBFS=y",
        "CONFIG_INET=y",
    ),
    "um": ("CONFIG_BLK_DEV_INITRD=y", "CONFIG_PROC_FS=y", "CONFIG_DEVTMPFS=y", "CONFIG_INET=y"),
}


def find_kernel(name: str) -> Path:
    """Return a kernel for a machine, or skip the test."""
    if NAMED[name]:
        return Path(NAMED[name])
    found = machine.load_machine(name)
    for config in sorted((files.cache_dir() / "images").glob("*/.config")):
        image = config.parent / arches.get(found.arch).image
        lines = config.read_text().splitlines()
        if image.is_file() and all(symbol in lines for symbol in SYMBOLS[name]):
            return image
    pytest.skip(f"no kernel for the machine {name} in the cache; `iommuq selftest` builds one")


@pytest.mark.parametrize("name", ["q35", "um"])
def test_every_end_of_a_suite_is_told_from_the_others(name: str, tmp_path: Path) -> None:
    kernel = find_kernel(name)
    found = machine.load_machine(name)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho TAP version 13\nprintf 'b\\377d\\nno newline'\nexit 3\n")
    script.chmod(0o755)
    pages = f"[ $(cat /proc/sys/vm/nr_hugepages) -ge {found.huge_pages} ]"
    debugfs = "if grep -qw debugfs /proc/filesystems; then grep -q ' debugfs ' /proc/mounts; fi"
    suites = [
        Suite("status", ("/tests/script",)),
        Suite("hang", ("/bin/sh", "-c", "echo before; sleep 99 & sleep 99"), limit=1.0),
        Suite("straggler", ("/bin/sh", "-c", "setsid sleep 99 & echo hi")),
        Suite("alone", ("/bin/sh", "-c", "! ps | grep 'sleep 9[9]'")),
        Suite("needs", ("/bin/true",), needs=("/dev/nosuch",)),
        Suite("signal", ("/bin/sh", "-c", "kill -s SEGV $$")),
        Suite("much", ("/bin/seq", "5000")),
        Suite("splat", ("/bin/sh", "-c", "echo ok 1 a; echo WARNING: me >/dev/kmsg; echo ok 2 b")),
        Suite("mounts", ("/bin/sh", "-c", f"touch /tmp/x /dev/shm/x && {debugfs}")),
        Suite("lo", ("/bin/sh", "-c", "ip addr show lo | grep -q 127.0.0.1")),
        Suite("pages", ("/bin/sh", "-c", pages if found.huge_pages else "true")),
        Suite("none", ("/bin/sh", "-c", "exec /nosuch")),
    ]
    made = initramfs.build(suites, {"/tests/script": script})
    report = boot.boot(found, kernel, made, tmp_path / "log")
    ends = {suite.name: suite for suite in report.suites}
    assert list(ends) == [suite.name for suite in suites]
    assert ends["status"].status == 3
    assert ends["status"].output == ("TAP version 13", "b\\xffd", "no newline")
    assert ends["status"].trouble == ""
    assert ends["hang"].status is None
    assert "killed" in ends["hang"].trouble
    assert ends["hang"].output == ("before",)
    # Who waits for what is on the console.
    shown = "\n".join(report.interleaved(ends["hang"]))
    assert "Show Blocked State" in shown
    assert "sleep" in shown
    assert "left processes" in ends["straggler"].trouble
    assert ends["alone"].status == 0
    assert ends["needs"].trouble == "not run: the guest has no /dev/nosuch"
    assert ends["signal"].status == 128 + signal.SIGSEGV
    assert ends["much"].output == tuple(str(number) for number in range(1, 5001))
    lines = [line.rpartition("] ")[2] for line in report.interleaved(ends["splat"])]
    assert sorted(lines) == ["WARNING: me", "ok 1 a", "ok 2 b"]
    assert lines[-1] == "ok 2 b"
    for suite in ("mounts", "lo", "pages"):
        assert (suite, ends[suite].status, ends[suite].output) == (suite, 0, ())
    assert ends["none"].status == 127
    assert report.boot_seconds < found.boot_limit


@pytest.mark.parametrize("name", ["q35", "um"])
def test_a_panic_loses_the_guest_and_keeps_what_was_said(name: str, tmp_path: Path) -> None:
    kernel = find_kernel(name)
    doom = "echo ok 1 a; sleep 0.5; echo c >/proc/sysrq-trigger"
    made = initramfs.build(
        [Suite("good", ("/bin/true",)), Suite("doom", ("/bin/sh", "-c", doom))], {}
    )
    with pytest.raises(GuestLost, match=r"in doom: Kernel panic") as caught:
        boot.boot(machine.load_machine(name), kernel, made, tmp_path / "log")
    good, lost = caught.value.report.suites
    assert good.status == 0
    assert lost.status is None
    assert lost.output == ("ok 1 a",)
    assert caught.value.tail


@pytest.mark.parametrize("name", ["q35", "um"])
def test_a_guest_without_memory_says_so(name: str, tmp_path: Path) -> None:
    kernel = find_kernel(name)
    found = replace(machine.load_machine(name), memory=128, huge_pages=0)
    hog = Suite("hog", ("/bin/awk", 'BEGIN { s = "x"; while (1) s = s s }'))
    made = initramfs.build([hog, Suite("after", ("/bin/true",))], {})
    report = boot.boot(found, kernel, made, tmp_path / "log")
    killed, after = report.suites
    # It is the suite that has to go, and neither init nor what reads its output.
    assert killed.status == 128 + signal.SIGKILL
    assert "guest out of memory" in killed.trouble
    assert after.status == 0


@pytest.mark.parametrize("name", ["q35", "um"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_no_guest_outlives_the_tool(name: str, signum: signal.Signals, tmp_path: Path) -> None:
    kernel = find_kernel(name)
    made = initramfs.build([Suite("sleep", ("/bin/sleep", "60"))], {})
    program = (
        "import sys, pathlib\n"
        "from iommuq.guests import boot, machine, initramfs\n"
        "name, kernel, cpio, log = sys.argv[1:]\n"
        "made = initramfs.Initramfs(pathlib.Path(cpio),"
        " (initramfs.Suite('sleep', ('/bin/sleep', '60')),))\n"
        "boot.boot(machine.load_machine(name), pathlib.Path(kernel), made, pathlib.Path(log))\n"
    )
    log = tmp_path / "log"
    ours = subprocess.Popen(
        [sys.executable, "-c", program, name, str(kernel), str(made.path), str(log)],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + machine.load_machine(name).boot_limit
    while not log.exists() or "iommuq: begin 0 sleep" not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert guests(made.path)
    ours.send_signal(signum)
    ours.wait(10)
    deadline = time.monotonic() + 5
    while guests(made.path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert guests(made.path) == []


def guests(cpio: Path) -> list[str]:
    """Return the processes that were started with an initramfs: QEMU, or all of a UML."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if cpio.name in words and "import sys" not in words:
            found.append(folder.name)
    return found
