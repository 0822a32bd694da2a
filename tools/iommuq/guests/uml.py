# SPDX-License-Identifier: GPL-2.0-only
"""The command line of a user-mode Linux guest."""

from __future__ import annotations

import platform
from pathlib import Path

from iommuq.guests.machine import Machine
from iommuq.system import files
from iommuq.system.toolchain import compiled

#: The accelerator in reports.
ACCELERATOR = "native"
#: Source of a preloaded library; for its purpose see there.
SOURCE = Path(__file__).with_name("xstate.c")

# UML opens a FIFO only as "fd", and run() passes no descriptors.
_WITH_CHANNEL = 'exec "$@" 3>"$0"'


def argv(machine: Machine, kernel: Path, initramfs: Path, channel: Path, work: Path) -> list[str]:
    """Return the command that starts the guest.

    :param channel: the FIFO for its report.
    :param work: its own directory, for `pid_file`.
    """
    return [
        *("/bin/sh", "-c", _WITH_CHANNEL, str(channel)),
        str(kernel),
        f"mem={machine.memory}M",
        f"initrd={initramfs}",
        # By default below $HOME.
        *(f"uml_dir={work}/", "umid=guest"),
        # By default an xterm each.
        "con=null",
        # Both write-only; the second is /dev/tty1 in the guest.
        *("con0=fd:1", "con1=fd:3"),
        "iommuq.channel=/dev/tty1",
        # SysRq-t follows bad pointers, which crashes UML before 6.15.
        "iommuq.tasks=proc",
        *machine.kernel_arguments,
    ]


# As above, for a guest that answers messages: both ends before the kernel starts.
# Without random addresses: up to 6.12 a gap before the heap becomes memory that is not there.
_WITH_PIPES = 'exec setarch -R "$@" 3<"$0/in" 4>"$0/out"'


def serving_argv(kernel: Path, work: Path, memory: int) -> list[str]:
    """Return the command of a guest that takes messages from ``work/in``, as ``explore/`` does.

    :param work: its own directory, with the FIFOs ``in`` and ``out``.
    :param memory: in MiB.
    """
    return [
        *("/bin/sh", "-c", _WITH_PIPES, str(work)),
        str(kernel),
        f"mem={memory}M",
        *(f"uml_dir={work}/", "umid=guest"),
        # It prints by itself.
        "con=null",
        "iommu_sim=3,4",
        # Warnings and worse.
        "loglevel=5",
        # After the first report, too, and no reboot after a panic.
        *("kasan_multi_shot", "panic=-1"),
    ]


def pid_file(work: Path) -> Path:
    """Return the file with the process id of the guest."""
    return work / "guest" / "pid"


def environment() -> dict[str, str]:
    """Return the environment of the guest, and compile the library in it.

    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    if platform.machine() != "x86_64":
        return {}
    key = files.file_sha256(SOURCE)[:16]
    library = files.cache_dir() / "uml" / f"xstate-{key}.so"
    return {"LD_PRELOAD": str(compiled(library, ("-O2", "-shared", "-fPIC"), [SOURCE]))}
