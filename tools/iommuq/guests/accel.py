# SPDX-License-Identifier: GPL-2.0-only
"""Test whether KVM works, by booting a tiny guest that enters 64-bit mode (``longmode.S``).

Under some hypervisors ``/dev/kvm`` opens, but QEMU aborts or the guest hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import CommandTimeout, InfraError
from iommuq.system.run import describe_status, run, tail
from iommuq.system.temporary import temporary_folder

QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
#: Time limit of the tiny guest in seconds; it takes 0.1 s.
LIMIT = 5.0

_ROM_SIZE = 64 * 1024
#: The reset vector, 16 bytes before the end of the ROM: jmp 0xf000:0.
_RESET = 0xFFF0
_JUMP = bytes.fromhex("ea000000f0")
#: longmode.S writes 0x10 to isa-debug-exit; QEMU exits with (value << 1) | 1.
_PORT = 0xF4
_STATUS = (0x10 << 1) | 1
_CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bf0010b900186631c0fcf3ab66c7060010032000006"
    "6c70600200330000066c70600308300000066b8001000000f22d80f20e066"
    "83c8200f22e066b9800000c00f32660d000100000f302e660f011688000f2"
    "0c0660d010000800f22c066ea6e000f00080066baf400b010eef466900000"
    "00000000000000000000009a20000f0078000f00"
)


@dataclass(frozen=True)
class Usability:
    """Whether an accelerator can be used.

    :ivar usable: a guest booted with it.
    :ivar reason: the reason, in a few words.
    """

    usable: bool
    reason: str


def kvm() -> Usability:
    """Return whether KVM works; stored for each machine, kernel and QEMU.

    :raises ToolMissing: QEMU is not installed.
    """
    if not DEVICE.exists():
        return Usability(False, "there is no /dev/kvm")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Usability(False, "no permission for /dev/kvm, join the group kvm")
    key = _machine()
    memory = files.state_dir() / "accelerators.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Usability(**json.loads(memory.read_text())[key])
    verdict = boot("kvm")
    with contextlib.suppress(InfraError):
        files.write_json(memory, {key: asdict(verdict)})
    return verdict


def boot(accelerator: str) -> Usability:
    """Boot the tiny guest.

    :param accelerator: ``kvm`` or ``tcg``.
    :raises ToolMissing: QEMU is not installed.
    """
    with temporary_folder("accel") as folder:
        rom = folder / "rom.bin"
        image = bytearray(b"\xf4" * _ROM_SIZE)
        image[: len(_CODE)] = _CODE
        image[_RESET : _RESET + len(_JUMP)] = _JUMP
        rom.write_bytes(image)
        try:
            done = run(
                [
                    *(QEMU, "-nodefaults", "-no-user-config"),
                    *("-machine", "pc"),
                    *("-accel", accelerator),
                    *("-cpu", "host" if accelerator == "kvm" else "qemu64"),
                    *("-m", "4"),
                    *("-display", "none"),
                    *("-bios", rom),
                    *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=0x04"),
                    "-no-reboot",
                ],
                cwd=Path("/"),
                timeout=LIMIT,
                check=False,
                watched=True,
            )
        except CommandTimeout:
            return Usability(False, "a guest hangs when it enters 64-bit mode")
    if done.returncode == _STATUS:
        return Usability(True, "a guest booted")
    said = tail(done.stderr or done.output, 1).strip()
    return Usability(False, said or f"QEMU ended with {describe_status(done.returncode)}")


def _machine() -> str:
    """Return a hash of machine, kernel and QEMU."""
    words = [platform.release(), platform.node()]
    for path in ("/etc/machine-id", "/proc/cpuinfo"):
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            continue
        words += [line for line in lines if not line.startswith(("cpu MHz", "bogomips"))]
    try:
        version = run([QEMU, "--version"], cwd=Path("/"), timeout=LIMIT).output
    except CommandTimeout as error:
        raise InfraError(error.what) from error
    return files.hash_of(*words, version)
