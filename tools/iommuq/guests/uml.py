# SPDX-License-Identifier: GPL-2.0-only
"""How a user-mode Linux guest is started."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from pathlib import Path

from iommuq.guests.machine import Machine
from iommuq.system import files
from iommuq.system.errors import InfraError
from iommuq.system.run import run

#: What reports name in the place of an accelerator.
ACCELERATOR = "native"
#: The source of what makes up for the processor; its comment tells.
SOURCE = Path(__file__).with_name("xstate.c")

# run() passes no descriptors on, and of the channels that UML has, "fd" is the one that
# takes a FIFO.
_WITH_CHANNEL = 'exec "$@" 3>"$0"'
_COMPILE_LIMIT = 60.0


def argv(machine: Machine, kernel: Path, initramfs: Path, channel: Path, work: Path) -> list[str]:
    """Return what starts the guest.

    :param channel: the FIFO for its report.
    :param work: a directory of its own; it has the process id in `pid_file`.
    """
    return [
        *("/bin/sh", "-c", _WITH_CHANNEL, str(channel)),
        str(kernel),
        f"mem={machine.memory}M",
        f"initrd={initramfs}",
        # Not below the user's home, where a killed guest would leave it.
        *(f"uml_dir={work}/", "umid=guest"),
        # An xterm each is the default.
        "con=null",
        # Both are open for writing only, and never have anything to be read. The
        # second is /dev/tty1 in the guest.
        *("con0=fd:1", "con1=fd:3"),
        "iommuq.channel=/dev/tty1",
        # SysRq-t follows bad pointers, which UML survives only since 6.15.
        "iommuq.tasks=proc",
        *machine.kernel_arguments,
    ]


def pid_file(work: Path) -> Path:
    """Return the file that the guest writes its process id to."""
    return work / "guest" / "pid"


def environment() -> dict[str, str]:
    """Return the variables to set for the guest, making what they name.

    :raises ToolMissing: there is no compiler.
    :raises InfraError: the cache cannot be written.
    """
    if platform.machine() != "x86_64":
        return {}
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = files.cache_dir() / "uml" / f"xstate-{key}.so"
    if not library.exists():
        # Two steps of a proof may want it at once, each in a thread.
        temporary = library.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            run(
                ["gcc", "-O2", "-shared", "-fPIC", "-o", temporary, SOURCE],
                cwd=library.parent,
                timeout=_COMPILE_LIMIT,
            )
            temporary.replace(library)
        except OSError as error:
            raise InfraError(
                f"{library}: {error.strerror}", hint="IOMMUQ_CACHE_DIR names another place"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    return {"LD_PRELOAD": str(library)}
