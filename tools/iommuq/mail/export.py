# SPDX-License-Identifier: GPL-2.0-only
"""Make in-tree patches of the suites, as ``export.toml`` in their folder describes.

The kernel's own ``scripts/unifdef`` removes code for other kernels (see `resolve`).  Sources
that include each other become one (see `joined`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iommuq.queue.inserts import Insert
from iommuq.queue.overlay import Layer, Overlay
from iommuq.system import tables
from iommuq.system.errors import InfraError, UserError, VerdictError, os_errors_as
from iommuq.system.files import cache_dir, write_whole
from iommuq.system.git.objects import Objects
from iommuq.system.run import run
from iommuq.system.tables import Table, require
from iommuq.system.toolchain import compiled

#: The file name of the descriptions, and the folders of the project that may have one.
NAME = "export.toml"
FOLDERS = ("kunit", "selftests")

_AT_LEAST = re.compile(r"LINUX_VERSION_CODE\s*>=\s*KERNEL_VERSION\((\d+),\s*(\d+),\s*(\d+)\)")
_SYMBOL = "IOMMUQ_AT_LEAST_{}_{}_{}"
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)
_PART = re.compile(r'^#include "(\w+\.c)"\n', re.M)
#: The top of a source: SPDX line, comment, and headers, of which there may be none.
_TOP = re.compile(
    r"\A(?://[^\n]*\n)?((?:/\*(?:(?!\*/).)*\*/\n)?\n*)((?:#include [^\n]*\n|\n)*)", re.S
)
_HEADER = re.compile(r'^#include (?:<[^>\n]+>|"[^"\n]+\.h")\n', re.M)
_FLAG = re.compile(r"^\s*#define\s+(\w+)\s*$", re.M)
_VALUE = re.compile(r"^\s*#define\s+(\w+)[ \t]+\(?([^()\n]+)\)?[ \t]*$", re.M)
_LIMIT = 60.0


@dataclass(frozen=True)
class Export(Table):
    """The description of a patch made of suites.

    :ivar message: the commit message below the subject.
    :ivar needs: sections of the queue that must be applied; if the queue lacks one, no
        patch is made.
    :ivar compat: the header with the differences between kernels, as a path in the tree.
    :ivar overlay: export the overlay in the same folder.
    """

    subject: str
    message: str
    needs: tuple[str, ...] = ()
    compat: str = ""
    overlay: bool = False
    insert: tuple[Insert, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.subject.strip()) and "\n" not in self.subject, "needs a subject")
        require(self.overlay != bool(self.insert), "needs either overlay or insert")


def load_exports(root: Path) -> list[tuple[Path, Export]]:
    """Read the descriptions, each with its folder.

    :param root: the checkout of the project.
    :raises UserError: one is malformed.
    """
    paths = [root / folder / NAME for folder in FOLDERS]
    return [(path.parent, tables.load_toml(Export, path)) for path in paths if path.is_file()]


def lay(
    store: Objects, tree: str, folder: Path, export: Export, overlay: Overlay, kernel: str
) -> str:
    """Add the suites to a tree, and return the new tree.

    :param folder: of the description.
    :param overlay: the files added to trees for testing.
    :param kernel: the release of the tree, ``6.12.117``.
    :raises VerdictError: the suites do not fit the tree.
    """
    if export.overlay:
        files = {name: data.decode() for name, data, _ in overlay.files}
        hooks = overlay.hooks
    else:
        files, hooks = {}, ()
    if export.compat:
        if export.compat not in files:
            raise UserError(f"{folder / NAME}: {export.compat} is not an exported file")
        files = resolve(files, export.compat, kernel, unifdef(store, tree))
    files = joined(files)
    listed = tuple((name, text.encode(), "100644") for name, text in sorted(files.items()))
    laid = Layer(Overlay(listed, hooks), store).over(tree, "the tree")
    return _insert(store, laid, folder, export)


def _insert(store: Objects, tree: str, folder: Path, export: Export) -> str:
    for each in export.insert:
        data = store.read_file(tree, each.file)
        if data is None:
            raise VerdictError(f"{folder / NAME}: there is no {each.file} in the tree")
        text = each.into(data.decode("utf-8", "surrogateescape"), folder)
        (blob,) = store.write_blobs([text.encode("utf-8", "surrogateescape")])
        tree = store.replace(tree, {each.file: f"100644 blob {blob}"})
    return tree


def unifdef(store: Objects, tree: str) -> Path:
    """Compile the kernel's unifdef, and return the program.

    :raises VerdictError: the tree has none.
    """
    source = store.read_file(tree, "scripts/unifdef.c")
    if source is None:
        raise VerdictError("no scripts/unifdef.c in the tree: tests cannot be exported")
    where = cache_dir() / "unifdef" / hashlib.sha256(source).hexdigest()
    if not where.exists():
        with os_errors_as(InfraError, where):
            where.mkdir(parents=True)
            write_whole(where / "unifdef.c", source)
    return compiled(where / "unifdef", ("-O1",), [where / "unifdef.c"])


def resolve(files: Mapping[str, str], compat: str, kernel: str, program: Path) -> dict[str, str]:
    """Remove code for other kernels from sources.

    The header defines symbols without a value, and macros, by kernel version.  A macro with
    a plain value is replaced by it.  If nothing else is left in the header, it is dropped,
    and so are files that are no longer included.

    :param files: path -> content.
    :param compat: the path of the header.
    :param kernel: a release, ``6.12.117``.
    :param program: unifdef.
    :raises UserError: unifdef cannot resolve a symbol.
    """
    version = (*(int(part) for part in re.findall(r"\d+", kernel)), 0, 0)[:3]
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
                # unifdef does not remove a true operand of `&&`.
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
            raise UserError(f"{name}: unifdef cannot resolve {left[0]}")
    return result


def _run(program: Path, words: list[str], text: str, name: str) -> str:
    done = run([program, *words], cwd=Path("/"), stdin=text, check=False, timeout=_LIMIT)
    # Exit status 1: the text was changed.
    if done.returncode not in (0, 1):
        raise UserError(f"{name}: {done.stderr.strip() or 'unifdef failed'}")
    return done.output


def _rest(header: str, flags: set[str], values: set[str]) -> str:
    """Return the header without symbols and values, and their comments."""
    gone = re.compile(
        r"(?:^/\*(?:(?!\*/).)*\*/\n)?^#define (?:" + "|".join(flags | values or {"-"}) + r")\b.*\n",
        re.M,
    )
    text = gone.sub("", header)
    return re.sub(r"^#include <linux/version.h>\n\n?", "", text, flags=re.M)


def _drop_unused(before: Mapping[str, str], after: dict[str, str]) -> None:
    """Drop files that were included before, and are no longer."""

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


def joined(files: Mapping[str, str]) -> dict[str, str]:
    """Put sources in the place where another one includes them.

    What is left is one source for each that the kernel includes or compiles.  The headers of
    all come first; a comment at the top of a part stays above it.

    :param files: path -> content; parts are in the folder of the source that includes them.
    :raises UserError: a source includes itself, or one that there is not.
    """
    parts = {
        f"{name.rpartition('/')[0]}/{part}"
        for name, text in files.items()
        for part in _PART.findall(text)
    }
    result = {}
    placed: set[str] = set()
    for name, text in files.items():
        if name in parts:
            continue
        result[name] = text
        if _PART.search(text):
            headers: set[str] = set()
            result[name] = _topped(_with_parts(name, files, headers, placed), headers)
    if left := parts & set(files) - placed:
        raise UserError(f"{min(left)}: includes itself")
    return result


def _topped(text: str, headers: set[str]) -> str:
    """Return a source with headers below the comment at its top."""
    top = _TOP.match(text)
    assert top is not None  # Everything in it is optional.
    lines = "".join(sorted(headers, key=lambda line: ('"' in line, line)))
    text = f"{text[: top.end(1)].rstrip()}\n{lines}\n{text[top.end() :].lstrip()}"
    return re.sub(r"\n{3,}", "\n\n", text)


def _with_parts(name: str, files: Mapping[str, str], headers: set[str], placed: set[str]) -> str:
    """Return a source with its parts in it, and collect the headers at the top of each."""
    text = files[name]
    top = _TOP.match(text)
    assert top is not None  # Everything in it is optional.
    headers |= set(_HEADER.findall(top[2]))

    def part(found: re.Match[str]) -> str:
        inner = f"{name.rpartition('/')[0]}/{found[1]}"
        if inner not in files or inner in placed:
            why = "included twice" if inner in files else "not exported"
            raise UserError(f"{name}: {inner} is {why}")
        placed.add(inner)
        text = _with_parts(inner, files, headers, placed)
        # Its SPDX line is that of the whole.
        return "\n" + re.sub(r"\A//[^\n]*\n", "", text).strip("\n") + "\n"

    body = _HEADER.sub("", top[2]) + text[top.end() :]
    return text[: top.end(1)] + _PART.sub(part, body)
