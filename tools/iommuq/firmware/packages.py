# SPDX-License-Identifier: GPL-2.0-only
"""Find, download and unpack a kernel package of Debian, without installing it.

After 6.12 kernel, configuration and modules are in packages that linux-image depends on."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from iommuq.bases import dotconfig, named
from iommuq.bases.basefile import list_specs
from iommuq.bases.named import Kind
from iommuq.bases.providers.apt import Apt, suite_source
from iommuq.bases.providers.archive import FILES_OF, UNPACKING
from iommuq.bases.providers.debian import DebianSource
from iommuq.firmware.kernels import Kernel, from_file, needs, release_of
from iommuq.firmware.modules import unpack
from iommuq.system import files, progress, tarstream
from iommuq.system.errors import CommandFailed, InfraError, UserError
from iommuq.system.files import file_sha256
from iommuq.system.progress import one_line
from iommuq.system.run import pipeline, tail
from iommuq.system.sandbox.reader import boxed
from iommuq.system.tarstream import Limits
from iommuq.system.temporary import temporary_folder

_NAME = re.compile(r"linux-image-[a-z0-9][a-z0-9+.-]*")
_DEPENDS = re.compile(r"linux-(?:image|binary|modules|base)-[a-z0-9+.-]*[0-9][a-z0-9+.-]*")
_FOREIGN = re.compile(
    r"-(arm64|armmp|armhf|i386|686|686-pae|ppc64el|powerpc64le|s390x|riscv64|loong64|mips64el)"
    r"(?:-(?:lpae|16k))?(?:-unsigned)?$"
)
_ARCH = "amd64"
# How dpkg-deb, and what it runs, say that they were started.
_OWN = re.compile(r"^(?:dpkg-deb|tar|xz|gzip|zstd|bzip2|<decompress>)", re.M)
# A field of a package, and a release: nothing that a terminal or a path would take amiss.
_FIELD = re.compile(r"[\w.+:~-]{1,200}")
_RELEASE = re.compile(r"[\w.+~-]{1,100}")
_LIST = re.compile(r"[\w.+:~|(),<>= -]{0,65536}")
_MOST_FIELD = 1 << 16
# Debian's 6.12 has 400 MiB and 5000 files; one with debug information, files of half a GiB.
_MOST = Limits(total=4 << 30, file=256 << 20, members=50_000)
_MOST_CONFIG = 4 << 20
# The files that are read; `modules.unpack` looks for modules by name.
_WANTED = re.compile(
    r"(?:\./)?(?:usr/)?(boot|lib/modules/[^/.][^/]*(/kernel)?)/"
    r"((?(2)(?:[^/]+/)*[^/]+\.ko[^/]*|(?:vmlinuz|config)(?:-[^/]+)?))"
)
_RECORD = "kernel.json"


def find(text: str) -> Kernel:
    """Return the kernel in a file, or in the Debian package of a name.

    :raises UserError: there is no such file or package, or it cannot be booted here.
    :raises InfraError: the package could not be downloaded.
    """
    found = named.parse(text)
    if found.kind is Kind.PACKAGE:
        return from_package(text)
    if found.kind is Kind.FOLDER and found.path.is_dir():
        raise UserError(f"{text}: is a directory", hint="give the kernel image in it")
    if found.kind is not Kind.FILE or not found.path.is_file():
        hint = "give an image, a .deb, or a package such as linux-image-amd64"
        raise UserError(f"{text}: no such file, and not a kernel package", hint=hint)
    return from_package_file(found.path) if text.endswith(".deb") else from_file(found.path)


def from_package(name: str) -> Kernel:
    """Return the kernel of a package; download the package unless it is in the cache.

    :param name: such as ``linux-image-6.1.0-53-amd64``, or ``linux-image-amd64``: the current one.
    :raises UserError: apt knows no such package, or it is for another architecture.
    :raises InfraError: it could not be downloaded, or is damaged.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a kernel package")
    if match := _FOREIGN.search(name):
        raise UserError(f"{name} is for {match[1]}, but the machines are {_ARCH}")
    # A name without a release means a newer package after each update of the archive.
    if re.search(r"\d+\.\d+", name) and (kernel := _cached(name)):
        return kernel
    folder = _folder()
    with (
        files.hold(folder / "lock", "another iommuq that fetches a kernel"),
        temporary_folder("tmp", folder) as work,
    ):
        return _fetch(name, work)


def from_package_file(path: Path) -> Kernel:
    """Return the kernel in a package file that contains image and modules.

    :raises UserError: it is no such package, or for another architecture.
    """
    path = path.resolve()
    folder = _folder()
    with temporary_folder("tmp", folder) as work:
        name = _field(path, "Package")
        place = folder / f"{name}_{file_sha256(path)[:16]}"
        return _load(place) or _unpack([path], name, work, place)


def _folder() -> Path:
    folder = files.cache_dir() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cached(name: str) -> Kernel | None:
    places = sorted(_folder().glob(f"{name}_*/{_RECORD}"), key=lambda path: path.stat().st_mtime)
    return _load(places[-1].parent) if places else None


def _load(place: Path) -> Kernel | None:
    try:
        data = json.loads((place / _RECORD).read_text("utf-8"))
        modules = tuple(files.cache_dir() / module for module in data["modules"])
        config = dotconfig.parse((place / "config").read_text("utf-8"))
        if not data["key"].startswith(sha256 := file_sha256(place / "vmlinuz")):
            return None
        if any(file_sha256(path)[:32] != path.parent.name for path in modules):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Kernel(
        data["name"], data["release"], data["version"], place / "vmlinuz", modules, config,
        data["key"], sha256,
    )  # fmt: skip


def _fetch(name: str, work: Path) -> Kernel:
    log = files.new_log(f"kernel-{name}")
    apt = _find(name, work, log)
    paths: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        package = waiting.pop(0)
        if package in paths:
            continue
        where = work / f"deb-{len(paths)}"
        where.mkdir()
        paths[package] = apt.download(package, where)
        waiting += _DEPENDS.findall(_field(paths[package], "Depends", _LIST))
    main = next(iter(paths.values()))
    place = _folder() / main.name.removesuffix(".deb")
    return _load(place) or _unpack(list(paths.values()), name, work, place)


def _find(name: str, work: Path, log: Path) -> Apt:
    """Return an apt that knows a package: the system's, or one with the suite of a base."""
    system = Apt(log)
    if system.find(name):
        return system
    fresh = Apt.private(work / "apt", log)
    complaints = [fresh.update()]
    if fresh.find(name):
        return fresh
    mirror = fresh.mirror()
    suites = {s.source.suite for s in list_specs() if isinstance(s.source, DebianSource)}
    for suite in sorted(suites - {""}) if mirror else []:
        assert mirror is not None
        apt = Apt.private(work / f"apt-{suite}", log, suite_source(mirror, suite))
        complaints.append(apt.update())
        if apt.find(name):
            return apt
    if complaint := next(filter(None, complaints), ""):
        raise InfraError(
            f"package lists cannot be fetched: {complaint}",
            hint=f"is the network up? full log: {log}",
        )
    raise UserError(
        f"apt knows no package {name}", hint="`apt-cache search linux-image` lists the packages"
    )


def _field(path: Path, field: str, form: re.Pattern[str] = _FIELD) -> str:
    words = ("dpkg-deb", "--field", "-", field)
    try:
        with boxed(words) as inside, pipeline(("cat", path), inside.argv, cwd=inside.cwd) as pipe:
            data = pipe.read(_MOST_FIELD)
    except CommandFailed as error:
        if error.returncode < 0 or _OWN.search(error.output) is None:
            raise
        raise UserError(f"{path.name}: not a Debian package", hint=one_line(error.hint)) from error
    value = data.decode("utf-8", "backslashreplace").strip()
    if not form.fullmatch(value):
        raise UserError(f"{path.name}: {field} is {one_line(value)[:80]!r}")
    return value


def _unpack_files(path: Path, tree: Path) -> None:
    """Write what is needed of a package: regular files alone, and all modules into one folder."""
    try:
        with (
            boxed(FILES_OF, bounds=UNPACKING) as inside,
            pipeline(("cat", path), inside.argv, cwd=inside.cwd) as pipe,
        ):
            for member, data in tarstream.members(pipe, path.name, _MOST):
                match = _WANTED.fullmatch(member.name)
                if match is None or not member.isreg():
                    continue
                file = tree / match[1] / Path(match[3]).name
                if file.name.startswith("config") and member.size > _MOST_CONFIG:
                    raise UserError(f"{path.name}: {member.name} is too large")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data())
    except CommandFailed as error:
        hint = one_line(tail(error.output, 1) or error.hint)
        raise InfraError(f"{path.name}: damaged, or too large", hint=hint) from error


def _unpack(paths: list[Path], name: str, work: Path, place: Path) -> Kernel:
    tree = work / "tree"
    for path in paths:
        arch = _field(path, "Architecture")
        if arch not in (_ARCH, "all"):
            raise UserError(f"{path.name} is for {arch}, but the machines are {_ARCH}")
        with progress.task(f"Unpacking {path.name}"):
            _unpack_files(path, tree)
    images = [*tree.glob("boot/vmlinuz-*"), *tree.glob("lib/modules/*/vmlinuz")]
    if not images:
        raise UserError(f"{name} has no kernel image", hint="is it a linux-image package?")
    image = images[0]
    release = release_of(image)
    if not _RELEASE.fullmatch(release):
        raise UserError(f"{name}: {one_line(release)[:80]!r} is not the release of a kernel")
    configs = (image.with_name(f"config-{release}"), image.with_name("config"))
    config = next(filter(Path.is_file, configs), None)
    if config is None:
        raise InfraError(f"{name} has no configuration for its kernel {release}")
    folder = tree / "lib/modules" / release
    modules = unpack(folder, needs().modules) if folder.is_dir() else ()
    new = work / "new"
    new.mkdir()
    shutil.copy2(image, new / "vmlinuz")
    shutil.copy2(config, new / "config")
    record = {
        "name": name,
        "release": release,
        "version": _field(paths[0], "Version"),
        "modules": [str(path.relative_to(files.cache_dir())) for path in modules],
        "key": file_sha256(image) + "".join(path.parent.name[:8] for path in modules),
    }
    (new / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(new, place)  # noqa: PTH105
    kernel = _load(place)
    if kernel is None:
        raise InfraError(f"{place}: cannot be read back", hint="remove that directory")
    return kernel
