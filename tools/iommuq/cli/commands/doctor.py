# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq doctor``."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iommuq import __version__
from iommuq.bases import sources
from iommuq.guests import accel
from iommuq.system import files as dirs
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, IommuqError
from iommuq.system.run import run

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> int:
    """Say what this machine has, what it lacks, and what mends that."""

    return show_doctor(as_json=as_json)


GIB = 1 << 30
#: Seconds that a tool has to tell its version.
TOOL_TIMEOUT = 10.0
#: Seconds that the caches may take to be added up.
SIZE_TIMEOUT = 60.0
#: Groups of packages that ``make run`` cannot do without.
NEEDED_GROUPS = ("venv", "run")

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.~+-]*")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    :ivar area: ``tool``, ``machine``, ``accelerator``, ``base`` or ``cache``.
    :ivar ok: it is there, and enough.
    :ivar needed: nothing works without it.
    :ivar detail: its version, its size, or what is wrong with it.
    :ivar fix: the command, or else the advice, that mends it; empty if all is well.
    """

    area: str
    name: str
    ok: bool
    needed: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Tool:
    """An entry of ``doctor.toml``, where the fields are explained."""

    name: str
    argv: tuple[str, ...]
    group: str
    package: str = ""


@dataclass(frozen=True)
class Room:
    """The GiB that a cold run needs: of memory, in the cache, for results."""

    memory: float
    cache: float
    state: float


def load_data() -> tuple[tuple[Tool, ...], Room]:
    """Return what to look for and how much room there must be."""
    data = tomllib.loads(files(__package__).joinpath("doctor.toml").read_text("utf-8"))
    tools = tuple(Tool(**{**entry, "argv": tuple(entry["argv"])}) for entry in data["tool"])
    return tools, Room(**data["room"])


def collect() -> list[Check]:
    """Look at everything.

    :return: a check a thing, those of an area together; never raises for what it finds.
    """
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
        *check_bases(),
        *(
            Check("cache", path.name, ok=True, needed=False, detail=f"{_gib(size)}  {path}")
            for path, size in sizes.items()
        ),
    ]


def lacking(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that failed and are needed; exit code 3 if there are any."""
    return [check for check in checks if check.needed and not check.ok]


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks in the form of ``iommuq doctor --json``."""
    return {"ok": not lacking(checks), "checks": [asdict(check) for check in checks]}


def table(checks: Sequence[Check]) -> Table:
    """Return the checks as a table for a terminal; what mends a thing stands under it."""
    # Here, as rich takes longer to import than most commands take to run.
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    result = Table("", "", "", box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    for i, check in enumerate(checks):
        if check.ok:
            mark = "ok"
        else:
            mark = "[red]LACKS[/red]" if check.needed else "[yellow]lacks[/yellow]"
        detail = escape(check.detail)
        if check.fix:
            detail += f"\n[bold]{escape(check.fix)}[/bold]"
        last_of_area = checks[i + 1 : i + 2] and checks[i + 1].area != check.area
        result.add_row(mark, escape(check.name), detail, end_section=bool(last_of_area))
    return result


def check_tool(tool: Tool) -> Check:
    """Ask a tool for its version."""
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
    return Check(
        "tool", tool.name, ok=True, needed=needed, detail=version[0] if version else "found"
    )


def check_cores() -> Check:
    """Count the cores that this process may use."""
    return Check(
        "machine", "cores", ok=True, needed=False, detail=str(len(os.sched_getaffinity(0)))
    )


def check_memory(want: float, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """See whether there is memory enough.

    :param want: the total that a build needs, in GiB.
    :param meminfo: the kernel's account of it.
    """
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
        total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        return Check("machine", "memory", ok=False, needed=False, detail=f"{meminfo}: unreadable")
    ok = total >= want * GIB
    return Check(
        "machine",
        "memory",
        ok=ok,
        needed=False,
        detail=f"{_gib(total)}, {_gib(free)} available",
        fix="" if ok else f"builds may be killed with less than {want:g} GiB",
    )


def check_room(name: str, where: Path, want: float, *, used: int = 0) -> Check:
    """See whether a directory of ours can be written, and has the room.

    :param name: ``cache`` or ``state``.
    :param where: the directory; it need not exist yet.
    :param want: what a cold run needs, in GiB.
    :param used: what it holds by now, in bytes, which counts as room.
    """
    variable = f"IOMMUQ_{name.upper()}_DIR"
    there = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail, fix = f"{_gib(free)} free in {where}", ""
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        detail = f"{there} cannot be written"
        fix = f"set {variable} to a directory that can"
    elif free + used < want * GIB:
        fix = f"free {_gib(int(want * GIB) - free - used)} there, or set {variable}"
    return Check("machine", f"{name} room", ok=not fix, needed=True, detail=detail, fix=fix)


def check_uml() -> Check:
    """See whether a UML kernel can run: it runs natively, on x86_64 alone."""
    machine = platform.machine()
    ok = machine == "x86_64"
    fix = "" if ok else "use an x86_64 machine"
    return Check("accelerator", "UML", ok=ok, needed=True, detail=f"native on {machine}", fix=fix)


def check_kvm() -> Check:
    """See whether a guest really boots with KVM."""
    try:
        verdict = accel.kvm()
    except IommuqError as error:
        return Check("accelerator", "KVM", ok=False, needed=False, detail=error.what)
    detail = verdict.reason if verdict.usable else f"{verdict.reason}; QEMU uses TCG"
    return Check("accelerator", "KVM", ok=verdict.usable, needed=False, detail=detail)


def check_tcg() -> Check:
    """See whether QEMU was built with TCG."""
    argv = ("qemu-system-x86_64", "-accel", "help")
    try:
        done = run(argv, cwd=Path("/"), check=False, timeout=TOOL_TIMEOUT)
    except IommuqError as error:
        return Check("accelerator", "TCG", ok=False, needed=False, detail=error.what)
    ok = "tcg" in done.output.split()
    detail = "available" if ok else "QEMU was built without it"
    return Check("accelerator", "TCG", ok=ok, needed=False, detail=detail)


def check_bases() -> list[Check]:
    """See which bases there are, and which version of each the cache has."""
    try:
        specs = sources.list_specs()
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
    return Check("base", name, ok=not fix, needed=False, detail=f"{title}: {detail}", fix=fix)


def check_sizes() -> dict[Path, int]:
    """Return the bytes that each directory of the cache takes up on disk."""
    cache = dirs.cache_dir()
    try:
        parts = sorted(path for path in cache.iterdir() if path.is_dir())
        if not parts:
            return {}
        # Its status does not count: another iommuq may be removing files just now.
        argv: list[str | Path] = ["du", "--null", "-sk", "--", *parts]
        output = run(argv, cwd=cache, check=False, timeout=SIZE_TIMEOUT).output
    except (OSError, IommuqError):
        return {}
    rows = (row.split("\t", 1) for row in output.split("\0") if row)
    return {Path(path): int(kib) << 10 for kib, path in rows}


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def show_doctor(*, as_json: bool) -> int:
    """Print what the machine has and lacks.

    :return: the exit code: 3 if something needed is missing.
    """
    checks = collect()
    if as_json:
        print(json.dumps(report(checks), indent=2))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(checks))
    return EXIT_INFRA if lacking(checks) else EXIT_OK
