# SPDX-License-Identifier: GPL-2.0-only
"""Suites of others in a real guest, with Debian's kernel: a toy suite, and those that are here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from iommuq.firmware import packages
from iommuq.firmware.kernels import Kernel
from iommuq.results.store import Status
from iommuq.suites.foreign import table
from iommuq.suites.foreign.programs import build
from iommuq.suites.foreign.run import run_foreign
from iommuq.suites.foreign.table import Program, Suite
from iommuq.suites.kunit import Subject
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from iommuq.system.sandbox import reader

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
    pytest.mark.skipif(bool(reader.missing()), reason="no sandbox"),
]

PACKAGE = "linux-image-6.12-amd64"
# Opens a device by its group; with -DKIND=1 it never looks, with -DKIND=2 it hangs.
OPENS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/vfio.h>

int main(int argc, char **argv)
{
	char path[200], link[200] = "";
	int container, group;

	if (KIND == 1)
		return puts("all good") < 0;
	if (KIND == 2)
		pause();
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", argv[argc - 1]);
	if (readlink(path, link, sizeof(link) - 1) < 0)
		return 2;
	snprintf(path, sizeof(path), "/dev/vfio/%d", atoi(strrchr(link, '/') + 1));
	container = open("/dev/vfio/vfio", O_RDWR);
	group = open(path, O_RDWR);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) {
		perror("Failed to set group container");
		return 1;
	}
	return puts("all good") < 0;
}
"""


def kernel() -> Kernel:
    try:
        return packages.find(PACKAGE)
    except UserError as error:
        pytest.skip(str(error))


def subject(tested: Kernel) -> Subject:
    return Subject(tested.name, "as-is", tested.release)


def test_a_program_that_looks_and_two_that_do_not(tmp_path: Path) -> None:
    names = ("looks", "never-looks", "hangs")
    suite = Suite(
        "toy", "https://example.org/toy.git", "0" * 40,
        tuple(f"gcc -static -DKIND={n} -o {name} main.c" for n, name in enumerate(names)),
        tuple(Program(name, name, read="pattern", pattern="all good", limit=20) for name in names),
        {"gcc": "gcc"},
    )  # fmt: skip
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/main.c").write_text(OPENS)
    built = build(suite, tmp_path)
    assert not built.failed
    tested, found = kernel(), replace(table.load(project_root()), memory=1024)
    run = run_foreign(tested, found, [built], ["q35-intel"], subject(tested), again=True)
    statuses = {one.test.removeprefix("q35-intel."): one.status for one in run.results}
    guest = {test: status for test, status in statuses.items() if test.startswith("guest.")}
    assert set(guest.values()) == {Status.PASS}
    assert {test: one for test, one in statuses.items() if test.startswith("toy.")} == {
        "toy.builds": Status.PASS,
        "toy.looks.control": Status.PASS,
        "toy.looks.marked": Status.PASS,
        "toy.never-looks.control": Status.PASS,
        "toy.never-looks.marked": Status.FAIL,
        "toy.hangs.control": Status.ERROR,
        "toy.hangs.marked": Status.ERROR,
    }


@pytest.mark.full
def test_the_suites_that_are_here() -> None:
    found = table.load(project_root())
    built = [build(suite, None) for suite in found.suite]
    if not any(one.paths for one in built):
        pytest.skip("; ".join(one.skipped for one in built))
    tested = kernel()
    run = run_foreign(tested, found, built, ["q35-intel"], subject(tested))
    bad = {one.test: one.message for one in run.results if one.status is Status.FAIL}
    assert bad == {}
