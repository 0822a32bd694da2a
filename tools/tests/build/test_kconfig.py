# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.build.kconfig`, on Kconfig files that have the forms of the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

import toy
from iommuq.bases import dotconfig
from iommuq.build import kconfig
from iommuq.system.errors import VerdictError

FILES = {
    "Kconfig": 'mainmenu "Linux"\nsource "drivers/Kconfig"\n',
    "drivers/Kconfig": 'menu "Device Drivers"\n\nsource "drivers/iommu/Kconfig"\n\nendmenu\n',
    "drivers/iommu/Kconfig": """\
# The IOMMU API
config IOMMU_API
	bool

menuconfig IOMMU_SUPPORT
	bool "IOMMU Hardware Support"
	depends on MMU
	default y
	help
		Say Y here
		if you have one. It is
		depends on nothing at all

if IOMMU_SUPPORT

config OTHER
	bool "Other"
	depends on NEVER

menu "Generic IOMMU Pagetable Support"
	depends on HAS_DMA

config IOMMU_IO_PGTABLE_LPAE
	bool "ARMv7/v8 Long Descriptor Format"
	select IOMMU_IO_PGTABLE
	depends on ARM || ARM64 || \\
		(COMPILE_TEST && !GENERIC_ATOMIC64)
	depends on PCI

endmenu

source "drivers/iommu/intel/Kconfig"

endif # IOMMU_SUPPORT
""",
    "drivers/iommu/intel/Kconfig": """\
config INTEL_IOMMU
	bool "Support for Intel IOMMU using DMA Remapping Devices"
	depends on PCI_MSI && ACPI && X86
	select IOMMU_API
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a source tree."""
    toy.write_tree(tmp_path, FILES)
    return tmp_path


def explain(tree: Path, name: str, **got: str) -> kconfig.Unmet:
    return kconfig.explain(tree, [name], got)[0]


def test_parse_and_render() -> None:
    text = 'CONFIG_A=y\n# CONFIG_B is not set\n# a comment\nCONFIG_C="a b"\n  CONFIG_D=0x10\n'
    symbols = {"A": "y", "B": "n", "C": '"a b"', "D": "0x10"}
    assert dotconfig.parse(text) == symbols
    assert dotconfig.parse(dotconfig.render(symbols)) == symbols


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("CONFIG_A=y\n\n# words\n# CONFIG_B is not set\n", None),
        ("CONFIG_A=y\nCONFIG_B\n", 2),
        ("CONFIG_A=\n", 1),
        ("FOO=y\n", 1),
    ],
)
def test_malformed(text: str, number: int | None) -> None:
    assert dotconfig.malformed(text) == number


def test_missing() -> None:
    wanted = {"A": "y", "B": "n", "C": "n", "D": "y"}
    assert dotconfig.missing(wanted, {"A": "y", "B": "y"}) == {"B": "n", "D": "y"}


def test_own_dependency(tree: Path) -> None:
    unmet = explain(tree, "INTEL_IOMMU", PCI_MSI="y", X86="y", IOMMU_SUPPORT="y")
    assert unmet.where == "drivers/iommu/intel/Kconfig:1"
    assert unmet.depends == ("PCI_MSI && ACPI && X86 (PCI_MSI=y, ACPI=n, X86=y)",)


def test_dependency_of_the_block_that_sources_the_file(tree: Path) -> None:
    unmet = explain(tree, "INTEL_IOMMU", PCI_MSI="y", X86="y", ACPI="y")
    assert unmet.depends == ("IOMMU_SUPPORT (IOMMU_SUPPORT=n)",)


def test_menu_and_continued_line(tree: Path) -> None:
    unmet = explain(tree, "IOMMU_IO_PGTABLE_LPAE", PCI="y", COMPILE_TEST="y", GENERIC_ATOMIC64="y")
    assert unmet.depends == (
        "ARM || ARM64 || (COMPILE_TEST && !GENERIC_ATOMIC64)"
        " (ARM=n, ARM64=n, COMPILE_TEST=y, GENERIC_ATOMIC64=y)",
        "HAS_DMA (HAS_DMA=n)",
        "IOMMU_SUPPORT (IOMMU_SUPPORT=n)",
    )


def test_help_is_no_dependency(tree: Path) -> None:
    assert explain(tree, "IOMMU_SUPPORT", MMU="y").depends == ()
    unmet = explain(tree, "OTHER", IOMMU_SUPPORT="y", MMU="y")
    assert unmet.depends == ("NEVER (NEVER=n)",)


def test_unknown_symbol(tree: Path) -> None:
    assert explain(tree, "NO_SUCH_THING") == kconfig.Unmet("NO_SUCH_THING", "", ())


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("Y", True),
        ("M", True),
        ("N", False),
        ("!N && Y", True),
        ("!(N || Y)", False),
        ("N || M && Y", True),
        ("KUNIT=y", True),
        ("M=y", False),
        ("M != n", True),
        ('ARCH = "um"', True),
        ("Y && ", False),
        ("", False),
        ("Y Y", False),
    ],
)
def test_is_met(expression: str, met: bool) -> None:
    got = {"Y": "y", "M": "m", "KUNIT": "y", "ARCH": "um"}
    assert kconfig.is_met(expression, got) is met


def test_check(tree: Path, tmp_path: Path) -> None:
    config = tmp_path / ".config"
    config.write_text("CONFIG_MMU=y\n# CONFIG_IOMMU_SUPPORT is not set\nCONFIG_IOMMU_API=y\n")
    kconfig.check(tree, {"MMU": "y", "IOMMU_SUPPORT": "n", "ACPI": "n"}, config)
    wanted = {"MMU": "y", "OTHER": "y", "NOPE": "y", "IOMMU_API": "n"}
    with pytest.raises(VerdictError) as caught:
        kconfig.check(tree, wanted, config)
    assert caught.value.what == (
        "not configured as asked: CONFIG_OTHER=y (drivers/iommu/Kconfig:16) needs NEVER (NEVER=n);"
        " IOMMU_SUPPORT (IOMMU_SUPPORT=n) | CONFIG_NOPE=y: no such symbol in this tree"
        " | CONFIG_IOMMU_API=n (drivers/iommu/Kconfig:2): other symbols make it y"
    )


def test_a_symbol_that_a_tree_may_lack(tmp_path: Path) -> None:
    toy.write_tree(tmp_path, FILES)
    (tmp_path / "must").write_text("CONFIG_OTHER=y\n")
    may = tmp_path / "may"
    may.write_text("CONFIG_IOMMU_SUPPORT=y\n# CONFIG_OTHER is not set\nCONFIG_IOMMU_PT=y\n")
    fragments = kconfig.Fragments.read(tmp_path / "must", optional=may)
    # IOMMU_PT is in no Kconfig file, and what must be there overrides what may be.
    assert fragments.wanted_of(tmp_path) == {"IOMMU_SUPPORT": "y", "OTHER": "y"}
    assert fragments.wanted == {"OTHER": "y"}
    assert fragments.key != kconfig.Fragments.read(tmp_path / "must").key
