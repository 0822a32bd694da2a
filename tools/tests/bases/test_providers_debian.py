# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the provider ``debian``, with real packages and an apt set-up of their own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import sources
import toy
from iommuq.bases import basefile
from iommuq.bases import sources as bases
from iommuq.bases.providers import apt, debian
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import file_sha256

pytestmark = pytest.mark.skipif(
    not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="needs apt and dpkg"
)

SOURCE = f'provider = "debian"\npackage = "{sources.PACKAGE}"'


@dataclass
class Machine:
    """A machine with its own apt sources, whose archive is a directory."""

    root: Path
    tree: Path
    archive: Path

    def publish(self, version: str = sources.VERSION, suite: str = "bookworm") -> Path:
        """Put a version into the archive in place of the one before."""
        shutil.rmtree(self.archive / "pool", ignore_errors=True)
        package = sources.make_package(self.root, self.tree, version)
        sources.publish(self.archive, suite, package, version)
        return package

    @staticmethod
    def update() -> None:
        """Do what an administrator does now and then."""
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)

    def fetch(
        self, source: str = SOURCE, *, seen: str = "", update: bool = False
    ) -> tuple[bases.Base, list[str]]:
        """Write the base's file and fetch it."""
        sources.write_base(self.root, source, seen=seen)
        return bases.fetch(basefile.load_spec("6.12"), update=update)


@pytest.fixture
def machine(tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    archive = tmp_path / "archive"
    archive.mkdir()
    config = sources.system_apt(tmp_path / "system", archive)
    monkeypatch.setenv("APT_CONFIG", str(config))
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path / "system/var/lib/dpkg"))
    monkeypatch.setattr(debian, "USR_SRC", tmp_path / "usr-src")
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    (tmp_path / "patches").mkdir()
    return Machine(tmp_path, toy_tree, archive)


def test_package_is_downloaded_and_imported(machine: Machine) -> None:
    package = machine.publish()
    machine.update()
    base, notes = machine.fetch()
    assert notes == []
    assert (base.version, base.kernel) == (sources.VERSION, "6.12.117")
    assert base.sha256 == file_sha256(package)
    assert set(sources.files_of(base.git_dir, base.commit)) == set(toy.FILES)
    left = {path.name for path in base.git_dir.parents[1].iterdir()}
    assert left == {"6.12", "6.12.lock"}


def test_lists_that_were_never_fetched_are_fetched_apart(machine: Machine) -> None:
    machine.publish()
    base, _ = machine.fetch()
    assert base.version == sources.VERSION
    lists = machine.root / "system/var/lib/apt/lists"
    assert [path.name for path in lists.rglob("*Packages*")] == []


def test_stale_lists_are_no_hindrance(machine: Machine) -> None:
    machine.publish("6.12.116-1")
    machine.update()
    machine.publish("6.12.117-1")
    base, notes = machine.fetch(seen='version = "6.12.116-1"')
    assert base.version == "6.12.117-1"
    assert notes == [f"{sources.PACKAGE} is 6.12.117-1 here, 6.12.116-1 in [seen]"]


def test_update_looks_for_a_newer_one(machine: Machine) -> None:
    machine.publish("6.12.116-1")
    machine.update()
    assert machine.fetch()[0].version == "6.12.116-1"
    package = machine.publish("6.12.117-1")
    assert machine.fetch()[0].version == "6.12.116-1"
    # The old one is still there for apt to find in its own lists.
    shutil.copy(machine.root / f"{sources.PACKAGE}_6.12.116-1_all.deb", machine.archive / "pool")
    base, _ = machine.fetch(update=True)
    assert (base.version, base.sha256) == ("6.12.117-1", file_sha256(package))


def test_installed_package_is_used_as_it_is(machine: Machine) -> None:
    (machine.root / "system/var/lib/dpkg/status").write_text(
        f"Package: {sources.PACKAGE}\nStatus: install ok installed\nVersion: 6.12.115-1\n"
        "Architecture: all\nMaintainer: Toy <toy@example.com>\nDescription: toy\n\n",
        encoding="utf-8",
    )
    machine.publish()
    # A package whose file is gone does not count.
    assert machine.fetch()[0].version == sources.VERSION
    debian.USR_SRC.mkdir()
    sources.make_tarball(debian.USR_SRC / f"{sources.PACKAGE}.tar.xz", machine.tree)
    base, _ = machine.fetch(update=True)
    assert (base.version, base.sha256) == ("6.12.115-1", "")
    with pytest.raises(InfraError, match="commit is "):
        machine.fetch(seen=f'version = "6.12.115-1"\ncommit = "{"0" * 40}"')


def test_unknown_package(machine: Machine) -> None:
    machine.publish()
    machine.update()
    with pytest.raises(UserError, match=r"has no package toy-source-9\.9 \(run .apt-get up"):
        machine.fetch('provider = "debian"\npackage = "toy-source-9.9"')


@pytest.mark.parametrize("suite", ["", "bookworm"])
def test_package_that_left_the_archive(
    machine: Machine, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As backports lose a kernel when they get the next: what there is instead is told."""
    monkeypatch.setattr(apt, "KEYRING", machine.root / "keyring.gpg")
    apt.KEYRING.touch()
    machine.publish()
    machine.update()
    known = rf"\(it has {sources.PACKAGE} {sources.VERSION}; see "
    with pytest.raises(UserError, match=rf"has no package linux-source-6\.11 {known}"):
        machine.fetch(f'provider = "debian"\npackage = "linux-source-6.11"\nsuite = "{suite}"')


@pytest.mark.parametrize("forged", [False, True])
def test_cut_or_forged_download(machine: Machine, forged: bool) -> None:
    package = machine.publish()
    machine.update()
    pool = machine.archive / "pool" / package.name
    data = pool.read_bytes()[:-100]
    pool.write_bytes(data + b"x" * 100 if forged else data)
    with pytest.raises(InfraError, match=r"cannot be downloaded: .*network"):
        machine.fetch()


def test_archive_that_cannot_be_reached(machine: Machine) -> None:
    shutil.rmtree(machine.archive)
    with pytest.raises(InfraError, match=r"lists cannot be fetched: .*network"):
        machine.fetch()


def test_other_content_under_the_same_version(machine: Machine) -> None:
    machine.publish()
    machine.update()
    good, _ = machine.fetch()
    shutil.rmtree(machine.root / f"root-{sources.VERSION}")
    (machine.tree / "README").write_text("tampered", encoding="utf-8")
    bad = machine.publish()
    machine.update()
    seen = f'version = "{sources.VERSION}"\nsha256 = "{good.sha256}"'
    with pytest.raises(InfraError) as caught:
        machine.fetch(seen=seen, update=True)
    assert f"sha256 is {file_sha256(bad)}" in str(caught.value)
    assert f"has {good.sha256}" in str(caught.value)
    assert bases.open_base(basefile.load_spec("6.12")).commit == good.commit


def test_damaged_package(machine: Machine) -> None:
    package = sources.make_package(machine.root, machine.tree)
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 0xFF
    package.write_bytes(data)
    # Published as it is: apt has nothing to object.
    sources.publish(machine.archive, "bookworm", package)
    with pytest.raises(InfraError, match="damaged or cut short"):
        machine.fetch()


def test_suite_that_the_system_does_not_know(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "KEYRING", machine.root / "keyring.gpg")
    source = f'{SOURCE}\nsuite = "trixie-backports"'
    machine.publish("6.12.1-1", suite="bookworm")
    machine.publish("6.12.2-1", suite="trixie-backports")
    with pytest.raises(InfraError, match="debian-archive-keyring"):
        machine.fetch(source)
    apt.KEYRING.touch()
    # The mirror is found in the system's sources, whether or not its lists are there.
    assert machine.fetch(source)[0].version == "6.12.2-1"
    machine.update()
    assert machine.fetch(source, update=True)[0].version == "6.12.2-1"
    elsewhere = machine.root / "elsewhere"
    machine.archive.rename(elsewhere)
    assert machine.fetch(f'{source}\nmirror = "copy:{elsewhere}"')[0].version == "6.12.2-1"
    with pytest.raises(UserError, match=r"trixie-backports at copy:.* has no package"):
        machine.fetch(f'{source}\nmirror = "copy:{elsewhere}"'.replace("6.12", "6.13"))
