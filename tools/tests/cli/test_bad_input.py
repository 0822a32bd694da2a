# SPDX-License-Identifier: GPL-2.0-only
"""Tests of what goes wrong on the way: messages, exit codes, and that no later run is hurt."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import toykernel
from toykernel import BASE, FRAGMENT, KNOWN, SUITE_C, Done, Project, interrupt, wait_for

#: Seconds after which nothing of a killed run may be left.
SOON = 10.0
#: What a base asks for over the fragments that are for all of them.
OWN_FRAGMENT = f"patches/{BASE}/configs/um.config"
#: One step, and what is printed of it if all is well.
ONE = ("kunit", BASE, "--at", "0001")
GOOD = "PASS: toy 0001: 4 pass, 1 skipped, 1 known\n"


@pytest.fixture
def cold(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project that has run nothing yet; nothing of it may run at the end."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=False)
    yield project
    assert project.leftovers() == []


@pytest.fixture
def warm(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project that has run its queue; nothing of it may run at the end."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=True)
    yield project
    assert project.leftovers() == []


@pytest.fixture
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the table that every run must come to in the end."""
    return toykernel.template(tmp_path_factory.getbasetemp()).run("run", BASE).cells


def message(done: Done) -> list[str]:
    """Return the lines of the error message, which is the last thing on standard error."""
    head, mark, rest = done.err.rpartition("iommuq: ")
    assert mark, done
    assert not head or head.endswith("\n")
    lines = rest.splitlines()
    assert len(lines) <= 2, done.err
    return lines


# What a kernel may do.


def test_kernel_that_does_not_boot(warm: Project) -> None:
    # Before main() has printed a line.
    killer = "__attribute__((constructor)) static void die(void)\n{\n\tabort();\n}\n"
    warm.edit(SUITE_C, "/* A device that must", f"{killer}\n/* A device that must")
    done = warm.run("kunit", BASE)
    assert done.code == 3
    assert "error           kernel.boots\n" in done.out
    assert "guest lost: the kernel ended without running a test" in done.out
    assert "full log: /" in done.out
    # Not a verdict, so it is tried again.
    warm.forget_trace()
    assert warm.run("kunit", BASE).code == 3
    assert warm.trace == ["kunit.py exec"]


@pytest.mark.parametrize(
    ("panic", "code"),
    [
        # Without a word it is the guest that was lost; with one, it is the code.
        ("abort();", 3),
        ('puts("Kernel panic - not syncing: toy"); abort();', 1),
    ],
)
def test_kernel_that_dies_in_a_suite(warm: Project, panic: str, code: int) -> None:
    warm.edit(SUITE_C, "\ttest->skip", f"\t{panic}\n\ttest->skip")
    done = warm.run("kunit", BASE)
    assert done.code == code
    lines = done.out.splitlines()
    assert "pass            toy_domain.plain_kept" in lines
    assert not any("needs_pci" in line or "claim" in line for line in lines if "ok " in line)
    assert "error" in done.out
    assert "the kernel died" in done.out or "the log ends" in done.out


def test_kernel_that_never_ends(warm: Project) -> None:
    warm.edit(SUITE_C, "\ttest->skip", '\tputs("waiting for PCI"); sleep(600);\n\ttest->skip')
    begin = time.monotonic()
    done = warm.run("kunit", BASE, "--timeout", "1")
    assert time.monotonic() - begin < 30
    assert done.code == 3
    assert "the kernel did not end within 1 s" in done.out
    # The tail of the log.
    assert "    waiting for PCI" in done.out
    assert "pass            toy_domain.plain_kept" in done.out
    assert warm.leftovers() == []


def test_kernel_that_never_ends_after_its_tests(warm: Project) -> None:
    end = "__attribute__((destructor)) static void stay(void)\n{\n\tsleep(600);\n}\n"
    warm.edit(SUITE_C, "/* A device that must", f"{end}\n/* A device that must")
    done = warm.run("kunit", BASE, "--timeout", "1")
    assert done.code == 3
    assert "error           kernel.log_is_whole" in done.out
    assert "the kernel did not end within 1 s" in done.out


# Ctrl-C, and worse.

STAGES = [
    ("fetch", True),
    ("checkout", False),
    ("config", True),
    ("build", True),
    ("build", False),
    ("boot", False),
]


@pytest.mark.parametrize(("stage", "group"), STAGES)
def test_interrupt(cold: Project, stage: str, group: bool) -> None:
    with cold.stalled(stage, *ONE) as process:
        assert any(
            "sleep" in line or "linux" in line or "kunit" in line for line in cold.leftovers()
        )
        interrupt(process, group=group)
        done = cold.finish(process)
    assert done.code == 130
    assert message(done) == ["interrupted"]
    assert cold.leftovers() == []
    assert GOOD in cold.run(*ONE).out


def test_terminated(cold: Project) -> None:
    with cold.stalled("boot", "run", BASE) as process:
        process.terminate()
        done = cold.finish(process)
    assert done.code == 130
    # What watches over the processes of a run ends by itself when that has ended.
    wait_for(lambda: cold.leftovers() == [], SOON)


def test_two_interrupts(cold: Project) -> None:
    # The build ignores the first request to end.
    makefile = toykernel.FILES["Makefile"]
    stubborn = makefile.replace("sleep 600;", "trap '' TERM; sleep 600 & wait; sleep 600;")
    assert stubborn != makefile
    (cold.root / "linux/Makefile").write_text(stubborn)
    base = cold.root / f"patches/{BASE}/base.toml"
    base.write_text(re.sub('path = ".*"', f'path = "{cold.root / "linux"}"', base.read_text()))
    with cold.stalled("build", "run", BASE) as process:
        interrupt(process, group=False)
        time.sleep(0.2)
        interrupt(process, group=False)
        done = cold.finish(process)
    assert done.code == 130
    wait_for(lambda: cold.leftovers() == [], SOON)


@pytest.mark.parametrize("stage", ["fetch", "build"])
def test_killed(cold: Project, stage: str) -> None:
    with cold.stalled(stage, *ONE) as process:
        process.kill()
        process.wait()
        wait_for(lambda: cold.leftovers() == [], SOON)
    assert GOOD in cold.run(*ONE).out


def test_killed_anywhere(cold: Project, table: dict[str, list[str]]) -> None:
    chance = random.Random(6)
    for _ in range(3):
        process = cold.start("run", BASE)
        time.sleep(chance.uniform(0.2, 1.2))
        process.kill()
        process.communicate()
    wait_for(lambda: cold.leftovers() == [], SOON)
    done = cold.run("run", BASE)
    assert done.code == 0
    assert done.cells == table
    # Nothing half-made is left in the cache for ever.
    assert list(cold.root.glob("cache/images/.*")) == []
    assert list(cold.root.glob("cache/bases/.toy.tmp*")) == []


def test_two_at_once(cold: Project, table: dict[str, list[str]]) -> None:
    runs = [cold.start("run", BASE) for _ in range(2)]
    both = [cold.finish(process) for process in runs]
    assert [done.code for done in both] == [0, 0]
    assert [done.cells for done in both] == [table, table]
    # Whoever came second waited, and did not build again.
    assert cold.trace.count("make linux") == 3


# No space.

_FILL = """\
set -e
mount -t tmpfs -o size=3m tmpfs "$1"
for room in 0 16 150 900; do
    rm -rf "$1"/*
    mkdir "$1/cache" "$1/state"
    free=$(df -k --output=avail "$1" | tail -1)
    head -c $(((free - room) * 1024)) /dev/zero > "$1/filler" || true
    code=0
    "$2" -m iommuq kunit toy --at 0001 > "$3/out.$room" 2> "$3/err.$room" || code=$?
    echo $code > "$3/code.$room"
done
rm "$1/filler"
"$2" -m iommuq kunit toy --at 0001
"""


@pytest.mark.parametrize("full", ["cache", "state"])
def test_no_space(cold: Project, tmp_path: Path, full: str) -> None:
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "x", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no user and mount namespaces here")
    small = tmp_path / "small"
    small.mkdir()
    cold.extra[f"IOMMUQ_{full.upper()}_DIR"] = str(small / full)
    done = subprocess.run(
        [*probe[:4], "sh", "-c", _FILL, "sh", str(small), sys.executable, str(tmp_path)],
        env=cold.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # With room again the same directories are as good as new ones.
    assert done.returncode == 0, done
    assert "pass            toy_domain.block_refused" in done.stdout
    codes: dict[str, int] = {}
    for path in tmp_path.glob("code.*"):
        room = path.suffix
        codes[room] = int(path.read_text())
        told = Done(codes[room], "", (tmp_path / f"err{room}").read_text())
        assert "Traceback" not in told.err
        assert codes[room] in (0, 3)
        if told.code == 3:
            assert re.search("(?i): no (space|room) left|Out of diskspace", message(told)[0])
            # It is said which place is full: git names none, but the other one is not full.
            assert str(small / full) in " ".join(message(told)) or full == "cache"
    assert codes[".0"] == 3


# Wrong names and files.


def test_unknown_names(warm: Project) -> None:
    done = warm.run("run", "9.9")
    assert done.code == 2
    assert message(done)[0].startswith("no base '9.9'; there are toy")
    done = warm.run("kunit", BASE, "--at", "0007")
    assert done.code == 2
    assert message(done)[0] == "no patch '0007' for toy; there are base, baseline, 0001, 0002"
    done = warm.run("kunit", BASE, "no_such_suite")
    assert done.code == 2
    assert message(done)[0] == "no case matches 'no_such_suite'"
    done = warm.run("kunit", BASE, "--config", "nope")
    assert done.code == 2
    assert "nope" in message(done)[0]


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        (f"patches/{BASE}/base.toml", b"\xff\xfe", "base.toml"),
        (f"patches/{BASE}/base.toml", b"[source", "base.toml"),
        (f"patches/{BASE}/series", b"\xff", "series: not UTF-8"),
        (f"patches/{BASE}/series", b"resv/gone.patch\n", "series:1: there is no resv/gone.patch"),
        (f"patches/{BASE}/series", b"resv/\0.patch\n", "series:1: NUL byte"),
        (f"patches/{BASE}/series", b"a\rb\n", "series:1: there is no a"),
        (f"patches/{BASE}/series", b"a" * (1 << 20), "series:1: aaa"),
        (f"patches/{BASE}/base.toml", b"name = 'toy'\n\0", "base.toml:2: NUL byte"),
        (f"patches/{BASE}/base.toml", b"x = " + b"[" * 10**5, "base.toml: nested too deeply"),
        (f"patches/{BASE}/base.toml", b"x = " + b"9" * 5000, "base.toml: Exceeds the limit"),
        (KNOWN, b"x = '" + b"a" * (1 << 20) + b"'", "known-failures.toml: x: unknown key"),
        (KNOWN, b"[[reason]]\n", "known-failures.toml: reason.0.text: is missing"),
        (FRAGMENT, b"\xff", "um.config: not UTF-8"),
        (FRAGMENT, b"CONFIG_PCI=y\n# Yes\nCONFIG_NET\n", "um.config:3: "),
        (FRAGMENT, None, "um.config: No such file or directory"),
        (OWN_FRAGMENT, b"CONFIG_PCI\n", f"{BASE}/configs/um.config:1: "),
    ],
)
def test_malformed_file(warm: Project, name: str, data: bytes | None, named: str) -> None:
    if data is None:
        (warm.root / name).unlink()
    else:
        (warm.root / name).parent.mkdir(exist_ok=True)
        (warm.root / name).write_bytes(data)
    done = warm.run("kunit", BASE)
    assert done.code == 2
    assert named in message(done)[0]
    assert len(done.err) < 10_000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"patches/{BASE}/series", ("kunit", BASE)),
        (f"patches/{BASE}/base.toml", ("kunit", BASE)),
        (KNOWN, ("kunit", BASE)),
        ("kunit/overlay.toml", ("kunit", BASE)),
        (f"patches/{BASE}/proof.toml", ("prove", BASE)),
        (f"patches/{BASE}/mutants.toml", ("mutate", BASE)),
        (f"patches/{BASE}/checks.toml", ("queue", "check", BASE, "--quick")),
        (f"patches/{BASE}/resv/0000-cover.md", ("queue", "check", BASE, "--quick")),
    ],
)
def test_file_that_is_none(warm: Project, name: str, words: tuple[str, ...]) -> None:
    """A FIFO has no end, nor has /dev/zero; a link to nothing is not a missing file."""
    path = warm.root / name
    kinds: list[tuple[Callable[[], object], str]] = [
        (path.mkdir, "Is a directory"),
        (lambda: os.mkfifo(path), "not a regular file"),
        (lambda: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda: path.symlink_to("/dev/null"), "not a regular file"),
        (lambda: path.symlink_to("none"), "No such file or directory|no base 'toy'"),
        (lambda: path.symlink_to(path.name), "Too many levels|no base 'toy'"),
    ]
    for make, said in kinds:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        make()
        done = warm.run(*words)
        assert done.code == 2, (said, done)
        assert re.search(said, message(done)[0])


# What make does not take; a non-ASCII letter is none of these.
@pytest.mark.parametrize("char", [" ", "'", '"', "\n", ":", "%", "#", "$", "\\", ";", "\udcff"])
def test_path_of_the_cache_that_make_does_not_take(cold: Project, char: str) -> None:
    cold.extra["IOMMUQ_CACHE_DIR"] = str(cold.root / f"ca{char}che")
    done = cold.run("kunit", BASE)
    assert done.code == 2
    assert len(message(done)) == 2
    assert "make olddefconfig" not in cold.trace


@pytest.mark.parametrize("char", [" ", "'", '"', ":", "%", "ä"])
def test_paths_that_can_be_used(warm: Project, char: str) -> None:
    for variable in ("IOMMUQ_STATE_DIR", "TMPDIR"):
        folder = warm.root / f"x{char}{variable}"
        folder.mkdir()
        warm.extra[variable] = str(folder)
    if char == "ä":
        warm.extra["IOMMUQ_CACHE_DIR"] = str(warm.root / "ä")
    assert GOOD in warm.run(*ONE).out
    tree = warm.root / f"lin{char}ux"
    assert warm.run("queue", "edit", BASE, "--into", str(tree)).code == 0
    assert warm.run("queue", "refresh", BASE).code == 0


@pytest.mark.parametrize("char", ["\n", "\udcff"])
def test_path_of_a_tree_that_git_does_not_take(warm: Project, char: str) -> None:
    done = warm.run("queue", "edit", BASE, "--into", str(warm.root / f"lin{char}ux"))
    assert done.code == 2
    assert "control characters, or not UTF-8" in message(done)[0]


def test_overlay_without_its_symbol(warm: Project) -> None:
    (warm.root / "kunit/drivers/iommu/tests/Kconfig").write_text("")
    done = warm.run("kunit", BASE)
    assert done.code == 1
    assert "CONFIG_IOMMU_KUNIT_TEST=y: no such symbol in this tree" in message(done)[0]


def test_symbol_that_cannot_be_set(warm: Project) -> None:
    (warm.root / FRAGMENT).write_text("# CONFIG_PCI is not set\n")
    done = warm.run("kunit", BASE)
    assert done.code == 1
    text = message(done)[0]
    assert "CONFIG_IOMMU_SUPPORT=y (drivers/iommu/Kconfig:1) needs PCI (PCI=n)" in text
    needs = "KUNIT && IOMMU_SUPPORT (KUNIT=y, IOMMU_SUPPORT=n)"
    assert f"CONFIG_IOMMU_KUNIT_TEST=y (drivers/iommu/tests/Kconfig:1) needs {needs}" in text
    # Put right, it is as before.
    (warm.root / FRAGMENT).write_text("CONFIG_PCI=y\n")
    warm.forget_trace()
    assert warm.run("kunit", BASE).code == 0
    assert warm.trace == []


def test_a_later_fragment_counts(cold: Project) -> None:
    extra = cold.root / "kunit/configs/nopci.config"
    extra.write_text("# CONFIG_PCI is not set\n")
    done = cold.run("kunit", BASE, "--config", "nopci")
    assert done.code == 1
    assert "needs PCI (PCI=n)" in message(done)[0]


def test_a_base_that_lacks_a_symbol(cold: Project) -> None:
    for name in (FRAGMENT, "kunit/configs/extra.config"):
        (cold.root / name).write_text("CONFIG_PCI=y\nCONFIG_NEWER=y\n")
    words = ("kunit", BASE, "--config", "extra")
    done = cold.run(*words)
    assert done.code == 1
    assert message(done)[0].endswith("CONFIG_NEWER=y: no such symbol in this tree")
    own = cold.root / OWN_FRAGMENT
    own.parent.mkdir()
    # Of another architecture, so it is not for this kernel.
    own.with_name("x86_64.config").write_text("# CONFIG_NEWER is not set\n")
    assert cold.run(*words).code == 1
    own.write_text("# CONFIG_NEWER is not set\n")
    assert cold.run(*words).code == 0
    # It counts for more than what it comes after.
    own.write_text("# CONFIG_PCI is not set\n# CONFIG_NEWER is not set\n")
    done = cold.run(*words)
    assert done.code == 1
    assert "needs PCI (PCI=n)" in message(done)[0]


@pytest.mark.parametrize("tool", ["gcc", "make", "git", "sed"])
def test_missing_tool(cold: Project, tool: str) -> None:
    shelf = cold.root / "shelf"
    shelf.mkdir()
    for name in ("gcc", "ld", "as", "make", "git", "sh", "sed", "mkdir", "touch"):
        found = shutil.which(name)
        if found is not None and name != tool:
            (shelf / name).symlink_to(found)
    done = cold.run("kunit", BASE, PATH=str(shelf))
    assert done.code == 3, done
    what, hint = message(done)
    assert what.startswith(f"{tool} is not installed")
    assert hint == "  (`iommuq doctor` names the package)"


def test_cache_that_lost_its_objects(warm: Project) -> None:
    # As after a power cut, or `git prune` by hand: what was made of patches is gone.
    repo = warm.root / f"cache/bases/{BASE}/repo.git"
    for path in repo.glob("objects/[0-9a-f][0-9a-f]"):
        shutil.rmtree(path)
    shutil.rmtree(warm.root / "cache/images")
    assert warm.run("kunit", BASE).code == 0


def test_image_that_lost_its_kernel(warm: Project) -> None:
    for path in warm.root.glob("cache/images/*/linux"):
        path.write_bytes(b"")
    done = warm.run("kunit", BASE, "--again")
    assert done.code == 0, done
    assert warm.trace.count("make linux") == 1


@pytest.mark.parametrize("where", ["cache", "state"])
def test_place_that_is_no_directory(cold: Project, where: str) -> None:
    (cold.root / where).write_text("")
    done = cold.run("kunit", BASE)
    assert done.code == 3
    assert str(cold.root / where) in message(done)[0]
