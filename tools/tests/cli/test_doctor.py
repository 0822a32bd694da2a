# SPDX-License-Identifier: GPL-2.0-only
"""What `doctor` says of machines that have, or lack, one thing or another."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from iommuq.cli.commands import doctor
from iommuq.cli.commands.doctor import Check, Tool
from iommuq.guests import accel
from iommuq.system.errors import ToolMissing
from iommuq.system.files import cache_dir

PACKAGES = Path(__file__).parents[2] / "packages.txt"
BASE = """
name = "6.12"
title = "Linux 6.12"

[source]
provider = "debian"
package = "linux-source-6.12"
"""


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def no_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the probe of KVM, which has tests of its own, from booting anything here."""
    monkeypatch.setattr(accel, "boot", lambda _: accel.Usability(False, "not tried"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with one base."""
    folder = tmp_path / "project/patches/6.12"
    folder.mkdir(parents=True)
    (folder / "base.toml").write_text(BASE)
    (folder / "series").touch()
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path / "project"))
    return tmp_path / "project"


def test_tools_are_the_packages_that_bootstrap_installs() -> None:
    listed = {}
    group = ""
    for line in PACKAGES.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words and words[0].startswith("["):
            group = words[0].strip("[]")
        elif words:
            package, command = words
            listed[package] = (group, command)
    tools = {tool.package: tool for tool in doctor.load_data()[0] if tool.package}
    assert {name: tool.group for name, tool in tools.items()} == {
        name: group for name, (group, _) in listed.items()
    }
    for name, (_, command) in listed.items():
        assert command in ("-", tools[name].argv[0])


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("GNU Make 4.3", "4.3"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("bc 1.07.1-rc2\nCopyright 1991-1994", "1.07.1-rc2"),
        ("", "found"),
    ],
)
def test_version_of_a_tool(tmp_path: Path, said: str, version: str) -> None:
    path = program(tmp_path, "tool", f"echo '{said}'")
    check = doctor.check_tool(Tool("tool", (str(path),), "run", "package"))
    assert check == Check("tool", "tool", ok=True, needed=True, detail=version)


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (None, "is not installed"),
        ("echo 'gelf.h: No such file' >&2; exit 1", "gelf.h: No such file"),
        ("exit 1", "missing"),
        ("exec sleep 60", "did not end within 2 s"),
    ],
)
def test_tool_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, detail: str
) -> None:
    monkeypatch.setattr(doctor, "TOOL_TIMEOUT", 2.0)
    path = program(tmp_path, "tool", script) if script else tmp_path / "nothing"
    check = doctor.check_tool(Tool("tool", (str(path),), "run", "package"))
    assert not check.ok
    assert detail in check.detail
    assert check.fix == "sudo apt-get install -y package"
    assert doctor.lacking([check]) == [check]


def test_what_only_the_tests_need_is_not_needed(tmp_path: Path) -> None:
    check = doctor.check_tool(Tool("quilt", (str(tmp_path / "quilt"),), "test", "quilt"))
    assert not check.ok
    assert doctor.lacking([check]) == []


@pytest.mark.parametrize(("total", "ok"), [(4 << 20, True), (1 << 20, False)])
def test_memory(tmp_path: Path, total: int, ok: bool) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {1 << 19} kB\n")
    check = doctor.check_memory(2.0, meminfo)
    assert check.ok is ok
    assert check.detail == f"{total >> 20}.0 GiB, 0.5 GiB available"
    assert bool(check.fix) is not ok


@pytest.mark.parametrize("text", ["", "MemTotal: much\n", "nonsense"])
def test_memory_that_cannot_be_told(tmp_path: Path, text: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    assert "unreadable" in doctor.check_memory(2.0, meminfo).detail
    assert "unreadable" in doctor.check_memory(2.0, tmp_path / "none").detail


def test_room(tmp_path: Path) -> None:
    where = tmp_path / "not/there/yet"
    assert doctor.check_room("cache", where, 0.001).ok
    full = doctor.check_room("cache", where, 1e6)
    assert (full.ok, full.needed) == (False, True)
    assert "IOMMUQ_CACHE_DIR" in full.fix
    assert doctor.check_room("cache", where, 1e6, used=int(1e6) * doctor.GIB).ok
    assert not where.exists()


def test_room_where_nothing_can_be_written(tmp_path: Path) -> None:
    program(tmp_path, "file", "")
    check = doctor.check_room("state", tmp_path / "file/logs", 0.0)
    assert not check.ok
    assert check.detail == f"{tmp_path}/file is not writable"
    assert "IOMMUQ_STATE_DIR" in check.fix


def test_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "kvm", lambda: accel.Usability(True, "a guest booted"))
    assert doctor.check_kvm().ok
    monkeypatch.setattr(accel, "kvm", lambda: accel.Usability(False, "a guest hangs"))
    broken = doctor.check_kvm()
    assert (broken.ok, broken.needed) == (False, False)
    assert broken.detail == "a guest hangs; QEMU uses TCG"

    def missing() -> accel.Usability:
        raise ToolMissing("qemu-system-x86_64 is not installed")

    monkeypatch.setattr(accel, "kvm", missing)
    assert "not installed" in doctor.check_kvm().detail


@pytest.mark.parametrize(
    ("script", "ok"),
    [("echo Accelerators:; echo tcg", True), ("echo kvm", False), ("exit 1", False)],
)
def test_tcg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ok: bool) -> None:
    program(tmp_path, "qemu-system-x86_64", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert doctor.check_tcg().ok is ok


def test_bases(root: Path) -> None:
    def detail() -> str:
        (check,) = doctor.check_bases()
        assert (check.area, check.name, check.needed) == ("base", "6.12", False)
        assert check.ok is not bool(check.fix)
        return check.detail

    assert detail() == "Linux 6.12: not fetched yet"
    cached = cache_dir() / "bases/6.12/base.json"
    cached.parent.mkdir(parents=True)
    cached.write_text('{"version": "6.12.117-1"}')
    assert detail() == "Linux 6.12: 6.12.117-1 in the cache"
    for text in ("{", "[]", "{}", "\udcff"):
        cached.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert detail() == "Linux 6.12: damaged in the cache"
    (root / "patches/6.12/base.toml").write_text("name = ")
    (check,) = doctor.check_bases()
    assert (check.ok, check.needed) == (False, True)
    assert "base.toml" in check.detail


def test_sizes_of_the_cache() -> None:
    assert doctor.check_sizes() == {}
    cache = cache_dir()
    cache.mkdir(parents=True)
    assert doctor.check_sizes() == {}
    (cache / "bases.lock").touch()
    for name, kib in (("bases", 100), ("two\nlines", 300)):
        (cache / name).mkdir()
        (cache / name / "file").write_bytes(os.urandom(kib << 10))
    sizes = doctor.check_sizes()
    assert [path.name for path in sizes] == ["bases", "two\nlines"]
    assert 100 << 10 <= sizes[cache / "bases"] < 200 << 10


def test_a_machine_without_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("IOMMUQ_ROOT", str(root / "nowhere"))
    checks = doctor.collect()
    needed = {check.name for check in doctor.lacking(checks)}
    assert {"git", "gcc", "make", "patches"} <= needed
    assert "quilt" not in needed
    report = json.loads(json.dumps(doctor.report(checks)))
    assert report["ok"] is False
    assert {"name": "git", "area": "tool", "needed": True}.items() <= next(
        entry.items() for entry in report["checks"] if entry["name"] == "git"
    )


def test_table_shows_the_fix() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(
        doctor.table(
            [
                Check("tool", "git", ok=False, needed=True, detail="[none]", fix="apt [git]"),
                Check("tool", "quilt", ok=False, needed=False, detail="none"),
                Check("machine", "cores", ok=True, needed=False, detail="2"),
            ]
        )
    )
    lines = [line.split() for line in console.export_text().splitlines() if line.strip(" ─╶╴")]
    assert lines == [
        ["FAIL", "git", "[none]"],
        ["apt", "[git]"],
        ["warn", "quilt", "none"],
        ["ok", "cores", "2"],
    ]
