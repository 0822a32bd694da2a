# SPDX-License-Identifier: GPL-2.0-only
"""The descriptions of machines, those that we have and those that are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from iommuq.guests import machine, qemu, uml
from iommuq.system import files
from iommuq.system.errors import UserError

GOOD = """
name = "small"
title = "A small one"
guest = "qemu"
arch = "x86_64"
memory = 256
boot_limit = 5
arguments = ["console=ttyS0", "dyndbg=file a.c +p"]

[qemu]
machine = "q35,kernel-irqchip=split"
devices = ["intel-iommu,intremap=on", "edu,addr=5"]
accelerators = ["tcg"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of the machines of an empty project."""
    (tmp_path / "patches").mkdir()
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    where = tmp_path / "selftests" / "machines"
    where.mkdir(parents=True)
    return where


@pytest.mark.parametrize("name", ["q35", "um"])
def test_ours_are_good(name: str) -> None:
    found = machine.load_machine(name)
    assert found.boot_limit > 0
    for fragment in found.config:
        assert (files.project_root() / "selftests" / "configs" / fragment).is_file()


def test_a_new_machine_is_a_file(folder: Path) -> None:
    (folder / "small.toml").write_text(GOOD)
    assert machine.names() == ["small"]
    small = machine.load_machine("small")
    argv = qemu.argv(small, Path("bzImage"), Path("a,b.cpio"), Path("ch,an"), Path("work"), "tcg")
    options = list(pairwise(argv))
    assert ("-machine", "q35,kernel-irqchip=split") in options
    assert ("-device", "intel-iommu,intremap=on") in options
    assert ("-device", "edu,addr=5") in options
    assert ("-m", "256M") in options
    assert ("-cpu", "max") in options
    # A comma ends an option of QEMU's.
    assert ("-initrd", "a,,b.cpio") in options
    assert ("-chardev", "file,id=report,path=ch,,an") in options
    assert "-bios" not in argv
    (arguments,) = (value for option, value in options if option == "-append")
    assert 'dyndbg="file a.c +p"' in arguments
    assert "panic=-1" in arguments.split()
    assert "iommuq.channel=iommuq" in arguments.split()


def test_uml_is_given_all_of_its_description() -> None:
    um = machine.load_machine("um")
    argv = uml.argv(um, Path("linux"), Path("x.cpio"), Path("channel"), Path("/w"))
    assert f"mem={um.memory}M" in argv
    assert "initrd=x.cpio" in argv
    assert "iommuq.huge_pages=0" in argv
    assert uml.pid_file(Path("/w")) == Path("/w/guest/pid")
    assert "uml_dir=/w/" in argv


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("memory = 256", "memori = 256", "memor"),
        ("memory = 256", "memory = 'lots'", "memory"),
        ("memory = 256", "memory = 8", "64 MiB"),
        ('arch = "x86_64"', 'arch = "vax"', "arch is none of um"),
        ('guest = "qemu"', 'guest = "um"', "guest does not run x86_64"),
        ('accelerators = ["tcg"]', 'accelerators = ["xen"]', "'xen' is none of"),
        ('accelerators = ["tcg"]', "accelerators = []", "accelerators is empty"),
        ('accelerators = ["tcg"]', 'minimum = "new"', "minimum is not a version"),
        ('accelerators = ["tcg"]', "cpu = 1", "qemu.cpu: unknown key"),
        ("boot_limit = 5", "boot_limit = 0", "boot_limit"),
        ("boot_limit = 5", "boot_limit = nan", "boot_limit"),
        ('"console=ttyS0"', '"iommuq.channel=x"', "is set by iommuq itself"),
        ('"console=ttyS0"', '"a\\nb"', "printable"),
        ('name = "small"', 'name = "big"', "name is 'big'"),
        ("[qemu]", "[qemu", "line"),
        ("memory = 256\n", "", "memory: is missing"),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    path = folder / "small.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as caught:
        machine.load_machine("small")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_machine_without_its_table_is_refused(folder: Path) -> None:
    (folder / "small.toml").write_text(GOOD[: GOOD.index("[qemu]")])
    with pytest.raises(UserError, match=r"\[qemu\] is for guest"):
        machine.load_machine("small")


@pytest.mark.parametrize("name", ["nosuch", "../machines/small", "", ".small"])
def test_what_is_no_machine_is_refused_with_those_there_are(folder: Path, name: str) -> None:
    (folder / "small.toml").write_text(GOOD)
    with pytest.raises(UserError, match="there are small"):
        machine.load_machine(name)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "small.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 0"):
        machine.load_machine("small")


def test_one_thread_is_for_tcg_alone(folder: Path) -> None:
    (folder / "small.toml").write_text(
        GOOD.replace('accelerators = ["tcg"]', 'accelerators = ["kvm", "tcg"]\none_thread = true')
    )
    small = machine.load_machine("small")

    def accelerated(name: str) -> list[str]:
        places = (Path("bzImage"), Path("x.cpio"), Path("channel"), Path("work"))
        argv = qemu.argv(small, *places, name)
        return [value for option, value in pairwise(argv) if option == "-accel"]

    assert accelerated("tcg") == ["tcg,thread=single"]
    assert accelerated("kvm") == ["kvm"]
