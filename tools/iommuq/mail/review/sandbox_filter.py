# SPDX-License-Identifier: GPL-2.0-only
"""Make the system call filter of a sandbox, in classic BPF for seccomp.

It denies what no build needs: new namespaces, mounts, and calls with a history of exploits.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from iommuq.system.errors import UserError

# <linux/bpf_common.h>: load a word; jump if equal, if not less, if a bit is set; return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data: number, architecture, low word of the first argument.
_NUMBER, _ARCH, _FIRST = 0, 4, 16
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_CLONE_NEWUSER = 0x10000000
# The first number of the x32 ABI on x86.
_X32 = 0x40000000


@dataclass(frozen=True)
class Machine:
    """The system call numbers of a machine.

    :ivar name: as in ``uname -m``.
    :ivar audit_arch: from ``<linux/audit.h>``.
    :ivar clone: allowed without CLONE_NEWUSER.
    :ivar clone3: fails with ENOSYS, since its flags cannot be checked; C libraries then
        use clone.
    :ivar denied: name -> number of those that fail with EPERM.
    """

    name: str
    audit_arch: int
    clone: int
    clone3: int
    denied: dict[str, int]

    def __post_init__(self) -> None:
        for number in (self.clone, self.clone3, *self.denied.values()):
            if not 0 <= number < _X32:
                raise ValueError(f"{number} is not a system call number")


def find(machines: tuple[Machine, ...], name: str) -> Machine:
    """Return the machine of that name.

    :raises UserError: there is none.
    """
    for machine in machines:
        if machine.name == name:
            return machine
    raise UserError(
        f"no system call filter for {name}: no sandbox",
        hint="sandbox.toml lists the supported machines",
    )


def program(machine: Machine) -> bytes:
    """Return the filter as bubblewrap reads it: instructions of eight bytes."""
    denied = _instruction(_RETURN, _ERRNO | errno.EPERM)
    allowed = _instruction(_RETURN, _ALLOW)
    parts = [
        # Numbers of another architecture differ.
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, machine.audit_arch, 1, 0),
        denied,
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32, 0, 1),
        denied,
    ]
    for number in machine.denied.values():
        parts += [_instruction(_EQUAL, number, 0, 1), denied]
    parts += [
        _instruction(_EQUAL, machine.clone3, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.ENOSYS),
        _instruction(_EQUAL, machine.clone, 1, 0),
        allowed,
        _instruction(_LOAD, _FIRST),
        _instruction(_ANY_BIT, _CLONE_NEWUSER, 0, 1),
        denied,
        allowed,
    ]
    return b"".join(parts)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
