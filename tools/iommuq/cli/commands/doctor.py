# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq doctor``."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iommuq import __version__
from iommuq.bases.basefile import list_specs
from iommuq.guests import accel
from iommuq.system import files as dirs
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, IommuqError
from iommuq.system.run import run
from iommuq.system.sandbox.box import protections
from iommuq.system.tables import own_table

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> int:
    """Check this machine, and show how to fix problems."""
    checks = collect()
    if as_json:
        print(json.dumps(report(checks), indent=2))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(checks))
    return EXIT_INFRA if lacking(checks) else EXIT_OK


GIB = 1 << 30
#: Time limits in seconds: of a tool's ``--version``, and of the disk usage of the cache.
TOOL_TIMEOUT = 10.0
SIZE_TIMEOUT = 60.0
#: Groups of packages that ``make run`` needs.
NEEDED_GROUPS = ("venv", "run")

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.~+-]*")


@dataclass(frozen=True)
class Check:
    """One check.

    :ivar area: ``tool``, ``machine``, ``accelerator``, ``sandbox``, ``base`` or ``cache``.
    :ivar ok: it exists, and is sufficient.
    :ivar needed: iommuq does not work without it.
    :ivar detail: its version, its size, or the error.
    :ivar fix: the command or advice to fix it; may be empty.
    """

    area: str
    name: str
    ok: bool
    needed: bool = False
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Tool:
    """An entry of ``doctor.toml``; see the comments there."""

    name: str
    argv: tuple[str, ...]
    group: str
    package: str = ""


@dataclass(frozen=True)
class Room:
    """The GiB that a cold run needs."""

    memory: float
    cache: float
    state: float


def load_data() -> tuple[tuple[Tool, ...], Room]:
    """Return the required tools and space."""
    found = own_table(__package__, "doctor.toml")
    tools = tuple(Tool(**{**entry, "argv": tuple(entry["argv"])}) for entry in found["tool"])
    return tools, Room(**found["room"])


def collect() -> list[Check]:
    """Return all checks, sorted by area; raises no error for a failed one."""
    tools, room = load_data()
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(check_tool, tools))
    sizes = check_sizes()
    return [
        Check("tool", "iommuq", ok=True, needed=True, detail=__version__),
        *found,
        check_cores(),
        check_memory(room.memory),
        check_room("cache", dirs.cache_dir(), room.cache, used=sum(sizes.values())),
        check_room("state", dirs.state_dir(), room.state),
        check_uml(),
        check_kvm(),
        check_tcg(),
        *(Check("sandbox", name, ok, detail=detail) for name, ok, detail in protections()),
        *check_bases(),
        *(
            Check("cache", path.name, True, detail=f"{_gib(size)}  {path}")
            for path, size in sizes.items()
        ),
    ]


def lacking(checks: Iterable[Check]) -> list[Check]:
    """Return the failed checks that are needed; with any, the exit code is 3."""
    return [check for check in checks if check.needed and not check.ok]


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks in the form of ``iommuq doctor --json``."""
    return {"ok": not lacking(checks), "checks": [asdict(check) for check in checks]}


def table(checks: Sequence[Check]) -> Table:
    """Return the checks as a table for a terminal, each with its fix below."""
    # Not at the top: rich takes longer to import than most commands take.
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    result = Table("", "", "", box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    for i, check in enumerate(checks):
        failed = "[red]FAIL[/red]" if check.needed else "[yellow]warn[/yellow]"
        mark = "ok" if check.ok else failed
        detail = escape(check.detail)
        if check.fix:
            detail += f"\n[bold]{escape(check.fix)}[/bold]"
        last_of_area = checks[i + 1 : i + 2] and checks[i + 1].area != check.area
        result.add_row(mark, escape(check.name), detail, end_section=bool(last_of_area))
    return result


def check_tool(tool: Tool) -> Check:
    """Check the version of a tool."""
    needed = tool.group in NEEDED_GROUPS
    fix = f"sudo apt-get install -y {tool.package}" if tool.package else ""
    try:
        done = run(tool.argv, cwd=Path("/"), check=False, timeout=TOOL_TIMEOUT)
    except IommuqError as error:
        return Check("tool", tool.name, ok=False, needed=needed, detail=error.what, fix=fix)
    if done.returncode != 0:
        said = (done.stderr or done.output).strip().splitlines()
        detail = said[0] if said else "missing"
        return Check("tool", tool.name, ok=False, needed=needed, detail=detail, fix=fix)
    version = _VERSION.search(done.output)
    detail = version[0] if version else "found"
    return Check("tool", tool.name, ok=True, needed=needed, detail=detail)


def check_cores() -> Check:
    """Count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    return Check("machine", "cores", ok=True, detail=str(cores))


def check_memory(want: float, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """Check the memory.

    :param want: the total that a build needs, in GiB.
    :param meminfo: the file with its size.
    """
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
        total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        return Check("machine", "memory", ok=False, detail=f"{meminfo}: unreadable")
    ok = total >= want * GIB
    detail = f"{_gib(total)}, {_gib(free)} available"
    fix = "" if ok else f"builds may be killed with less than {want:g} GiB"
    return Check("machine", "memory", ok=ok, detail=detail, fix=fix)


def check_room(name: str, where: Path, want: float, *, used: int = 0) -> Check:
    """Check whether a directory can be written, and has enough space.

    :param name: ``cache`` or ``state``.
    :param where: the directory; need not exist yet.
    :param want: the space for a cold run, in GiB.
    :param used: bytes in use, which count as free space.
    """
    variable = f"IOMMUQ_{name.upper()}_DIR"
    there = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail, fix = f"{_gib(free)} free in {where}", ""
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        detail = f"{there} is not writable"
        fix = f"set {variable} to a writable directory"
    elif free + used < want * GIB:
        fix = f"free {_gib(int(want * GIB) - free - used)} there, or set {variable}"
    return Check("machine", f"{name} room", ok=not fix, needed=True, detail=detail, fix=fix)


def check_uml() -> Check:
    """Check whether a UML kernel can run: only on x86_64."""
    machine = platform.machine()
    ok = machine == "x86_64"
    fix = "" if ok else "use an x86_64 machine"
    return Check("accelerator", "UML", ok=ok, needed=True, detail=f"native on {machine}", fix=fix)


def check_kvm() -> Check:
    """Check whether a guest boots with KVM."""
    try:
        verdict = accel.kvm()
    except IommuqError as error:
        return Check("accelerator", "KVM", ok=False, detail=error.what)
    detail = verdict.reason if verdict.usable else f"{verdict.reason}; QEMU uses TCG"
    return Check("accelerator", "KVM", ok=verdict.usable, detail=detail)


def check_tcg() -> Check:
    """Check whether QEMU was built with TCG."""
    argv = ("qemu-system-x86_64", "-accel", "help")
    try:
        done = run(argv, cwd=Path("/"), check=False, timeout=TOOL_TIMEOUT)
    except IommuqError as error:
        return Check("accelerator", "TCG", ok=False, detail=error.what)
    ok = "tcg" in done.output.split()
    detail = "available" if ok else "QEMU was built without it"
    return Check("accelerator", "TCG", ok=ok, detail=detail)


def check_bases() -> list[Check]:
    """Check the bases, and which version of each is in the cache."""
    try:
        specs = list_specs()
    except IommuqError as error:
        return [Check("base", "patches", ok=False, needed=True, detail=error.what, fix=error.hint)]
    return [_check_base(spec.name, spec.title) for spec in specs]


def _check_base(name: str, title: str) -> Check:
    detail, fix = "not fetched yet", ""
    try:
        cached = dirs.cache_dir() / "bases" / name / "base.json"
        detail = f"{json.loads(cached.read_bytes())['version']} in the cache"
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, TypeError):
        detail, fix = "damaged in the cache", f"iommuq base fetch {name}"
    return Check("base", name, ok=not fix, detail=f"{title}: {detail}", fix=fix)


def check_sizes() -> dict[Path, int]:
    """Return the disk usage of each directory of the cache in bytes."""
    cache = dirs.cache_dir()
    try:
        parts = sorted(path for path in cache.iterdir() if path.is_dir())
        if not parts:
            return {}
        # The exit status is ignored: another process may be removing files.
        argv: list[str | Path] = ["du", "--null", "-sk", "--", *parts]
        output = run(argv, cwd=cache, check=False, timeout=SIZE_TIMEOUT).output
    except (OSError, IommuqError):
        return {}
    rows = (row.split("\t", 1) for row in output.split("\0") if row)
    return {Path(path): int(kib) << 10 for kib, path in rows}


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
