# SPDX-License-Identifier: GPL-2.0-only
"""The command line of a QEMU guest."""

from __future__ import annotations

import re
import shlex
import shutil
from functools import cache
from pathlib import Path

from iommuq.guests import accel
from iommuq.guests.channel import NAME
from iommuq.guests.machine import CPUS, Machine
from iommuq.system.errors import CommandTimeout, InfraError, ToolMissing
from iommuq.system.run import run

PROGRAM = accel.QEMU
#: The name of a second port, over which a program in the guest is asked.
PORT = "iommuq.steps"
_VERSION_LIMIT = 10.0


def choose_accelerator(machine: Machine) -> str:
    """Return the first accelerator of the machine that works here.

    :raises ToolMissing: QEMU is not installed.
    :raises InfraError: none works.
    """
    assert machine.qemu is not None
    reason = ""
    for name in machine.qemu.accelerators:
        if name != "kvm":
            return name
        verdict = accel.kvm()
        if verdict.usable:
            return name
        reason = verdict.reason
    raise InfraError(f"machine {machine.name} needs KVM: {reason}", hint="run it on another host")


def check_version(machine: Machine) -> None:
    """Check that QEMU is not too old for the machine.

    :raises ToolMissing: QEMU is not installed.
    :raises InfraError: it is too old, or its version is unknown.
    """
    assert machine.qemu is not None
    path = _path()
    if not machine.qemu.minimum:
        return
    version, _ = _version(path)
    if _numbers(version) < _numbers(machine.qemu.minimum):
        raise InfraError(
            f"QEMU {version} is too old, machine {machine.name} needs {machine.qemu.minimum}",
            hint=f"found {path}",
        )


def full_version() -> str:
    """Return the version of QEMU with the suffix of the distribution.

    :raises ToolMissing: QEMU is not installed.
    :raises InfraError: its version is unknown.
    """
    return _version(_path())[1]


def _path() -> str:
    path = shutil.which(PROGRAM)
    if path is None:
        raise ToolMissing(f"{PROGRAM} is not installed", hint="`iommuq doctor` names the package")
    return path


@cache
def _version(path: str) -> tuple[str, str]:
    """Return the version without and with the suffix of the distribution."""
    try:
        done = run([path, "--version"], cwd=Path("/"), timeout=_VERSION_LIMIT, check=False)
    except CommandTimeout as error:
        raise InfraError(error.what, hint=error.hint) from error
    match = re.search(r"version (\d+\.\d+).*", done.output)
    if done.returncode != 0 or match is None:
        raise InfraError(f"{path} --version prints no version", hint="is it QEMU?")
    return match[1], match[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def argv(
    machine: Machine,
    kernel: Path,
    initramfs: Path,
    channel: Path,
    work: Path,
    accelerator: str,
    port: Path | None = None,
) -> list[str]:
    """Return the command that starts the guest.

    :param channel: the FIFO for its report.
    :param port: two FIFOs, with ``.in`` and ``.out`` behind this name, for the port `PORT`.
    :param work: its own directory, for `pid_file`.
    :param accelerator: ``kvm`` or ``tcg``.
    """
    assert machine.qemu is not None
    arguments = [f"iommuq.channel={NAME}", *machine.kernel_arguments]
    single = machine.qemu.one_thread and accelerator == "tcg"
    return [
        PROGRAM,
        # Without the configuration of the user and the distribution.
        *("-nodefaults", "-no-user-config"),
        *("-machine", machine.qemu.machine),
        *("-accel", f"{accelerator},thread=single" if single else accelerator),
        # The time of an idle guest passes at once, so that no one waits for a device's DMA.
        *(("-icount", "shift=3,sleep=off") if port and accelerator == "tcg" else ()),
        # "host" needs KVM. "max" has all of x86-64-v3, and RDRAND: no wait for entropy.
        *("-cpu", CPUS[accelerator]),
        *("-smp", str(machine.cpus)),
        *("-m", f"{machine.memory}M"),
        *("-display", "none"),
        *(("-bios", machine.qemu.firmware) if machine.qemu.firmware else ()),
        # signal=off: QEMU does not change the terminal.
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        # "file" also writes to a FIFO, unchanged.
        *("-chardev", f"file,id=report,path={_escaped(channel)}"),
        *("-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,chardev=report,name={NAME}"),
        *_port(port),
        *(word for device in machine.qemu.devices for word in ("-device", device)),
        # Exit after a panic with panic=-1, or a failed power-off.
        "-no-reboot",
        *("-pidfile", str(pid_file(work))),
        *("-kernel", str(kernel)),
        *("-initrd", _escaped(initramfs)),
        *("-append", " ".join(map(_quoted, arguments))),
    ]


def _port(port: Path | None) -> list[str]:
    if port is None:
        return []
    chardev = f"pipe,id=steps,path={_escaped(port)}"
    return ["-chardev", chardev, "-device", f"virtserialport,chardev=steps,name={PORT}"]


def pid_file(work: Path) -> Path:
    """Return the file with the process id of the guest."""
    return work / "pid"


def _escaped(path: Path) -> str:
    # QEMU splits options and the argument of -initrd at commas.
    return str(path).replace(",", ",,")


def _quoted(word: str) -> str:
    """Quote the value of a kernel argument, if it has white space."""
    if not re.search(r"\s", word):
        return word
    key, equals, value = word.partition("=")
    return f'{key}{equals}"{value}"' if equals else shlex.quote(word)
