# SPDX-License-Identifier: GPL-2.0-only
"""The parsers that read untrusted bytes, each with its allowed errors and its limits."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, cast
from unittest import mock

import rawtables
from iommuq.bases import basefile, dotconfig
from iommuq.bases.providers import apt as apts
from iommuq.bases.providers import archive
from iommuq.bases.providers.snapshot import Snapshot
from iommuq.bases.sources import Base
from iommuq.build import directory, image, warnings
from iommuq.firmware import kernels, modules
from iommuq.firmware.tables import acpi, anytable, explain
from iommuq.guests.channel import Transcript
from iommuq.mail.review import fetch, review, screen, worker
from iommuq.proof import coverage, promises
from iommuq.queue import csource, hunks, model, parse
from iommuq.queue.steps import Step
from iommuq.results import known
from iommuq.results.console import ktap, splats, stacks
from iommuq.results.runs import archive as results
from iommuq.system import arches
from iommuq.system.errors import IommuqError
from iommuq.system.files import cache_dir
from iommuq.system.progress import Task
from iommuq.system.run import Completed

MIB = 1 << 20
#: The inputs that are kept, in a directory for each parser; those that failed are in finds/.
CORPUS = Path(__file__).parents[1] / "data" / "fuzz"


@dataclass(frozen=True)
class Parser:
    """A parser of untrusted bytes.

    :ivar reads: what it reads, and who writes that.
    :ivar call: reads an input; what it returns does not matter.
    :ivar allowed: the errors that it may raise.
    :ivar size: bytes of the largest input that is made by mutation.
    :ivar memory: bytes of address space that it may take for an input of 1 MiB.
    :ivar seconds: of processor time that it may take for an input of 1 MiB.
    """

    name: str
    reads: str
    call: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = (IommuqError,)
    size: int = 4096
    memory: int = 128 * MIB
    seconds: float = 5.0


class Wrong(AssertionError):
    """A parser returned something that it must not return."""


@cache
def _folder() -> Path:
    """Return a directory for the files of this process, which is removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="iommuq-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _text(data: bytes) -> str:
    """Return the output of a program as `iommuq.system.run` does."""
    return data.decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _printed(module: ModuleType, data: bytes) -> Iterator[None]:
    """Let each program that a module runs print the input."""
    done = Completed((), 0, _text(data), "", 0.0)
    with mock.patch.object(module, "run", return_value=done):
        yield


def _table(signature: bytes) -> Callable[[bytes], object]:
    """Return a reader of a table, whose length and checksum are made right before."""

    def call(data: bytes) -> None:
        data = rawtables.sealed(signature + data[4:].ljust(acpi.HEADER_SIZE, b"\0"))
        table = anytable.parse(data)
        explain.describe(table)
        if table.encode() != data:
            raise Wrong("the table is not written as it was read")

    return call


def _acpi(data: bytes) -> None:
    explain.explain(_file("table", data))


def _ktap(data: bytes) -> None:
    ktap.parse(_text(data).splitlines())


def _splats(data: bytes) -> None:
    lines = _text(data).splitlines()
    report, found, expected = ktap.parse(lines), splats.find(lines), splats.expected(lines)
    splats.fail_cases(report, found, expected)
    stacks.complaints(report, found, expected, Path("log"))


def _guest(data: bytes) -> None:
    transcript = Transcript()
    for start in range(0, len(data), acpi.HEADER_SIZE * 100):
        transcript.feed(data[start : start + acpi.HEADER_SIZE * 100])
    transcript.close()


def _mail(data: bytes) -> None:
    (mail,) = parse.read_mails([_file("0001.patch", data)])
    list(hunks.hunks(mail.diff))


def _diff(data: bytes) -> None:
    list(hunks.hunks(data))
    parse._is_cut(data, ())
    screen.screen(data, "1/1")


def _series(data: bytes) -> None:
    names = ("0001-a.patch", "baseline/0001-b.patch", "more/0001-c.patch", "more/0000-cover.md")
    for name in names:
        if not (_folder() / "queue" / name).exists():
            _file(f"queue/{name}", b"")
    folder = _file("queue/series", data).parent
    read = model._read_series(folder)
    labels = model._labels(read, model._main_series(folder, read))
    if len(set(labels)) != len(read):
        raise Wrong("two steps have the same label")


def _b4(data: bytes) -> None:
    with _printed(fetch, data):
        fetch.fetch(str(_file("mails", b"From a@example.com")), _folder())


def _sandbox(data: bytes) -> None:
    lines = _text(data).splitlines()
    pieces = [each.removeprefix(worker.MARK) for each in lines if each.startswith(worker.MARK)]
    review._read(pieces or [_text(data)], 1, _text(data), ["base", "0001", "0002"])


def _toml(data: bytes) -> None:
    queue = model.Queue("6.12", _file(f"6.12/{promises.NAME}", data).parent, ())
    _file(f"6.12/{known.NAME}", data)
    errors = []
    for read in (
        lambda: basefile.parse(_text(data), queue.folder),
        lambda: promises.load_promises(queue),
        lambda: known.load_known(queue),
    ):
        try:
            read()
        except IommuqError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _image(data: bytes) -> None:
    arch = arches.get("um")
    folder = cache_dir() / "images" / "key"
    (folder / arch.image).parent.mkdir(parents=True, exist_ok=True)
    (folder / arch.image).write_bytes(b"")
    (folder / "image.json").write_bytes(data)
    image.find_image("key", arch)


def _module(data: bytes) -> None:
    modules._dependencies(b"\x7fELF" + data, Path("some.ko"))


def _kernel(data: bytes) -> None:
    dotconfig.parse(data.decode("utf-8", "replace"))
    dotconfig.malformed(data.decode("utf-8", "replace"))
    kernels.release_of(_file("vmlinuz", data))


def _tarball(data: bytes) -> None:
    task = cast("Task", SimpleNamespace(update=lambda **_: None))
    snapshot = Snapshot(io.BytesIO(), task, "linux.tar")
    archive._add_members(cast("IO[bytes]", io.BytesIO(data)), snapshot, _file("linux.tar", data))
    snapshot.finish()


def _apt(data: bytes) -> None:
    apt = apts.Apt(_folder() / "log")
    with _printed(apts, data):
        apt.find("linux-image-amd64")
        apt.alike("linux-image-6.1.0-1-amd64")
        apt.mirror()
        apts._complaint(_text(data), r"[WE]: *(Failed to fetch.+)|E: *(.+)")


def _gcov(data: bytes) -> None:
    notes, text = _file("x.gcno", b""), b"int a(void)\n{\n\treturn 1;\n}\n"
    with _printed(coverage, data):
        coverage._functions("a.c", text, coverage._gcov(notes, notes))


def _build(data: bytes) -> None:
    step = SimpleNamespace(patch=None, label="base")
    base = SimpleNamespace(spec=SimpleNamespace(name="6.12"))
    kdir = directory.BuildDirectory(
        cast("Base", base), cast("Step", step), arches.get("um"), _folder(), _folder()
    )
    done = Completed(("make",), 2, _text(data), "", 0.0)
    directory.explain(kdir, done, Path("log"))
    # Twice: what a build left is read by the next.
    ledger = warnings.update({}, done.output.splitlines(), _folder(), _folder())
    warnings.update(ledger, (), _folder(), _folder())


def _source(data: bytes) -> None:
    for function in csource.parse(data).functions:
        list(csource.descend(function.body))


def _run(data: bytes) -> None:
    json.loads(results.to_json(results.from_json(data)))


#: All of them, in the order in which they are run.
PARSERS = (
    Parser("dmar", "Intel's table; the firmware", _table(b"DMAR")),
    Parser("ivrs", "AMD's table, with IVHD; the firmware", _table(b"IVRS")),
    Parser("iort", "Arm's table; the firmware", _table(b"IORT")),
    Parser("acpi", "a file with any table; the firmware", _acpi),
    Parser("ktap", "results on a console; the kernel under test", _ktap),
    Parser("splats", "reports of broken kernels; the kernel under test", _splats),
    Parser("guest", "the report of a guest; its init", _guest),
    # git runs three times for each; threads reserve address space.
    Parser("mail", "a patch as mail, by git; its author", _mail, memory=1024 * MIB),
    Parser("diff", "names and hunks of a patch; its author", _diff),
    Parser("series", "a series file; who wrote the queue", _series),
    Parser("b4", "the answer of the process with b4; authors of mails", _b4, memory=256 * MIB),
    Parser("sandbox", "the answer of the sandbox; the series in it", _sandbox),
    Parser(
        "toml",
        "base, promises, known failures; who wrote the queue",
        _toml,
        memory=512 * MIB,
        seconds=15.0,
    ),
    Parser("image", "image.json; the cache", _image),
    Parser("module", ".modinfo of a module; the kernel's package", _module),
    Parser("kernel", "image and .config of a kernel; its package", _kernel),
    Parser("tarball", "the members of a tar archive; a server", _tarball),
    Parser("apt", "what apt prints of its index; a mirror", _apt),
    Parser("gcov", "counters as JSON; the kernel under test", _gcov),
    Parser("build", "what make and gcc print; the code that is built", _build),
    Parser(
        "source",
        "a C file, by tree-sitter; the kernel and its patches",
        _source,
        memory=768 * MIB,
        seconds=10.0,
    ),
    Parser("run", "a stored run as JSON; who gave the file away", _run),
)
