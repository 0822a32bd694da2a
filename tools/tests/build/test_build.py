# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.build.image` that need no build: keys, images, what a failure is put down to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import golden
from iommuq.bases.sources import Base
from iommuq.build import directory
from iommuq.build import image as build
from iommuq.build.kconfig import Fragments
from iommuq.build.workspace import Workspace
from iommuq.queue.steps import Step
from iommuq.system import arches, toolchain
from iommuq.system.errors import DiskFull, InfraError, ToolMissing, UserError, VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.run import Completed, run

UM = arches.get("um")
STEP = Step("baseline", None, "c" * 40, "a" * 40)


@pytest.fixture
def kdir(toy_base: Base, tmp_path: Path) -> directory.BuildDirectory:
    """Return a build directory with what a build leaves behind."""
    source, objects = tmp_path / "src", tmp_path / "obj"
    for path, text in {
        source / "tools/testing/kunit/kunit.py": "pass\n",
        source / "tools/testing/kunit/test_data/big.log": "big\n",
        objects / "linux": "ELF",
        objects / ".config": "CONFIG_KUNIT=y\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory.BuildDirectory(toy_base, STEP, UM, source, objects)


def test_fragments_are_read_once(tmp_path: Path) -> None:
    first, second = tmp_path / "1.config", tmp_path / "2.config"
    first.write_text("CONFIG_A=y\nCONFIG_B=y\n")
    second.write_text("# CONFIG_B is not set\n")
    fragments = Fragments.read(first, second)
    assert fragments.wanted == {"A": "y", "B": "n"}
    key = fragments.key
    first.write_text("# A comment\n\nCONFIG_A=y\nCONFIG_B=y\n")
    assert Fragments.read(first, second).key == key
    first.write_text("CONFIG_A=m\n")
    assert Fragments.read(first, second).key != key
    assert fragments.key == key
    with pytest.raises(UserError, match=r"none\.config: No such file"):
        Fragments.read(tmp_path / "none.config")


def test_image_key(monkeypatch: pytest.MonkeyPatch) -> None:
    fragments = Fragments(("CONFIG_A=y\n",))
    keys = {
        build.image_key(STEP, UM, fragments),
        build.image_key(replace(STEP, tree="b" * 40), UM, fragments),
        build.image_key(STEP, arches.get("x86_64"), fragments),
        build.image_key(STEP, UM, Fragments(("CONFIG_A=m\n",))),
    }
    assert len(keys) == 4
    # What the step is called is of no importance, and the same image serves both.
    assert build.image_key(replace(STEP, label="0001", commit="d" * 40), UM, fragments) in keys
    monkeypatch.setattr(toolchain, "identity", lambda: "another compiler")
    assert build.image_key(STEP, UM, fragments) not in keys


def test_what_a_machine_has_besides_does_not_get_into_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kconfig puts the versions of these programs into the image; the key knows nothing of them."""
    monkeypatch.setenv("KCFLAGS", "-O0")
    monkeypatch.setenv("MAKEFLAGS", "-s RUSTC=other")
    again = '\t@test -n "$(AGAIN)" || $(MAKE) --no-print-directory AGAIN=1\n'
    (tmp_path / "Makefile").write_text(
        'RUSTC = rustc\nPAHOLE = pahole\nall:\n\t@echo "[$(RUSTC) $(PAHOLE) $(KCFLAGS)]"\n' + again
    )
    # As the kernel's Makefile is called, and as it calls itself.
    done = run(["make", "-j2", "O=x"], cwd=tmp_path, env=directory.ENVIRONMENT)
    said = done.output.splitlines()
    assert said == ["[no-rustc no-pahole ]"] * 2
    assert not any(shutil.which(name) for name in said[0].strip("[]").split())


def test_another_environment_configures_anew(
    kdir: directory.BuildDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it keeps out of a build, it keeps out of a build directory that is there."""
    ran: list[Path] = []

    def made(_argv: object, **words: Any) -> Completed:
        ran.append(words["log_path"])
        config.write_text("CONFIG_KUNIT=y\n")
        return Completed((), 0, "", "", 0.1)

    config = kdir.objects / ".config"
    kdir.notes.mkdir()
    monkeypatch.setattr(directory, "run", made)
    fragments = Fragments(("CONFIG_KUNIT=y\n",))
    for _ in range(2):
        directory.configure(kdir, fragments, tmp_path / "log")
    once = len(ran)
    assert once > 0
    monkeypatch.setitem(directory.ENVIRONMENT, "KCFLAGS", "-O0")
    directory.configure(kdir, fragments, tmp_path / "log")
    assert len(ran) == 2 * once


def test_publish_and_find(kdir: directory.BuildDirectory, tmp_path: Path) -> None:
    image = build._publish(kdir, "key", frozenset({"a.c: w"}), tmp_path / "log")
    found = build.find_image("key", UM)
    assert found == replace(image, built=False)
    assert found is not None
    assert found.warnings == {"a.c: w"}
    assert (found.folder / "linux").read_text() == "ELF"
    assert (found.folder / "tools/testing/kunit/kunit.py").exists()
    assert not (found.folder / "tools/testing/kunit/test_data").exists()
    assert sorted(path.name for path in (cache_dir() / "images").iterdir()) == ["key"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"log": "x"}', '{"warnings": 3, "log": ""}'])
def test_damaged_record(kdir: directory.BuildDirectory, tmp_path: Path, damage: str) -> None:
    image = build._publish(kdir, "key", frozenset(), tmp_path / "log")
    (image.folder / "image.json").write_text(damage)
    assert build.find_image("key", UM) is None
    # It can be put in the same place again.
    build._publish(kdir, "key", frozenset(), tmp_path / "log")
    assert build.find_image("key", UM) is not None


def test_damaged_image(kdir: directory.BuildDirectory, tmp_path: Path) -> None:
    image = build._publish(kdir, "key", frozenset(), tmp_path / "log")
    (image.folder / "linux").write_text("")
    assert build.find_image("key", UM) is None


@pytest.mark.parametrize("name", ["linux", "tools/testing/kunit/kunit.py", ".kunitconfig"])
def test_other_files_than_the_built_ones(
    kdir: directory.BuildDirectory, tmp_path: Path, name: str
) -> None:
    build._publish(kdir, "key", frozenset(), tmp_path / "log")
    image = build.find_image("key", UM)
    assert image is not None
    assert image.check() == hashlib.sha256(b"ELF").hexdigest()
    path = image.folder / name
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(build.ImageDamaged, match=f"{name}: sha256 is .* but .*run the command"):
        image.check()
    assert build.find_image("key", UM) is None


@pytest.mark.parametrize("name", ["tools/testing/kunit/kunit_parser/__init__.py", "forged"])
def test_files_that_were_not_built(
    kdir: directory.BuildDirectory, tmp_path: Path, name: str
) -> None:
    """kunit.py would import them in place of its own."""
    image = build._publish(kdir, "key", frozenset(), tmp_path / "log")
    (image.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (image.folder / name).write_text("")
    with pytest.raises(build.ImageDamaged, match=f"{name}: .*but no such file was built"):
        image.check()


def test_an_image_without_hashes_is_built_again(
    kdir: directory.BuildDirectory, tmp_path: Path
) -> None:
    image = build._publish(kdir, "key", frozenset(), tmp_path / "log")
    record = image.folder / "image.json"
    data = json.loads(record.read_text())
    no_hashes: dict[str, str] = {}
    for hashes in (no_hashes, None):
        record.write_text(json.dumps({**data, "sha256": hashes}))
        assert build.find_image("key", UM) is None


def test_publish_without_room(
    kdir: directory.BuildDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, **_words: object) -> None:
        # As shutil gathers what went wrong in a whole directory.
        raise shutil.Error([(str(source), str(target), f"[Errno 28] {os.strerror(28)}")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(DiskFull, match="No space left on device"):
        build._publish(kdir, "key", frozenset(), tmp_path / "log")
    assert list((cache_dir() / "images").iterdir()) == []
    (kdir.objects / "linux").unlink()
    with pytest.raises(InfraError, match="images: No such file or directory"):
        build._publish(kdir, "key", frozenset(), tmp_path / "log")


def test_what_a_killed_build_made_is_made_again(kdir: directory.BuildDirectory) -> None:
    marker = kdir.notes / "building"
    old, new, note = (
        kdir.objects / "old.o",
        kdir.objects / "sub/new.o",
        kdir.notes / "warnings.json",
    )
    for path in (old, new, note):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.utime(old, (1000, 1000))
    marker.touch()
    os.utime(marker, (2000, 2000))
    os.utime(new, (2000, 2000))
    with pytest.raises(KeyboardInterrupt), directory.interruptible(kdir.objects, marker):
        raise KeyboardInterrupt
    assert old.exists()
    assert not new.exists()
    # Written whole, and the warnings of old.o are known from nowhere else.
    assert note.exists()
    assert marker.stat().st_mtime > 2000
    with directory.interruptible(kdir.objects, marker):
        pass
    assert not marker.exists()
    new.touch()
    with directory.interruptible(kdir.objects, marker):
        assert new.exists()


def test_what_a_failed_build_made_is_kept(
    kdir: directory.BuildDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a patch that does not compile costs the next one all that was compiled with it."""
    new, source = kdir.objects / "drivers/new.o", kdir.source / "drivers/new.c"
    for folder in (source.parent, kdir.notes):
        folder.mkdir(parents=True)
    source.touch()
    asked: list[bool] = []

    def made(*_: object) -> Completed:
        asked.append(new.exists())
        new.parent.mkdir(exist_ok=True)
        new.touch()
        said = f"  CC      drivers/new.o\n{source}:1:2: warning: unused variable ‘x’\n"
        if len(asked) == 1:
            bad = (
                f"  CC      drivers/bad.o\n{kdir.source}/drivers/bad.c:3:2: error: ‘y’ undeclared\n"
            )
            return Completed((), 2, said + bad, "", 1.0)
        return Completed((), 0, "", "", 1.0)

    monkeypatch.setattr(build, "configure", lambda *_: None)
    monkeypatch.setattr(build, "make_image", made)
    keys = iter("ab")
    monkeypatch.setattr(build, "image_key", lambda *_: next(keys) * 64)
    monkeypatch.setattr(directory, "enter", lambda *_: kdir)
    workspace = cast("Workspace", SimpleNamespace(base=kdir.base))
    given = (workspace, kdir.step, kdir.arch, Fragments(("",)))
    with pytest.raises(VerdictError, match="‘y’ undeclared"):
        build.build_image(*given)
    image = build.build_image(*given)
    assert asked == [False, True]
    assert [warning.partition(": ")[2] for warning in image.warnings] == ["unused variable ‘x’"]


@pytest.mark.parametrize("log", golden.of("make"), ids=lambda log: log.said[:40])
def test_whose_fault_it_is(kdir: directory.BuildDirectory, log: golden.Log) -> None:
    text = log.said.replace("{source}", str(kdir.source))
    done = Completed(("make",), log.status, text, "", 1.0)
    error = directory.explain(kdir, done, Path("/logs/x"))
    assert isinstance(error, VerdictError if log.code == 1 else InfraError)
    assert type(error).__name__ == log.kind or not log.kind
    assert re.search(log.words, str(error))


def test_arches_are_data() -> None:
    assert set(arches.names()) >= {"um", "x86_64"}
    with pytest.raises(UserError, match="no architecture 'vax'; there are um, "):
        arches.get("vax")


def test_toolchain_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toolchain.identity.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="gcc is not installed"):
        toolchain.identity()
    for name in ("gcc", "ld"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} 1\n")
        (tmp_path / name).chmod(0o755)
    one = toolchain.identity()
    (tmp_path / "ld").write_text("#!/bin/sh\necho ld 2\n")
    assert toolchain.identity() == one
    toolchain.identity.cache_clear()
    assert toolchain.identity() != one
    toolchain.identity.cache_clear()


def test_record_is_json_for_people(kdir: directory.BuildDirectory, tmp_path: Path) -> None:
    image = build._publish(kdir, "key", frozenset(), tmp_path / "log")
    record = json.loads((image.folder / "image.json").read_text())
    assert record["title"] == "6.12 baseline for um"
