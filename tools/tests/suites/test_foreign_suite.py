# SPDX-License-Identifier: GPL-2.0-only
"""Suites of others: their table, their sources, their build in a sandbox, and the verdicts."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firmwareguests import KERNEL, SUBJECT, TABLES, WARN
from iommuq.firmware import override, scenario
from iommuq.firmware import program as guest_program
from iommuq.guests import qemu
from iommuq.guests.boot import GuestReport, SuiteReport
from iommuq.guests.initramfs import Initramfs
from iommuq.guests.machine import Machine
from iommuq.results.store import Status, SuiteRun
from iommuq.suites.foreign import programs, sources, table
from iommuq.suites.foreign.programs import Built, build
from iommuq.suites.foreign.run import run_foreign, run_key
from iommuq.suites.foreign.table import Foreign, Program, Suite
from iommuq.suites.foreign.verdicts import judge
from iommuq.suites.vfio import run as vfio
from iommuq.suites.vfio.suite import CONTROL, MARKED
from iommuq.system.errors import UserError
from iommuq.system.files import cache_dir, project_root
from iommuq.system.sandbox import reader

COMMIT = "0123456789" * 4
PROGRAM = Program("prog", "out/prog", read="pattern", pattern="all good", fails="failed")
SUITE = Suite(
    "some", "https://example.org/some.git", COMMIT, ("sh build.sh",), (PROGRAM,), {"sh": "dash"}
)
REFUSED = ("cannot open",)
boxed = pytest.mark.skipif(bool(reader.missing()), reason="no sandbox")


def ours() -> Foreign:
    return table.load(project_root())


def verdict(
    device: str, *output: str, status: int | None = 0, program: Program = PROGRAM, **more: Any
) -> Status:
    report = SuiteReport("x", status, more.get("trouble", ""), output, 1.0, range(0))
    return judge(program, device, report, [*output, *more.get("splat", ())], REFUSED)[0]


# The table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "A b"}, "name is not a word"),
        ({"path": "../prog"}, "is not below the sources"),
        ({"path": "/bin/sh"}, "is not below the sources"),
        ({"endless": 60}, "limit is not above endless"),
        ({"read": "exit"}, "pattern goes with read"),
        ({"pattern": ""}, "pattern goes with read"),
        ({"pattern": "("}, "pattern: "),
        ({"fails": "["}, "fails: "),
        ({"arguments": ("a\n",)}, "is not printable"),
        ({"read": "tap", "pattern": "", "endless": 5}, "endless needs a pattern"),
    ],
)
def test_a_program_that_is_wrong(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(PROGRAM, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a/b"}, "name is not a word"),
        ({"url": "file:///etc"}, "url is not an https: address"),
        ({"url": "https://x/; rm -rf"}, "url is not an https: address"),
        ({"commit": "HEAD"}, "commit is not 40"),
        ({"build": ()}, "there is no build"),
        ({"build": ("make 'x",)}, "build: "),
        ({"build": (" ",)}, "an empty command"),
        ({"seconds": 0.0}, "seconds is not between"),
        ({"program": (PROGRAM, PROGRAM)}, "two have one name"),
    ],
)
def test_a_suite_that_is_wrong(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SUITE, **change)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("memory = 3072", "memory = 3072\nmore = 1", "more: unknown key"),
        ('name = "dma-map"', 'name = "dma-map"\nshell = true', "suite.0.program.1.shell: unknown"),
        ('control = "nvme"', 'control = "nvmf"', "has no device 'nvmf'"),
        ('do = "bind nvme ', 'do = "bind nvmf ', "has no device 'nvmf'"),
        ('read = "tap"', 'read = "xml"', "read"),
        ('url = "https://github.com/SamsungDS', 'url = "git://github.com/SamsungDS', "url is not"),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (project_root() / table.PLACE).read_text()
    assert old in text
    (tmp_path / table.PLACE).parent.mkdir()
    (tmp_path / table.PLACE).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(said)):
        table.load(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"foreign\.toml"):
        table.load(tmp_path)


def test_the_machines() -> None:
    found = ours()
    assert table.choose(found, ()) == found.guest.machines
    assert table.choose(found, ("q35-amd", "q35-amd")) == ("q35-amd",)
    with pytest.raises(UserError, match="no machine 'um'"):
        table.choose(found, ("um",))


# The sources


def test_sources_that_were_not_fetched() -> None:
    found = sources.find(SUITE, None)
    place = cache_dir() / "foreign/some"
    assert found == sources.Sources(
        None,
        f"not fetched; get it with: git clone https://example.org/some.git {place} && "
        f"git -C {place} checkout --quiet --detach {COMMIT}",
    )
    made = build(SUITE, None)
    assert (made.skipped, made.failed, made.key) == (found.missing, "", "")


def test_sources_at_another_commit() -> None:
    place = cache_dir() / "foreign/some"
    (place / ".git").mkdir(parents=True)
    for head, said in (
        ("ref: refs/heads/main\n", "no commit"),
        ("9" * 40, "9" * 12),
        ("\x1b[0m", "no commit"),
        ("", "no commit"),
    ):
        (place / ".git/HEAD").write_text(head)
        found = sources.find(SUITE, None)
        assert found.path is None
        assert found.missing.startswith(
            f"{place}: HEAD is at {said}, not at 012345678901; get it with: git -C {place} fetch"
        )
    (place / ".git/HEAD").write_text(f"{COMMIT}\n")
    assert sources.find(SUITE, None) == sources.Sources(place)


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
def test_a_head_that_is_no_file(kind: Callable[[Path], None]) -> None:
    place = cache_dir() / "foreign/some"
    (place / ".git").mkdir(parents=True)
    kind(place / ".git/HEAD")
    assert "HEAD is at no commit" in sources.find(SUITE, None).missing


def test_sources_of_the_user_s_are_taken_as_they_are(tmp_path: Path) -> None:
    assert sources.find(SUITE, tmp_path).missing == f"there is no {tmp_path}/some"
    (tmp_path / "some").mkdir()
    assert sources.find(SUITE, tmp_path).path == tmp_path / "some"


def test_links_and_git_s_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a/.git").mkdir(parents=True)
    (tmp_path / "a/.git/config").write_text("x")
    (tmp_path / "a/b").mkdir()
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/link").symlink_to("/etc/passwd")
    (tmp_path / "a/folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "a/fifo")
    assert [name for name, _ in sources.listed(tmp_path / "a")] == ["b/file"]
    first = sources.key(tmp_path / "a")
    sources.copy(tmp_path / "a", tmp_path / "c")
    assert sources.key(tmp_path / "c") == first
    (tmp_path / "a/b/file").chmod(0o755)
    assert sources.key(tmp_path / "a") != first


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / os.fsdecode(b"\xff.c")).write_text("x")
    first = sources.key(tmp_path / "a")
    sources.copy(tmp_path / "a", tmp_path / "c")
    assert sources.key(tmp_path / "c") == first
    (tmp_path / "c" / os.fsdecode(b"\xff.c")).rename(tmp_path / "c" / os.fsdecode(b"\xfe.c"))
    assert sources.key(tmp_path / "c") != first


def test_too_many_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("12345678")
    assert len(list(sources.listed(tmp_path))) == 3
    monkeypatch.setattr(sources, "MOST_BYTES", 23)
    with pytest.raises(UserError, match="more than"):
        sources.key(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(sources, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        sources.copy(tmp_path, tmp_path / "into")


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_source_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("a", "b", "c"):
        if kind == "folder":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).symlink_to("nothing")
    assert not list(sources.listed(tmp_path))
    monkeypatch.setattr(sources, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        sources.key(tmp_path)


# The build


def made_sources(tmp_path: Path, script: str) -> Path:
    (tmp_path / "some").mkdir()
    (tmp_path / "some/build.sh").write_text(f"{script}\n")
    return tmp_path


def test_a_tool_that_is_missing(tmp_path: Path) -> None:
    made_sources(tmp_path, "exit 1")
    tools = {"sh": "dash", "no-such-tool": "tool-package", "/no/such/header.h": "header-dev"}
    found = build(replace(SUITE, tools=tools), tmp_path)
    assert found.skipped == (
        "no-such-tool, /no/such/header.h is missing; get it with: "
        "apt-get install tool-package header-dev"
    )
    assert not found.failed


@boxed
def test_a_build_is_done_once(tmp_path: Path) -> None:
    made_sources(tmp_path, "mkdir out && echo made > out/prog")
    found = build(SUITE, tmp_path)
    assert (found.skipped, found.failed) == ("", "")
    path = found.paths["prog"]
    assert path.read_text() == "made\n"
    assert os.access(path, os.X_OK)
    before = path.stat().st_ino
    assert build(SUITE, tmp_path).paths["prog"].stat().st_ino == before
    # Other sources, another program.
    (tmp_path / "some/build.sh").write_text("mkdir out && echo other > out/prog\n")
    assert build(SUITE, tmp_path).paths["prog"].read_text() == "other\n"


@boxed
def test_another_list_of_programs_is_another_build(tmp_path: Path) -> None:
    made_sources(tmp_path, "mkdir out && echo one > out/prog && echo two > out/other")
    assert set(build(SUITE, tmp_path).paths) == {"prog"}
    more = replace(SUITE, program=(PROGRAM, replace(PROGRAM, name="other", path="out/other")))
    found = build(more, tmp_path)
    assert (set(found.paths), found.failed) == ({"prog", "other"}, "")
    moved = replace(SUITE, program=(replace(PROGRAM, path="out/other"),))
    assert build(moved, tmp_path).paths["prog"].read_text() == "two\n"


@boxed
def test_a_program_that_was_lost(tmp_path: Path) -> None:
    made_sources(tmp_path, "mkdir out && echo made > out/prog")
    build(SUITE, tmp_path).paths["prog"].unlink()
    found = build(SUITE, tmp_path)
    assert re.search(r"has no prog: remove that folder$", found.failed)
    assert not found.paths


def test_sources_that_cannot_be_taken_stop_no_other_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_sources(tmp_path, "true")
    monkeypatch.setattr(sources, "MOST_FILES", 0)
    found = build(SUITE, tmp_path)
    assert found.failed.startswith(f"{tmp_path}/some: more than 0 files")
    assert not found.paths


def test_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_sources(tmp_path, "true")
    there = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "bwrap" else there(tool))
    found = build(SUITE, tmp_path)
    # A review has an option for that, a build has none.
    assert found.failed == "bwrap is not installed (bubblewrap): no sandbox (nothing was run)"


@boxed
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo x.c:1: error >&2; exit 3", "`sh build.sh`: exit status 3\nx.c:1: error"),
        ("true", "the build does not make prog"),
        ("mkdir out && ln -s /etc/hostname out/prog", "the build does not make prog"),
        ("mkdir out && mkfifo out/prog", "the build does not make prog"),
        ("mkdir out && ln -s prog out/prog", "the build does not make prog"),
        ("mkdir out && cp /bin/true out/prog", "out/prog is linked dynamically"),
        ("mkdir out && head -c 60 /bin/true > out/prog", "out/prog: truncated ELF file"),
        # It has no network, and writes nowhere else.
        ("mkdir out && : > /usr/mine && echo x > out/prog", "exit status"),
        ("mkdir out && : > out/prog && (exec 3<>/dev/tcp/127.0.0.1/22) 2>&1", "exit status"),
    ],
)
def test_a_build_that_fails(tmp_path: Path, script: str, said: str) -> None:
    found = build(SUITE, made_sources(tmp_path, script))
    assert said in found.failed
    assert (found.paths, found.skipped) == ({}, "")


@boxed
def test_a_link_to_a_folder_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/prog").write_text("not ours\n")
    found = build(SUITE, made_sources(tmp_path, f"ln -s {tmp_path}/outside out"))
    assert "the build does not make prog" in found.failed
    # One that stays inside is as good as a file.
    (tmp_path / "some/build.sh").write_text("mkdir out && echo x > y && ln -s ../y out/prog\n")
    assert build(SUITE, tmp_path).paths["prog"].read_text() == "x\n"


@boxed
def test_a_build_that_hangs(tmp_path: Path) -> None:
    began = time.monotonic()
    found = build(replace(SUITE, seconds=3.0), made_sources(tmp_path, "sleep 300"))
    assert re.match(r"the build of some was stopped: not done after ", found.failed)
    assert time.monotonic() - began < 60


# The verdicts


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (("it is all good",), 0, Status.PASS),
        (("it is all good",), 1, Status.FAIL),
        (("it is not",), 0, Status.FAIL),
        (("all good", "one failed"), 0, Status.FAIL),
        ((), 0, Status.FAIL),
        (("cannot open it",), 1, Status.FAIL),
    ],
)
def test_the_control_device(output: tuple[str, ...], status: int, expected: Status) -> None:
    assert verdict(CONTROL, *output, status=status) is expected


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (("cannot open it",), 1, Status.PASS),
        # A program that says so and goes on has opened the device after all.
        (("cannot open it", "all good"), 0, Status.FAIL),
        (("all good",), 0, Status.FAIL),
        (("something else",), 1, Status.FAIL),
        ((), 1, Status.FAIL),
    ],
)
def test_the_marked_device(output: tuple[str, ...], status: int, expected: Status) -> None:
    assert verdict(MARKED, *output, status=status) is expected


VFN = "D vfio_group_set_container (src/iommu/vfio.c:5): iommu/vfio: failed to"
INIT = "basic: failed to init nvme controller:"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (("Failed to set group container: -1 (Invalid argument)",), Status.PASS),
        (("Failed to set group container: -1 (Operation not permitted)",), Status.PASS),
        (("Failed to set group container: -1 (Device or resource busy)",), Status.FAIL),
        (("Failed to set group container",), Status.PASS),
        (("Failed to set IOMMU: -1 (Invalid argument)",), Status.FAIL),
        ((f"{VFN} add group to vfio container", f"{INIT} Invalid argument"), Status.PASS),
        ((f"{VFN} add group to vfio container", "D more", f"{INIT} Invalid argument"), Status.PASS),
        ((f"{VFN} add group to vfio container", f"{INIT} Device or resource busy"), Status.FAIL),
        ((f"{VFN} set vfio iommu type", f"{INIT} Invalid argument"), Status.FAIL),
        ((f"{INIT} Invalid argument",), Status.FAIL),
        ((f"{INIT} Connection timed out",), Status.FAIL),
        (("E could not bind iommufd 3 to cdev 4, Operation not permitted",), Status.PASS),
        (("E could not bind iommufd 3 to cdev 4, Device or resource busy",), Status.FAIL),
    ],
)
def test_what_our_suites_say_of_a_refusal(output: tuple[str, ...], expected: Status) -> None:
    report = SuiteReport("x", 1, "", output, 1.0, range(0))
    assert judge(PROGRAM, MARKED, report, output, ours().refused)[0] is expected


@pytest.mark.parametrize("text", ["(", "x*"])
def test_a_refusal_that_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"^refused: "):
        replace(ours(), refused=(text,))


@pytest.mark.parametrize("device", [CONTROL, MARKED])
def test_what_is_no_verdict(device: str) -> None:
    hung = "did not end within 60 s and was killed"
    assert verdict(device, "cannot open", status=None, trouble=hung) is Status.ERROR
    assert verdict(device, "cannot open", status=1, splat=(WARN,)) is Status.FAIL


def test_a_program_that_never_ends() -> None:
    program = replace(PROGRAM, endless=5)
    # 143: timeout ended it.
    assert verdict(CONTROL, "all good", status=143, program=program) is Status.PASS
    assert verdict(CONTROL, "no", status=143, program=program) is Status.FAIL
    assert verdict(CONTROL, "all good", status=0, program=program) is Status.FAIL
    assert verdict(MARKED, "cannot open", status=1, program=program) is Status.PASS
    assert verdict(MARKED, "all good", status=143, program=program) is Status.FAIL
    # It went on after that.
    assert verdict(MARKED, "cannot open", status=143, program=program) is Status.FAIL


def test_a_run_that_tests_nothing() -> None:
    program = replace(PROGRAM, skips="no engine")
    assert verdict(CONTROL, "no engine here", program=program) is Status.SKIP
    assert verdict(MARKED, "no engine here", status=1, program=program) is Status.FAIL


def test_tap_and_exit_status() -> None:
    tap = replace(PROGRAM, read="tap", pattern="", fails="")
    assert verdict(CONTROL, "1..1", "ok 1 - x", program=tap) is Status.PASS
    assert verdict(CONTROL, "1..2", "ok 1 - x", "not ok 2 - y", program=tap) is Status.FAIL
    assert verdict(CONTROL, "1..2", "ok 1 - x", program=tap) is Status.FAIL
    assert verdict(CONTROL, "1..1", "ok 1 # SKIP nothing", program=tap) is Status.FAIL
    assert verdict(CONTROL, program=tap) is Status.FAIL
    plain = replace(tap, read="exit")
    assert verdict(CONTROL, program=plain) is Status.PASS
    assert verdict(CONTROL, status=2, program=plain) is Status.FAIL


# The guest


@pytest.fixture
def argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """Return what the guest ran, which stands in for QEMU's: all goes well."""
    found: dict[str, tuple[str, ...]] = {}
    guest = ours().guest

    def boot(
        machine: Machine, image: Path, archive: Initramfs, log: Path, *, foreign: bool
    ) -> GuestReport:
        del image, log
        assert foreign
        assert machine.memory == ours().memory
        reports = []
        for suite in archive.suites:
            found[suite.name] = suite.argv
            output, status = play(machine, suite.name)
            reports.append(SuiteReport(suite.name, status, "", output, 1.0, range(0)))
        return GuestReport(tuple(reports), "tcg", 1.0, ())

    def play(machine: Machine, name: str) -> tuple[tuple[str, ...], int]:
        if name == "table":
            own = override.find(machine)
            assert own is not None
            words = [f"step {number} yes" for number in range(1, 6)]
            dump = override.extended(own, machine, guest.region).hex()
            return (f"bytes 0 {dump}", "step 0 ok", *words, "end"), 0
        if name == "guest":
            _, first = scenario.script(guest, machine)
            words = ["ok"] * first + [step.expected[0] for step in guest.step]
            return (*(f"step {n} {word}" for n, word in enumerate(words)), "end"), 0
        if name.endswith(f".{MARKED}"):
            return ("Failed to set group container",), 255
        return ("all good",), 0

    (tmp_path / "steps").write_text("#!/bin/sh\n")
    monkeypatch.setattr(guest_program, "build", lambda: tmp_path / "steps")
    monkeypatch.setattr(qemu, "full_version", lambda: "version 7.2.0")
    monkeypatch.setattr(vfio, "boot", boot)
    for name, own in (("q35-amd", "IVRS"), ("q35-intel", "DMAR")):
        override.keep(ours().machine(name), TABLES[own])
    return found


def made(tmp_path: Path) -> Built:
    (tmp_path / "prog").write_text("#!/bin/sh\n")
    return Built(SUITE, "key", {"prog": tmp_path / "prog"})


def statuses(run: SuiteRun) -> dict[str, Status]:
    return {result.test: result.status for result in run.results}


def test_all_goes_well(argv: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    other = Built(replace(SUITE, name="other"), skipped="get it with: git clone")
    broken = Built(replace(SUITE, name="broken"), failed="make: no")
    built = [made(tmp_path), other, broken]
    run = run_foreign(KERNEL, ours(), built, ["q35-amd", "q35-intel"], SUBJECT)
    found = statuses(run)
    assert found["some.builds"] is Status.PASS
    assert found["other.builds"] is Status.SKIP
    assert found["broken.builds"] is Status.ERROR
    for name in ("q35-amd", "q35-intel"):
        assert found[f"{name}.some.prog.control"] is Status.PASS
        assert found[f"{name}.some.prog.marked"] is Status.PASS
        assert found[f"{name}.guest.region_of_nvme_is_direct"] is Status.PASS
    assert not any(".other." in test or ".broken." in test for test in found)
    assert argv["some.prog.control"] == ("/suites/some.prog", "0000:00:06.0")
    assert argv["some.prog.marked"] == ("/suites/some.prog", "0000:00:05.0")


def test_an_endless_program_is_ended(argv: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    endless = replace(PROGRAM, endless=7, arguments=("-d", "{device}"), control="nvme")
    built = replace(made(tmp_path), suite=replace(SUITE, program=(endless,)))
    run = run_foreign(KERNEL, ours(), [built], ["q35-amd"], SUBJECT)
    words = ("/bin/timeout", "7", "/suites/some.prog", "-d", "0000:00:0b.0")
    assert argv["some.prog.control"] == words
    # It ended by itself.
    assert statuses(run)["q35-amd.some.prog.control"] is Status.FAIL


def test_nothing_is_booted_for_nothing(argv: dict[str, tuple[str, ...]]) -> None:
    other = Built(SUITE, skipped="get it with: git clone")
    run = run_foreign(KERNEL, ours(), [other], ["q35-amd"], SUBJECT)
    assert statuses(run) == {"some.builds": Status.SKIP}
    assert not argv


def test_what_is_in_the_key(argv: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    del argv
    one = made(tmp_path)
    keys = {
        run_key(KERNEL, [one], ["q35-amd"]),
        run_key(KERNEL, [one], ["q35-intel"]),
        run_key(KERNEL, [replace(one, key="other")], ["q35-amd"]),
        run_key(replace(KERNEL, key="other"), [one], ["q35-amd"]),
    }
    assert len(keys) == 4
    assert run_key(KERNEL, [one], ["q35-amd"]) in keys


def test_the_limits_of_a_build() -> None:
    found = programs.limits(replace(SUITE, seconds=9.0))
    assert (found.seconds, found.disk, found.memory) == (9.0, 1024, 2048)
