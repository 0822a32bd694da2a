# SPDX-License-Identifier: GPL-2.0-only
"""Make the initramfs of a guest: busybox, init, the suites and their files.

A reproducible cpio archive in "newc" format, made without root.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import shutil
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iommuq.system import files as dirs
from iommuq.system.errors import InfraError, ToolMissing, UserError, os_errors_as
from iommuq.system.tables import own_table

BUSYBOX = "busybox"
#: Applets of busybox with a link in /bin.
APPLETS: list[str] = own_table(__package__, "busybox.toml")["applets"]

_DIRECTORIES = ("bin", "dev", "iommuq", "proc", "run", "sys", "tmp")
# Used by init before it mounts a devtmpfs; /dev/console is its standard input and output.
_NODES = {"dev/console": (5, 1), "dev/kmsg": (1, 11), "dev/null": (1, 3)}
_PT_INTERP = 3


@dataclass(frozen=True)
class Suite:
    """One program to run in the guest.

    :ivar name: for the report and the log.
    :ivar argv: the program, an absolute path in the guest, and its arguments.
    :ivar limit: its time limit in seconds.
    :ivar needs: paths in the guest; it is not run if one does not exist.
    """

    name: str
    argv: tuple[str, ...]
    limit: float = 60.0
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise UserError(f"{self.name!r} is not a valid name of a suite", hint="like iommufd")
        if not self.argv or not self.argv[0].startswith("/"):
            raise UserError(f"suite {self.name}: its program is not an absolute path")
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise UserError(f"suite {self.name}: limit {self.limit} is not a number of seconds")
        for path in self.needs:
            if not re.fullmatch(r"/[\w./:-]+", path):
                raise UserError(f"suite {self.name}: needs: {path!r} is not an absolute path")


@dataclass(frozen=True)
class Entry:
    """One member of an archive.

    :ivar path: without a leading slash.
    :ivar mode: type and permissions, as in ``st_mode``.
    :ivar data: content of a file, target of a symbolic link.
    :ivar device: major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Initramfs:
    """An archive in the cache.

    :ivar path: the file; its name is a hash of its content.
    :ivar suites: the suites that init runs, in order.
    """

    path: Path
    suites: tuple[Suite, ...]


def build(
    suites: Sequence[Suite],
    files: Mapping[str, Path],
    *,
    modules: Sequence[str] = (),
    before: bytes = b"",
) -> Initramfs:
    """Return an initramfs from the cache, or make it.

    :param suites: the suites to run, in order.
    :param files: files by their absolute path in the guest; programs must be static.
    :param modules: the kernel modules of *files* to load, in order.
    :param before: an uncompressed archive to put first, such as ACPI tables.
    :raises ToolMissing: there is no static busybox.
    :raises InfraError: a file cannot be read, a program is not static, or the cache
        cannot be written.
    :raises UserError: a suite or a module is not in *files*, or a path is malformed.
    """
    entries = {path: Entry(path, stat.S_IFDIR | 0o755) for path in _DIRECTORIES}

    def put(path: str, data: bytes, mode: int) -> None:
        for parent in list(PurePosixPath(path).parents)[:-1]:
            entries.setdefault(str(parent), Entry(str(parent), stat.S_IFDIR | 0o755))
        entries[path] = Entry(path, stat.S_IFREG | mode, data)

    put("bin/busybox", _busybox(), 0o755)
    for name in APPLETS:
        entries[f"bin/{name}"] = Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox")
    for path, device in _NODES.items():
        entries[path] = Entry(path, stat.S_IFCHR | 0o600, device=device)
    put("init", _read(dirs.project_root() / "selftests" / "init"), 0o755)
    for path, source in files.items():
        inside = _inside(path)
        if inside in entries:
            raise UserError(f"{source}: {path} exists already in the initramfs")
        data = _read(source)
        put(inside, data, 0o755 if os.access(source, os.X_OK) else 0o644)
        if is_dynamic(data, source):
            raise InfraError(
                f"{source} is linked dynamically", hint="the guest has no libraries: use -static"
            )
    lines = []
    for number, suite in enumerate(suites):
        if _inside(suite.argv[0]) not in entries:
            raise UserError(f"suite {suite.name}: {suite.argv[0]} is not in the initramfs")
        words = (str(number), suite.name, f"{suite.limit:g}", " ".join(suite.needs), *suite.argv)
        lines.append(f"suite {shlex.join(words)}\n")
    put("iommuq/suites", "".join(lines).encode(), 0o644)
    for path in modules:
        if path not in files:
            raise UserError(f"module {path} is not in the initramfs")
    if modules:
        put("iommuq/modules", "".join(f"{path}\n" for path in modules).encode(), 0o644)
    return Initramfs(_publish(before + cpio(entries.values())), tuple(suites))


def cpio(entries: Iterable[Entry]) -> bytes:
    """Return an archive in "newc" format; archives may be concatenated."""
    chunks = []
    last = Entry("TRAILER!!!", 0)
    for number, entry in enumerate([*sorted(entries, key=lambda entry: entry.path), last], 1):
        name = entry.path.encode() + b"\0"
        fields = (
            number if entry is not last else 0,
            entry.mode,
            *(0, 0),  # owner and group
            2 if stat.S_ISDIR(entry.mode) else 1,
            0,  # mtime
            len(entry.data),
            *(0, 0),  # device of the original file
            *entry.device,
            len(name),
            0,  # checksum, not used by "newc"
        )
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        chunks += [_padded(header + name), _padded(entry.data)]
    return b"".join(chunks)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _inside(path: str) -> str:
    """Return an absolute path of the guest without its leading slash."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or not all(parts[1:]) or {".", ".."} & set(parts):
        raise UserError(f"{path!r} is not an absolute path of a file in the guest")
    return path[1:]


def _busybox() -> bytes:
    path = shutil.which(BUSYBOX)
    if path is None:
        raise ToolMissing("busybox is not installed", hint="apt-get install busybox-static")
    data = _read(Path(path))
    if is_dynamic(data, Path(path)):
        raise ToolMissing(
            f"{path} is linked dynamically, a guest needs a static one",
            hint="apt-get install busybox-static",
        )
    return data


def _read(path: Path) -> bytes:
    with os_errors_as(InfraError, path, hint="required for a guest"):
        return path.read_bytes()


def is_dynamic(data: bytes, path: Path) -> bool:
    """Tell whether this is an ELF file with a program interpreter.

    :raises InfraError: it is one whose headers lead outside of it.
    """
    if not data.startswith(b"\x7fELF"):
        return False
    try:
        order = ">" if data[5] == 2 else "<"
        # e_phoff, and where e_phentsize and e_phnum are, of ELF64 and ELF32 (elf(5)).
        form, at, then = ("Q", 0x20, 0x36) if data[4] == 2 else ("I", 0x1C, 0x2A)
        (offset,) = struct.unpack_from(order + form, data, at)
        size, count = struct.unpack_from(order + "HH", data, then)
        kinds = [
            struct.unpack_from(order + "I", data, offset + number * size)[0]
            for number in range(count)
        ]
    except (struct.error, IndexError, OverflowError) as error:
        raise InfraError(f"{path}: truncated ELF file", hint="build it again") from error
    return _PT_INTERP in kinds


def _publish(data: bytes) -> Path:
    """Put an archive into the cache and return its path."""
    folder = dirs.cache_dir() / "initramfs"
    path = folder / f"{hashlib.sha256(data).hexdigest()}.cpio"
    with os_errors_as(InfraError, folder, hint="IOMMUQ_CACHE_DIR names another place"):
        # After a power cut the file may be empty.
        if path.exists() and dirs.file_sha256(path) == path.stem:
            os.utime(path)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        dirs.forget_old(folder)
        dirs.write_whole(path, data)
    return path
