# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that scenarios are to be run on: those that will do, and those that will not."""

from __future__ import annotations

import binascii
import gzip
import inspect
import lzma
import os
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.bases.providers import apt
from iommuq.build.image import Image, ImageDamaged, hashes_of
from iommuq.firmware import kernels, modules, packages
from iommuq.firmware.kernels import Kernel
from iommuq.guests import machine
from iommuq.suites.firmware import subjects
from iommuq.system import arches, files
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import file_sha256
from iommuq.system.run import run

RELEASE = "6.1.0-99-toy"
CONFIG = "".join(
    f"CONFIG_{name}=y\n"
    for name in [*kernels.needs().options, *kernels.needs().iommu.values(), "IOMMUFD"]
)


def bzimage(release: str = RELEASE) -> bytes:
    """Return what the header of a kernel image has in it."""
    image = bytearray(0x400)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = struct.pack("<H", 0x100)
    text = f"{release} (somebody@somewhere) #1 SMP\0".encode()
    image[0x300 : 0x300 + len(text)] = text
    return bytes(image)


def module(depends: str = "") -> bytes:
    """Return what of a module says what it depends on."""
    return b"\x7fELF" + bytes(60) + f"license=GPL\0depends={depends}\0name=x\0".encode()


def tree(where: Path) -> Path:
    """Lay a kernel out as a package of Debian's does."""
    boot, folder = where / "boot", where / "lib/modules" / RELEASE / "kernel/drivers"
    boot.mkdir(parents=True)
    folder.mkdir(parents=True)
    (boot / f"vmlinuz-{RELEASE}").write_bytes(bzimage())
    (boot / f"config-{RELEASE}").write_text(CONFIG)
    (folder / "vfio.ko").write_bytes(module())
    (folder / "vfio-pci-core.ko.xz").write_bytes(lzma.compress(module("irqbypass,vfio")))
    (folder / "irqbypass.ko.gz").write_bytes(gzip.compress(module()))
    (folder / "vfio-pci.ko").write_bytes(module("vfio,vfio-pci-core"))
    (folder / "unrelated.ko").write_bytes(b"not looked at")
    return boot / f"vmlinuz-{RELEASE}"


def deb(where: Path, arch: str = "amd64", name: str = f"linux-image-{RELEASE}") -> Path:
    """Build a package with a kernel in it."""
    root = where / "root"
    tree(root)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 6.1-1\nArchitecture: {arch}\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: a toy\n"
    )
    path = where / f"{name}_6.1-1_{arch}.deb"
    run(["dpkg-deb", "--root-owner-group", "-b", root, path], cwd=where, timeout=60)
    return path


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")


def test_an_image_file(tmp_path: Path) -> None:
    kernel = packages.find(str(tree(tmp_path)))
    assert kernel.release == RELEASE
    # Each after what it needs; what is not wanted is not there.
    assert [path.name for path in kernel.modules] == [
        "vfio.ko", "irqbypass.ko", "vfio_pci_core.ko", "vfio_pci.ko",
    ]  # fmt: skip
    assert kernel.modules[1].read_bytes() == module()
    assert not kernel.lacks("ACPI_TABLE_UPGRADE")
    assert kernel.lacks("KASAN")


def test_an_image_with_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage("7.3.0"))
    kernel = packages.find(str(tmp_path / "bzImage"))
    assert (kernel.release, kernel.modules, kernel.config) == ("7.3.0", (), None)
    # Nothing is known to be missing: the guest will show.
    kernel.check(machine.load_machine("q35-amd"))
    assert kernel.missing("cdev") == ""


def test_the_key_is_that_of_the_content(tmp_path: Path) -> None:
    image = tree(tmp_path)
    before = packages.find(str(image)).key
    assert packages.find(str(image)).key == before
    (tmp_path / "lib/modules" / RELEASE / "kernel/drivers/vfio.ko").write_bytes(module() + b"2")
    changed = packages.find(str(image)).key
    assert changed != before
    image.write_bytes(bzimage() + b"2")
    assert packages.find(str(image)).key not in (before, changed)


def built(folder: Path, key: str, content: bytes, config: str = "CONFIG_IOMMUFD=y\n") -> Image:
    arch = arches.get("x86_64")
    image = folder / key / arch.image
    image.parent.mkdir(parents=True)
    image.write_bytes(content)
    (folder / key / ".config").write_text(config)
    hashes = hashes_of(folder / key)
    return Image(key, folder / key, arch, frozenset(), Path(), True, hashes)


def test_two_steps_with_the_same_kernel_have_one_key(tmp_path: Path) -> None:
    first = subjects.from_image(built(tmp_path, "a", bzimage()), "a", RELEASE)
    same = subjects.from_image(built(tmp_path, "b", bzimage()), "b", RELEASE)
    other = subjects.from_image(built(tmp_path, "c", bzimage() + b"2"), "c", RELEASE)
    config = "# CONFIG_IOMMUFD is not set\n"
    asked = subjects.from_image(built(tmp_path, "d", bzimage(), config), "d", RELEASE)
    assert first.key == same.key
    assert len({first.key, other.key, asked.key}) == 3


def test_a_kernel_that_changes_is_not_booted(tmp_path: Path) -> None:
    image = built(tmp_path, "a", bzimage())
    kernel = subjects.from_image(image, "a", RELEASE)
    assert kernel.sha256 == file_sha256(kernel.image)
    kernel.image.write_bytes(b"x" * len(bzimage()))
    wrong = replace(image, hashes={str(image.arch.image): kernel.sha256})
    with pytest.raises(ImageDamaged):
        subjects.from_image(wrong, "a", RELEASE)
    assert not image.folder.exists()


def test_a_built_image_that_is_gone_is_named(tmp_path: Path) -> None:
    image = built(tmp_path, "a", b"")
    (image.folder / image.arch.image).unlink()
    with pytest.raises(InfraError, match=r"a/arch/x86/boot/bzImage: .*No such file"):
        subjects.from_image(image, "a", RELEASE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an x86 kernel image"),
        (b"hello world\n" * 100, "not an x86 kernel image"),
        (bzimage()[:0x206], "not an x86 kernel image"),
        (bzimage()[:0x300], "no release in the kernel image"),
        (bzimage("\x1b[31mred"), "no release in the kernel image"),
        (b"\x7fELF" + bytes(1000), r"an ELF file \(vmlinux or a program\)"),
        (bytes(56) + b"ARM\x64" + bytes(1000), "an arm64 kernel"),
        (b"!<arch>\ndebian-binary", "a package"),
    ],
)
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        packages.find(str(path))
    assert str(path) in str(caught.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory"):
        packages.find(str(tmp_path))


@pytest.mark.parametrize("text", ["nosuch", "./linux-image-6.1", "x.deb", "linux-source-6.1"])
def test_what_is_neither_file_nor_package_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no such file, and not a kernel package"):
        packages.find(text)


@pytest.mark.parametrize(
    ("missing", "on", "said"),
    [
        ("ACPI_TABLE_UPGRADE", "q35-amd", "built without ACPI_TABLE_UPGRADE: it would ignore"),
        ("VFIO", "q35-amd", "built without VFIO: "),
        ("AMD_IOMMU", "q35-amd", "built without AMD_IOMMU: it has no driver for AMD-Vi"),
        ("INTEL_IOMMU", "q35-intel", "built without INTEL_IOMMU: it has no driver for Intel"),
        ("AMD_IOMMU", "q35-intel", ""),
        ("ACPI_TABLE_UPGRADE", "q35-plain", ""),
        ("AMD_IOMMU", "q35-plain", ""),
    ],
)
def test_an_option_that_is_missing_is_named(
    tmp_path: Path, missing: str, on: str, said: str
) -> None:
    kernel = packages.find(str(tree(tmp_path)))
    assert kernel.config is not None
    less = replace(kernel, config={k: v for k, v in kernel.config.items() if k != missing})
    if not said:
        less.check(machine.load_machine(on))
        return
    with pytest.raises(UserError, match=said):
        less.check(machine.load_machine(on))


def test_a_scenario_s_need_is_named(tmp_path: Path) -> None:
    kernel = packages.find(str(tree(tmp_path)))
    assert kernel.missing("cdev") == f"{RELEASE} is built without VFIO_DEVICE_CDEV"
    assert kernel.missing("group") == ""
    assert kernel.missing("faults").startswith(f"{RELEASE} is built without FA")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a module", "not a kernel module"),
        (b"\x7fELF" + bytes(100), "no dependencies in .modinfo"),
        (module("nosuch"), "module nosuch is missing, vfio needs it"),
    ],
)
def test_a_module_that_cannot_be_loaded(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/vfio.ko").write_bytes(content)
    with pytest.raises(InfraError, match=said):
        modules.unpack(tmp_path, ["vfio"])


@pytest.mark.parametrize("suffix", [".xz", ".gz"])
def test_a_module_that_is_cut_short(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "kernel").mkdir()
    whole = lzma.compress(module()) if suffix == ".xz" else gzip.compress(module())
    (tmp_path / f"kernel/vfio.ko{suffix}").write_bytes(whole[:-12])
    with pytest.raises(InfraError, match="damaged"):
        modules.unpack(tmp_path, ["vfio"])


def test_modules_that_are_too_large_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "_MOST_OF_ALL", 1 << 20)
    (tmp_path / "kernel").mkdir()
    for name in ("a", "b", "c"):
        data = module() + bytes(400 << 10)
        (tmp_path / f"kernel/{name}.ko.gz").write_bytes(gzip.compress(data))
    (tmp_path / "kernel/vfio.ko").write_bytes(module("a,b,c"))
    with pytest.raises(UserError, match="modules of more than 1 MiB"):
        modules.unpack(tmp_path, ["vfio"])


def test_folders_of_modules_of_any_depth(tmp_path: Path) -> None:
    # Deeper than Python may recurse here, not so deep that pytest cannot clear it away.
    folder = tmp_path / "kernel"
    (folder / ("a/" * 300)).mkdir(parents=True)
    (folder / "vfio.ko").write_bytes(module())
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        assert len(modules.unpack(tmp_path, ["vfio"])) == 1
    finally:
        sys.setrecursionlimit(limit)


def test_modules_that_are_built_in_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    assert modules.unpack(tmp_path, ["virtio_pci"]) == ()


@needs_dpkg
def test_a_package_file(tmp_path: Path) -> None:
    kernel = packages.find(str(deb(tmp_path)))
    assert (kernel.name, kernel.release) == (f"linux-image-{RELEASE}", RELEASE)
    assert kernel.version == "6.1-1"
    assert len(kernel.modules) == 4
    assert kernel.image.read_bytes() == bzimage()
    # Once more, from the cache.
    assert packages.find(str(tmp_path / f"linux-image-{RELEASE}_6.1-1_amd64.deb")) == kernel


@needs_dpkg
def test_a_package_for_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for arm64, but the machines are amd64"):
        packages.find(str(deb(tmp_path, "arm64")))


@needs_dpkg
def test_a_file_that_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("no")
    with pytest.raises(UserError, match=r"x\.deb: not a Debian package"):
        packages.find(str(tmp_path / "x.deb"))


@needs_dpkg
def test_a_package_without_a_kernel(tmp_path: Path) -> None:
    path = deb(tmp_path)
    (tmp_path / "root/boot" / f"vmlinuz-{RELEASE}").unlink()
    run(["dpkg-deb", "--root-owner-group", "-b", tmp_path / "root", path], cwd=tmp_path)
    with pytest.raises(UserError, match="has no kernel image"):
        packages.find(str(path))


def _bomb(root: Path) -> None:
    place = root / "lib/modules" / RELEASE / "kernel/drivers"
    (place / "vfio-pci-core.ko.xz").write_bytes(lzma.compress(bytes(2 << 20)))


def _memory(root: Path) -> None:
    """Make a module of xz whose dictionary takes 4 GiB."""
    whole = bytearray(lzma.compress(module()))
    size = (whole[12] + 1) * 4
    block = whole[12 : 12 + size]
    block[block.index(b"\x21\x01") + 2] = 40
    block[-4:] = binascii.crc32(block[:-4]).to_bytes(4, "little")
    whole[12 : 12 + size] = block
    place = root / "lib/modules" / RELEASE / "kernel/drivers"
    (place / "vfio-pci-core.ko.xz").write_bytes(whole)


def _many_modules(root: Path) -> None:
    place = root / "lib/modules" / RELEASE / "kernel/drivers"
    names = [f"m{number}" for number in range(300)]
    for name in names:
        (place / f"{name}.ko").write_bytes(module())
    (place / "vfio.ko").write_bytes(module(",".join(names)))


def _large(root: Path) -> None:
    (root / "usr/share").mkdir(parents=True)
    (root / "usr/share/zeros").write_bytes(bytes(9 << 20))


def _config(root: Path) -> None:
    (root / "boot" / f"config-{RELEASE}").write_bytes(bytes(5 << 20))


def _circle(root: Path) -> None:
    place = root / "lib/modules" / RELEASE / "kernel/drivers"
    (place / "irqbypass.ko.gz").write_bytes(gzip.compress(module("vfio-pci-core")))


def _fifo(root: Path) -> None:
    (root / "boot" / f"vmlinuz-{RELEASE}").unlink()
    os.mkfifo(root / "boot" / f"vmlinuz-{RELEASE}")


def _link_out(root: Path) -> None:
    (root / "boot" / f"config-{RELEASE}").unlink()
    (root / "boot" / f"config-{RELEASE}").symlink_to("/etc/passwd")


def _module_link_out(root: Path) -> None:
    place = root / "lib/modules" / RELEASE / "kernel/drivers"
    (place / "vfio.ko").unlink()
    (place / "vfio.ko").symlink_to("/etc/passwd")


def _release(root: Path) -> None:
    (root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bzimage("6.1/../../etc"))


@pytest.mark.hostile
@needs_dpkg
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_bomb, "more than 1 MiB"),
        (_memory, "too much memory"),
        (_many_modules, "more than 256 modules"),
        (_large, "unpacks to more than 8 MiB"),
        (_config, "config-6.1.0-99-toy is too large"),
        (_circle, "need each other"),
        (_fifo, "has no kernel image"),
        (_link_out, "has no configuration"),
        (_module_link_out, "module vfio is missing"),
        (_release, "is not the release of a kernel"),
    ],
)
def test_a_package_that_is_hostile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], said: str
) -> None:
    monkeypatch.setattr(modules, "_MOST", 1 << 20)
    monkeypatch.setattr(packages, "_MOST", replace(packages._MOST, total=8 << 20))
    path = deb(tmp_path)
    spoil(tmp_path / "root")
    run(["dpkg-deb", "--root-owner-group", "-b", tmp_path / "root", path], cwd=tmp_path)
    with pytest.raises((UserError, InfraError), match=said):
        packages.find(str(path))


@needs_dpkg
def test_only_what_is_needed_of_a_package_reaches_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deb(tmp_path)
    root = tmp_path / "root"
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("/etc/passwd")
    (root / "lib/modules" / RELEASE / "kernel/drivers/x.ko").symlink_to("/etc/passwd")
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/large").write_bytes(bytes(1 << 20))
    run(["dpkg-deb", "--root-owner-group", "-b", root, path], cwd=tmp_path)
    seen: dict[str, bool] = {}

    def look(folder: Path, wanted: tuple[str, ...]) -> tuple[Path, ...]:
        found = (each for each in folder.parents[2].rglob("*") if not each.is_dir())
        seen.update((each.name, each.is_file() and not each.is_symlink()) for each in found)
        return modules.unpack(folder, wanted)

    monkeypatch.setattr(packages, "unpack", look)
    assert len(packages.find(str(path)).modules) == 4
    assert all(seen.values())
    assert sorted(seen) == [
        f"config-{RELEASE}", "irqbypass.ko.gz", "unrelated.ko", "vfio-pci-core.ko.xz",
        "vfio-pci.ko", "vfio.ko", f"vmlinuz-{RELEASE}",
    ]  # fmt: skip


class ToyApt:
    """An apt that knows the packages of a directory."""

    known: Path

    def __init__(self, log: Path, options: tuple[str, ...] = ()) -> None:
        del log, options

    @classmethod
    def private(cls, where: Path, log: Path, sources: str | None = None) -> ToyApt:
        del where, sources
        return cls(log)

    def update(self) -> str:
        return ""

    def mirror(self) -> str | None:
        return None

    def find(self, package: str) -> apt.Candidate | None:
        found = list(self.known.glob(f"{package}_*.deb"))
        return apt.Candidate(found[0].name, 1) if found else None

    def download(self, package: str, where: Path) -> Path:
        (found,) = self.known.glob(f"{package}_*.deb")
        return Path(shutil.copy2(found, where))


@pytest.fixture
def toy_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of the packages that apt knows."""
    ToyApt.known = tmp_path
    monkeypatch.setattr(packages, "Apt", ToyApt)
    return tmp_path


@needs_dpkg
def test_a_package_by_name(toy_apt: Path) -> None:
    path = deb(toy_apt)
    kernel = packages.find(f"linux-image-{RELEASE}")
    assert kernel.release == RELEASE
    # Named for a release, it is not asked for again.
    path.unlink()
    assert packages.find(f"linux-image-{RELEASE}") == kernel


@needs_dpkg
def test_what_another_package_depends_on_is_fetched_too(toy_apt: Path) -> None:
    deb(toy_apt)
    meta = toy_apt / "meta"
    (meta / "DEBIAN").mkdir(parents=True)
    (meta / "DEBIAN/control").write_text(
        "Package: linux-image-amd64\nVersion: 6.1-1\nArchitecture: amd64\n"
        f"Depends: kmod, linux-image-{RELEASE} (= 6.1-1)\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: a toy\n"
    )
    target = toy_apt / "linux-image-amd64_6.1-1_amd64.deb"
    run(["dpkg-deb", "--root-owner-group", "-b", meta, target], cwd=toy_apt)
    assert packages.find("linux-image-amd64").release == RELEASE


def test_a_package_that_nobody_knows(toy_apt: Path) -> None:
    del toy_apt
    with pytest.raises(UserError, match=r"apt knows no package linux-image-9\.9-amd64"):
        packages.find("linux-image-9.9-amd64")


def test_a_package_for_another_architecture_by_name(toy_apt: Path) -> None:
    del toy_apt
    with pytest.raises(UserError, match="is for arm64, but the machines are amd64"):
        packages.find("linux-image-6.1.0-53-arm64")


def test_a_name_that_is_none(toy_apt: Path) -> None:
    del toy_apt
    with pytest.raises(UserError, match="is not the name of a kernel package"):
        packages.find("linux-image-$(reboot)")


@needs_dpkg
@pytest.mark.parametrize("name", ["vmlinuz", "module"])
def test_a_cache_with_other_files_is_none(toy_apt: Path, name: str) -> None:
    deb(toy_apt)
    kernel = packages.find(f"linux-image-{RELEASE}")
    assert packages._cached(f"linux-image-{RELEASE}") == kernel
    path = kernel.image if name == "vmlinuz" else kernel.modules[0]
    path.write_bytes(b"x" * path.stat().st_size)
    assert packages._cached(f"linux-image-{RELEASE}") is None
    assert packages.find(f"linux-image-{RELEASE}") == kernel


def test_a_cache_that_was_cut_short_is_none(toy_apt: Path) -> None:
    place = files.cache_dir() / "kernels" / f"linux-image-{RELEASE}_6.1-1_amd64"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text("{")
    assert packages._cached(f"linux-image-{RELEASE}") is None
    del toy_apt


def made(config: dict[str, str] | None = None) -> Kernel:
    return Kernel("k", RELEASE, "", Path("/nowhere"), (), config, "key")


def test_an_option_that_is_a_module_is_there() -> None:
    assert not made({"VFIO": "m"}).lacks("VFIO")
    assert made({"VFIO": "n"}).lacks("VFIO")
    assert not made().lacks("VFIO")
