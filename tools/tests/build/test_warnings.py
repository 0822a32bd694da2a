# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.build.warnings`, with lines as gcc 12, objtool, modpost and ld print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from iommuq.build import warnings

SOURCE = Path("/cache/trees/6.12/src")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "/cache/trees/6.12/src/drivers/iommu/iommu.c:2251:13: warning: unused variable"
            " ‘dev’ [-Wunused-variable]",
            "drivers/iommu/iommu.c: unused variable ‘dev’ [-Wunused-variable]",
        ),
        (
            '../drivers/iommu/iommu.c:7: warning: "FOO" redefined',
            'drivers/iommu/iommu.c: "FOO" redefined',
        ),
        (
            "drivers/iommu/iommu.o: warning: objtool: iommu_attach_device+0x1f: unreachable"
            " instruction",
            "drivers/iommu/iommu.o: objtool: iommu_attach_device: unreachable instruction",
        ),
        (
            "WARNING: modpost: vmlinux: section mismatch in reference: foo+0x8 (section: .text)"
            " -> bar (section: .init.text)",
            "modpost: vmlinux: section mismatch in reference: foo (section: .text) -> bar"
            " (section: .init.text)",
        ),
        (
            "ld: warning: vmlinux has a LOAD segment with RWX permissions",
            "ld: vmlinux has a LOAD segment with RWX permissions",
        ),
        ("drivers/iommu/iommu.c:2251:13: error: ‘x’ undeclared", None),
        ("drivers/iommu/iommu.c: In function ‘iommu_attach_device’:", None),
        (" 2251 |  int warning: unused;", None),
        ("  CC      drivers/iommu/iommu.o", None),
    ],
)
def test_normalise(line: str, wanted: str | None) -> None:
    assert warnings.normalise(line, SOURCE) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("  CC      drivers/iommu/iommu.o", "drivers/iommu/iommu.o"),
        ("  CC [M]  drivers/iommu/iommufd/iommufd.o", "drivers/iommu/iommufd/iommufd.o"),
        ("  AS      arch/x86/entry/entry.o", "arch/x86/entry/entry.o"),
        ("  HOSTCC  scripts/basic/fixdep", "scripts/basic/fixdep"),
        ("  LINK linux", "linux"),
        ("  GEN     Makefile", None),
        ("make[1]: Entering directory '/cache/trees/6.12/obj-um'", None),
    ],
)
def test_compiled(line: str, wanted: str | None) -> None:
    assert warnings.compiled(line) == wanted


WARNING = "drivers/a.c:{}:2: warning: unused variable ‘x’ [-Wunused-variable]"
NORMAL = "drivers/a.c: unused variable ‘x’ [-Wunused-variable]"


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source tree with drivers/a.c and b.c, and a build directory with made.c."""
    source, objects = tmp_path / "src", tmp_path / "obj"
    for path in (source / "drivers/a.c", source / "drivers/b.S", objects / "drivers/made.c"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return source, objects


def test_what_is_not_built_again_keeps_its_warnings(places: tuple[Path, Path]) -> None:
    first = ["  CC      drivers/a.o", WARNING.format(3), WARNING.format(9), "  CC      drivers/b.o"]
    ledger = warnings.update({}, first, *places)
    assert warnings.union(ledger) == {NORMAL}
    ledger = warnings.update(ledger, ["  CC      drivers/b.o"], *places)
    assert warnings.union(ledger) == {NORMAL}
    ledger = warnings.update(ledger, ["  CC      drivers/a.o"], *places)
    assert warnings.union(ledger) == set()


def test_an_object_without_a_source_is_forgotten(places: tuple[Path, Path]) -> None:
    names = ("drivers/a.o", "drivers/b.o", "drivers/made.o", "drivers/gone.o", "vmlinux")
    ledger = warnings.update({name: [name] for name in names}, [], *places)
    assert warnings.union(ledger) == set(names) - {"drivers/gone.o"}


def test_the_old_ledger_is_left_alone(places: tuple[Path, Path]) -> None:
    old = {"drivers/a.o": ["old"]}
    warnings.update(old, ["  CC      drivers/a.o", WARNING.format(1)], *places)
    assert old == {"drivers/a.o": ["old"]}


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "warnings.json"
    assert warnings.load_ledger(path) == {}
    warnings.save({"a.o": ["größer"]}, path)
    assert warnings.load_ledger(path) == {"a.o": ["größer"]}
    assert [each.name for each in tmp_path.iterdir()] == ["warnings.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a.o": 3}'])
def test_damaged_ledger_is_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "warnings.json"
    path.write_text(text)
    assert warnings.load_ledger(path) == {}
