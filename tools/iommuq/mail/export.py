# SPDX-License-Identifier: GPL-2.0-only
"""Make patches of the suites: what reviewers see is ordinary in-tree test code.

``kunit/export.toml`` and ``selftests/export.toml`` say what they are called.  Whatever
differs between kernels is resolved for the one that it is mailed for, by the kernel's own
``scripts/unifdef``: a header lists it (see `resolve`).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iommuq.bases.providers.job import Table, require
from iommuq.queue.overlay import Layer, Overlay
from iommuq.system import tables
from iommuq.system.errors import InfraError, UserError, VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.command import is_safe_path
from iommuq.system.git.objects import Store
from iommuq.system.run import run

#: What the descriptions are called, and the folders of the project that may have one.
NAME = "export.toml"
FOLDERS = ("kunit", "selftests")

_AT_LEAST = re.compile(r"LINUX_VERSION_CODE\s*>=\s*KERNEL_VERSION\((\d+),\s*(\d+),\s*(\d+)\)")
_SYMBOL = "IOMMUQ_AT_LEAST_{}_{}_{}"
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)
_FLAG = re.compile(r"^\s*#define\s+(\w+)\s*$", re.M)
_VALUE = re.compile(r"^\s*#define\s+(\w+)[ \t]+\(?([^()\n]+)\)?[ \t]*$", re.M)
_LIMIT = 60.0


@dataclass(frozen=True)
class Insert(Table):
    """Lines that follow a line of a file in the tree."""

    file: str
    after: str
    text: str


@dataclass(frozen=True)
class Export(Table):
    """A patch to be made of suites.

    :ivar subject: of the commit.
    :ivar message: below it.
    :ivar needs: sections of the queue that must be applied; without one of them in the
        queue there is no patch.
    :ivar compat: the header with what differs between kernels, as a path in the tree.
    :ivar overlay: whether it is the overlay in the same folder.
    """

    subject: str
    message: str
    needs: tuple[str, ...] = ()
    compat: str = ""
    overlay: bool = False
    copy: tuple[Mapping[str, str], ...] = ()
    insert: tuple[Insert, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.subject.strip()) and "\n" not in self.subject, "wants a subject")
        require(self.overlay != bool(self.copy), "wants either overlay or copy")
        for each in self.copy:
            require(each.keys() == {"from", "to"}, "copy has from and to, and nothing else")
        paths = [each.file for each in self.insert] + [each["to"] for each in self.copy]
        for path in paths:
            require(is_safe_path(path), f"{path!r} is not a path inside a tree")


def load(root: Path) -> list[tuple[Path, Export]]:
    """Read the descriptions, each with its folder.

    :param root: the checkout of the project.
    :raises UserError: one is malformed.
    """
    paths = [root / folder / NAME for folder in FOLDERS]
    return [(path.parent, tables.load(Export, path)) for path in paths if path.is_file()]


def lay(
    store: Store, tree: str, folder: Path, export: Export, overlay: Overlay, kernel: str
) -> str:
    """Return a tree with the suites in it.

    :param folder: of the description.
    :param overlay: what is laid over trees for testing.
    :param kernel: the release that it is for, ``6.12.117``.
    :raises VerdictError: it does not fit the tree.
    """
    if export.overlay:
        files = {name: data.decode() for name, data, _ in overlay.files}
        hooks = overlay.hooks
    else:
        files, hooks = _copied(folder, export), ()
    if export.compat:
        if export.compat not in files:
            raise UserError(f"{folder / NAME}: there is no {export.compat} in what is mailed")
        files = resolve(files, export.compat, kernel, unifdef(store, tree))
    listed = tuple((name, text.encode(), "100644") for name, text in sorted(files.items()))
    laid = Layer(Overlay(listed, hooks, ""), store).over(tree, "the tree")
    return _insert(store, laid, folder, export)


def _copied(folder: Path, export: Export) -> dict[str, str]:
    found = {}
    for each in export.copy:
        for path in sorted((folder / each["from"]).glob("*.[ch]")):
            try:
                found[f"{each['to']}/{path.name}"] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: {error}") from error
    return found


def _insert(store: Store, tree: str, folder: Path, export: Export) -> str:
    edits = {}
    for each in export.insert:
        data = store.read_file(tree, each.file)
        lines = (data or b"").decode("utf-8", "surrogateescape").splitlines(keepends=True)
        at = [number for number, line in enumerate(lines) if line.rstrip() == each.after]
        if len(at) != 1:
            raise VerdictError(
                f"{folder / NAME}: {each.file} has not one line {each.after!r}",
                hint="the tests cannot be mailed for this tree",
            )
        text = each.text.strip("\n") + "\n"
        if text not in "".join(lines):
            lines.insert(at[0] + 1, text)
        (blob,) = store.write_blobs(["".join(lines).encode("utf-8", "surrogateescape")])
        edits[each.file] = f"100644 blob {blob}"
    return store.replace(tree, edits)


def unifdef(store: Store, tree: str) -> Path:
    """Return the kernel's own unifdef, compiled.

    :raises VerdictError: the tree has none.
    """
    source = store.read_file(tree, "scripts/unifdef.c")
    if source is None:
        raise VerdictError("scripts/unifdef.c is not in the tree, and tests cannot be mailed")
    where = cache_dir() / "unifdef" / hashlib.sha256(source).hexdigest()
    program = where / "unifdef"
    if not program.exists():
        try:
            where.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=where) as name:
                (Path(name) / "unifdef.c").write_bytes(source)
                words = ("gcc", "-O1", "-o", "unifdef", "unifdef.c")
                run(words, cwd=Path(name), timeout=_LIMIT)
                (Path(name) / "unifdef").replace(program)
        except OSError as error:
            raise InfraError(f"{where}: {error.strerror}") from error
    return program


def resolve(files: Mapping[str, str], compat: str, kernel: str, program: Path) -> dict[str, str]:
    """Take out of sources what is for other kernels.

    The header defines, by the version of the kernel, symbols without a value, which the
    sources ask for, and macros.  A macro that is a plain value takes its place in the
    sources.  If the header has nothing else left it goes, and so does every file that
    nobody includes any more.

    :param files: path -> content.
    :param compat: the path of the header.
    :param kernel: a release, ``6.12.117``.
    :param program: unifdef.
    :raises UserError: something is left that could not be resolved.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", kernel)[:3])
    version = (*version, 0, 0)[:3]
    bounds = {tuple(map(int, found)) for found in _AT_LEAST.findall(files[compat])}
    known = {_SYMBOL.format(*bound): "1" if version >= bound else "0" for bound in sorted(bounds)}
    flags = {name for name in _FLAG.findall(files[compat]) if not name.startswith("__")}
    header = _AT_LEAST.sub(lambda found: _SYMBOL.format(*found.groups()), files[compat])
    words = [f"-D{name}={value}" for name, value in known.items()]
    header = _run(program, words, header, compat)
    there = set(_FLAG.findall(header)) & flags
    words = [f"-{'D' if name in there else 'U'}{name}" for name in sorted(flags)]
    values = dict(_VALUE.findall(header))
    result = {}
    for name, text in files.items():
        if name != compat and name.endswith((".c", ".h")):
            for flag in there:
                # What is true does not matter to an `and`; unifdef leaves it there.
                text = text.replace(f"defined({flag}) && ", "")
            text = _run(program, words, text, name)
            for macro, value in values.items():
                text = re.sub(rf"\b{macro}\b", value.strip(), text)
        result[name] = text
    result[compat] = _rest(header, flags, set(values))
    if "#define" not in result[compat].replace("#define __", ""):
        del result[compat]
        line = f'#include "{compat.rpartition("/")[2]}"\n'
        result = {name: text.replace(line, "") for name, text in result.items()}
    _drop_unused(files, result)
    for name, text in result.items():
        left = re.search(r"\b(?:LINUX_VERSION_CODE|" + "|".join(flags or {"-"}) + r")\b", text)
        if left:
            raise UserError(f"{name}: {left[0]} is left, and unifdef cannot resolve it")
    return result


def _run(program: Path, words: list[str], text: str, name: str) -> str:
    done = run([program, *words], cwd=Path("/"), stdin=text, check=False, timeout=_LIMIT)
    # 1 is what it says if it changed something.
    if done.returncode not in (0, 1):
        raise UserError(f"{name}: {done.stderr.strip() or 'unifdef failed'}")
    return done.output


def _rest(header: str, flags: set[str], values: set[str]) -> str:
    """Return what the header still has to say: no symbols, no values, no comments on them."""
    gone = re.compile(
        r"(?:^/\*(?:(?!\*/).)*\*/\n)?^#define (?:" + "|".join(flags | values or {"-"}) + r")\b.*\n",
        re.M,
    )
    text = gone.sub("", header)
    return re.sub(r"^#include <linux/version.h>\n\n?", "", text, flags=re.M)


def _drop_unused(before: Mapping[str, str], after: dict[str, str]) -> None:
    """Leave out what was included by something, and is included by nothing any more."""

    def included(files: Mapping[str, str]) -> set[str]:
        return {
            f"{name.rpartition('/')[0]}/{each}"
            for name, text in files.items()
            for each in _INCLUDE.findall(text)
        }

    once = included(before)
    while gone := [name for name in after if name in once and name not in included(after)]:
        for name in gone:
            del after[name]
