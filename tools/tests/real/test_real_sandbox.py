# SPDX-License-Identifier: GPL-2.0-only
"""The control group of a sandbox on a kernel that has version 2, which not every machine has."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.firmware import packages
from iommuq.guests import boot, initramfs, machine
from iommuq.guests.initramfs import Suite
from iommuq.system.errors import UserError
from iommuq.system.sandbox import scope
from iommuq.system.sandbox.model import default_limits

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

_MOUNT = """
mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup
echo "+memory +pids +cpu +io" >cgroup.subtree_control && mkdir sandbox
"""


def test_group_of_a_sandbox(tmp_path: Path) -> None:
    """The files that we write are there, and the kernel does what they say."""
    try:
        kernel = packages.find("linux-image-6.12-amd64")
    except UserError as error:
        pytest.skip(str(error))
    limits = replace(default_limits(), memory=40, tmp=16, shm=8, processes=24)
    writes = [f"echo {value} >sandbox/{key}" for key, value in scope.settings(limits).items()]
    enter = f"/bin/sh -c {shlex.quote(scope._ENTER)} /sys/fs/cgroup/sandbox"
    in_one = "dd if=/dev/zero of=/dev/null bs=100M count=1"
    in_no_process = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100"
    events = "tail -2 /sys/fs/cgroup/sandbox/memory.events"
    scripts = {
        "settings": f"{_MOUNT}{' && '.join(writes)} && cat sandbox/memory.max sandbox/pids.max",
        "memory": f"{enter} {in_one}; {events}",
        "files": f"{enter} {in_no_process}; {events}; rm /dev/shm/x",
        "processes": f"{enter} /bin/sh -c 'for i in $(seq 60); do sleep 9 & done' 2>&1;"
        " cat /sys/fs/cgroup/sandbox/pids.peak /sys/fs/cgroup/sandbox/pids.events",
        "end": f"({enter} sleep 60 &) ; sleep 1; cd /sys/fs/cgroup/sandbox; echo 1 >cgroup.kill;"
        " cd ..; for i in $(seq 30); do rmdir sandbox 2>/dev/null && echo gone && break;"
        " sleep 1; done",
    }
    suites = [Suite(name, ("/bin/sh", "-c", text)) for name, text in scripts.items()]
    modules = {f"/modules/{path.name}": path for path in kernel.modules}
    made = initramfs.build(suites, modules, modules=list(modules))
    found = machine.load_machine("q35")
    report = boot.boot(found, kernel.image, made, tmp_path / "log", foreign=True)
    said = {suite.name: suite.output for suite in report.suites}
    assert said["settings"] == (str(64 << 20), "40")
    for name in ("memory", "files"):
        assert any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in said[name])
    assert int(said["files"][-2].split()[1]) > int(said["memory"][-2].split()[1])
    assert said["processes"][-2] == "40"
    assert said["end"] == ("gone",)
