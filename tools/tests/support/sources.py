# SPDX-License-Identifier: GPL-2.0-only
"""Makers of tarballs, Debian packages and package archives of the toy kernel."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Literal

import toy

PACKAGE = "linux-source-6.12"
VERSION = "6.12.117-1"


def make_tarball(
    path: Path,
    tree: Path,
    *,
    top: str = "linux-source-6.12",
    mode: Literal["w", "w:xz", "w:gz", "w:bz2"] = "w:xz",
    extra: tuple[tarfile.TarInfo, ...] = (),
) -> Path:
    """Write a tarball of *tree* whose members lie in *top*, then the *extra* members."""
    with tarfile.open(path, mode) as archive:
        archive.add(tree, arcname=top)
        for member in extra:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def make_package(folder: Path, tree: Path, version: str = VERSION) -> Path:
    """Build a source package as Debian's kernel team does."""
    root = folder / f"root-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Toy <toy@example.com>\nDescription: toy kernel\n",
        encoding="utf-8",
    )
    (root / "usr" / "src").mkdir(parents=True)
    make_tarball(root / "usr" / "src" / f"{PACKAGE}.tar.xz", tree)
    path = folder / f"{PACKAGE}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", root, path], check=True, stdout=subprocess.DEVNULL
    )
    return path


def publish(archive: Path, suite: str, package: Path, version: str = VERSION) -> None:
    """Make *package* the only one of a suite of the package archive in a directory."""
    pool = archive / "pool" / package.name
    pool.parent.mkdir(parents=True, exist_ok=True)
    pool.write_bytes(package.read_bytes())
    arch = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    index = f"main/binary-{arch}/Packages"
    text = (
        f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\n"
        f"Maintainer: Toy <toy@example.com>\nDescription: toy kernel\n"
        f"Filename: pool/{package.name}\nSize: {pool.stat().st_size}\n"
        f"SHA256: {hashlib.sha256(pool.read_bytes()).hexdigest()}\n\n"
    ).encode()
    dists = archive / "dists" / suite
    (dists / index).parent.mkdir(parents=True, exist_ok=True)
    (dists / index).write_bytes(text)
    (dists / "Release").write_text(
        f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\n"
        f"Architectures: {arch}\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(text).hexdigest()} {len(text)} {index}\n",
        encoding="utf-8",
    )


def system_apt(root: Path, archive: Path, suite: str = "bookworm") -> Path:
    """Make an apt set-up of its own below *root*, whose only source is *archive*.

    Its lists are copied from there, and get stale as those of any distant archive do.

    :return: the file to name in ``APT_CONFIG``; the lists are not fetched yet.
    """
    for name in ("etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/lib/dpkg"):
        (root / name).mkdir(parents=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "etc/apt/sources.list").write_text(
        f"deb [trusted=yes] copy:{archive} {suite} main\n", encoding="utf-8"
    )
    config = root / "apt.conf"
    config.write_text(
        f'Dir "{root}/";\nDir::State::status "{root}/var/lib/dpkg/status";\n'
        'Acquire::AllowInsecureRepositories "1";\nAPT::Get::AllowUnauthenticated "1";\n'
        'APT::Sandbox::User "";\nAcquire::Languages "none";\n',
        encoding="utf-8",
    )
    return config


def write_base(root: Path, source: str, *, name: str = "6.12", seen: str = "") -> Path:
    """Write ``patches/<name>/base.toml`` below *root*, and return it."""
    path = root / "patches" / name / "base.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'name = "{name}"\ntitle = "Toy {name}"\n\n[source]\n{source}\n'
    path.write_text(text + (f"\n[seen]\n{seen}\n" if seen else ""), encoding="utf-8")
    return path


def files_of(git_dir: Path, commit: str) -> dict[str, str]:
    """Return path -> mode of everything in a commit."""
    out = toy.git("ls-tree", "-r", "--format=%(objectmode) %(path)", commit, cwd=git_dir)
    return {line.split(" ", 1)[1]: line.split(" ", 1)[0] for line in out.splitlines()}
