# SPDX-License-Identifier: GPL-2.0-only
"""What is in an initramfs, and what may not be."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from iommuq.guests import initramfs
from iommuq.guests.initramfs import Entry, Suite, build, cpio
from iommuq.system import files as dirs
from iommuq.system.errors import DiskFull, InfraError, ToolMissing, UserError


def elf(*kinds: int, data: bytes = b"code") -> bytes:
    """Return a program of 64 bits that has program headers of these kinds."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I52x", kind) for kind in kinds) + data


STATIC = elf(1, 1)
DYNAMIC = elf(6, 3, 1)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with a busybox that is first on PATH, and a test program."""
    where = tmp_path / "files"
    where.mkdir()
    for name in ("busybox", "prog"):
        (where / name).write_bytes(STATIC)
        (where / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{where}:/usr/bin:/bin")
    return where


def members(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, ...]]]:
    """Read an archive: mode, content and all fields of each member."""
    found: dict[str, tuple[int, bytes, tuple[int, ...]]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = tuple(int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13))
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        at += (110 + fields[11] + 3) & ~3
        content = data[at : at + fields[6]]
        at += (fields[6] + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found[name] = (fields[1], content, fields)


def test_all_that_a_guest_needs_is_in_it(files: Path) -> None:
    suites = [
        Suite("one", ("/tests/prog", "it's", "$x"), limit=2.5, needs=("/dev/iommu", "/proc")),
        Suite("two", ("/bin/sh", "-c", "true")),
    ]
    data = members(build(suites, {"/tests/prog": files / "prog"}).path.read_bytes())
    assert data["init"][:2] == (
        stat.S_IFREG | 0o755,
        (dirs.project_root() / "selftests" / "init").read_bytes(),
    )
    assert data["tests/prog"][:2] == (stat.S_IFREG | 0o755, STATIC)
    assert data["tests"][0] == stat.S_IFDIR | 0o755
    assert data["bin/sh"][:2] == (stat.S_IFLNK | 0o777, b"busybox")
    assert stat.S_ISCHR(data["dev/console"][0])
    assert data["dev/console"][2][9:11] == (5, 1)
    # Exactly what a shell makes of it is what init is told.
    told = subprocess.run(
        ["sh", "-c", 'suite() { printf "<%s>" "$@"; echo; }; . /dev/stdin'],
        input=data["iommuq/suites"][1],
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert told == (
        "<0><one><2.5></dev/iommu /proc></tests/prog><it's><$x>\n"
        "<1><two><60><></bin/sh><-c><true>\n"
    )


def test_init_calls_nothing_that_is_not_there() -> None:
    text = (dirs.project_root() / "selftests" / "init").read_text()
    subprocess.run(["sh", "-n"], input=text.encode(), check=True)
    for word in ("awk", "cat", "head", "insmod", "ip", "mkfifo", "mount", "poweroff", "reboot",
                 "rm", "setsid", "sleep", "stty", "mkdir"):  # fmt: skip
        assert word in text
        assert word in initramfs.APPLETS


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_busybox_has_every_applet() -> None:
    there = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    assert set(initramfs.APPLETS) <= set(there.stdout.split())


def test_the_same_content_gives_the_same_bytes(files: Path) -> None:
    suites = [Suite("one", ("/tests/prog",))]
    first = build(suites, {"/tests/prog": files / "prog", "/data/x": files / "busybox"})
    content = first.path.read_bytes()
    os.utime(files / "prog", (1, 1))
    second = build(suites, {"/data/x": files / "busybox", "/tests/prog": files / "prog"})
    assert second.path == first.path
    assert second.path.read_bytes() == content
    for _, _, fields in members(content).values():
        # Owner, group, and time of change.
        assert fields[2:4] + fields[5:6] == (0, 0, 0)
    (files / "prog").write_bytes(elf(1, data=b"other"))
    assert build(suites, {"/tests/prog": files / "prog"}).path != first.path


@pytest.mark.parametrize("left", [0, 1])
def test_another_archive_under_its_name_is_made_anew(files: Path, left: int) -> None:
    """Such as an empty one after a power cut."""
    del files
    first = build([], {}).path
    good = first.read_bytes()
    first.write_bytes(b"x" * left * len(good))
    assert build([], {}).path.read_bytes() == good


def test_old_archives_go(files: Path) -> None:
    old = build([Suite("old", ("/bin/true",))], {}).path
    os.utime(old, (1, 1))
    new = build([Suite("new", ("/bin/true",))], {}).path
    assert sorted(new.parent.iterdir()) == [new]
    del files


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    data = cpio([Entry("b", stat.S_IFREG | 0o644, b"odd"), Entry("a", stat.S_IFDIR | 0o755)])
    done = subprocess.run(
        ["cpio", "-i", "--quiet"], input=data, cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stderr == b""
    assert (tmp_path / "b").read_bytes() == b"odd"
    assert (tmp_path / "a").is_dir()


def test_a_dynamic_program_is_refused(files: Path) -> None:
    (files / "prog").write_bytes(DYNAMIC)
    with pytest.raises(InfraError, match="linked dynamically") as caught:
        build([], {"/tests/prog": files / "prog"})
    assert str(files / "prog") in caught.value.what
    assert "-static" in caught.value.hint


@pytest.mark.parametrize("size", [5, 6, 60, 70])
def test_half_a_program_is_refused(files: Path, size: int) -> None:
    (files / "prog").write_bytes(DYNAMIC[:size])
    with pytest.raises(InfraError, match="truncated ELF"):
        build([], {"/tests/prog": files / "prog"})


def test_headers_beyond_all_files_are_refused(files: Path) -> None:
    (files / "prog").write_bytes(DYNAMIC[:0x20] + b"\xff" * 8 + DYNAMIC[0x28:])
    with pytest.raises(InfraError, match="truncated ELF"):
        build([], {"/tests/prog": files / "prog"})


def test_a_missing_program_is_named(files: Path) -> None:
    with pytest.raises(InfraError, match=r"nosuch: No such file"):
        build([], {"/tests/prog": files / "nosuch"})


def test_busybox_must_be_static(files: Path) -> None:
    (files / "busybox").write_bytes(DYNAMIC)
    with pytest.raises(ToolMissing, match="linked dynamically") as caught:
        build([], {})
    assert "busybox-static" in caught.value.hint


def test_busybox_must_be_there(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(files.parent))
    with pytest.raises(ToolMissing, match="busybox is not installed"):
        build([], {})


def test_a_suite_must_be_in_it(files: Path) -> None:
    with pytest.raises(UserError, match="/tests/prog is not in the initramfs"):
        build([Suite("one", ("/tests/prog",))], {"/tests/other": files / "prog"})


def test_modules_are_listed_in_their_order(files: Path) -> None:
    names = ["/modules/b.ko", "/modules/a.ko"]
    made = build([], dict.fromkeys(names, files / "prog"), modules=names)
    assert members(made.path.read_bytes())["iommuq/modules"][1] == b"/modules/b.ko\n/modules/a.ko\n"
    with pytest.raises(UserError, match=r"c\.ko is not in the initramfs"):
        build([], {}, modules=["/modules/c.ko"])


@pytest.mark.parametrize("path", ["tests/x", "/tests/../x", "/", "", "/a//b", "/a/./b"])
def test_paths_that_are_none_are_refused(files: Path, path: str) -> None:
    with pytest.raises(UserError, match="not an absolute path"):
        build([], {path: files / "prog"})


def test_nothing_replaces_init(files: Path) -> None:
    with pytest.raises(UserError, match="exists already in the initramfs"):
        build([], {"/init": files / "prog"})


@pytest.mark.parametrize(
    ("name", "argv", "limit", "needs"),
    [
        ("a b", ("/x",), 1.0, ()),
        ("", ("/x",), 1.0, ()),
        ("a", (), 1.0, ()),
        ("a", ("x",), 1.0, ()),
        ("a", ("/x",), 0.0, ()),
        ("a", ("/x",), float("inf"), ()),
        ("a", ("/x",), 1.0, ("/dev/a b",)),
        ("a", ("/x",), 1.0, ("dev",)),
    ],
)
def test_suites_that_make_no_sense_are_refused(
    name: str, argv: tuple[str, ...], limit: float, needs: tuple[str, ...]
) -> None:
    with pytest.raises(UserError):
        Suite(name, argv, limit, needs)


def test_a_full_disk_is_told(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull, match="No space left"):
        build([], {})
    assert list((dirs.cache_dir() / "initramfs").iterdir()) == []


def test_an_archive_may_come_before_it(files: Path) -> None:
    before = cpio([Entry("kernel", stat.S_IFDIR | 0o755)])
    plain = build([], {"/prog": files / "prog"})
    made = build([], {"/prog": files / "prog"}, before=before)
    assert made.path.read_bytes() == before + plain.path.read_bytes()
