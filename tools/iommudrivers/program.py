# SPDX-License-Identifier: GPL-2.0-only
"""The sources of the drivers: which file has which function, macro and variable.

Files are parsed at first use; a search of their text shows which files may define a name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tree_sitter import Node

from iommuq.queue import csource
from iommuq.queue.csource import Function, Source, descend

# The grammar takes these for a part of the name beside them.
_ATTRIBUTE = re.compile(
    rb"\b__free\(\w+\)|\b(?:__user|__iomem|__maybe_unused|__init|__exit|__always_unused|__percpu"
    rb"|__must_check|__cold|__ref|__initdata|__ro_after_init|__read_mostly|__rcu"
    rb"|__force|__(?:acquires|releases|must_hold|printf|counted_by)\([\w&>.,-]*\))(?!\w)"
)
# A type in the arguments of a macro such as container_of(): the grammar expects names.
_TAG = re.compile(rb"(?<=[(,])(\s*)(?:struct|union|enum)(?=\s+\w+\s*[,)])")
_UNSIGNED = re.compile(rb"(?<=[(,])unsigned (?:long|int)(?=\s*,)")
_TYPEOF = re.compile(rb"\btypeof\((?:[^()\n]|\([^()\n]*\))*\)(?=\s+\w+\s*[=;])")
_DEFINES = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
_BEGINS = re.compile(rb"^(?:[A-Za-z_][^\n;={}()#/]*[ \t*])?(\w+)[ \t]*\(", re.MULTILINE)
_DIRECTIVE = re.compile(rb"^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", re.MULTILINE)
_INITIALISER = re.compile(rb"^[^\n#{}();]*=[ \t]*\{.*?^\}", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
_CONSTANT = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class Macro:
    """A macro.

    :ivar parameters: None if it is used without parentheses.
    :ivar body: its replacement text.
    """

    name: str
    parameters: tuple[str, ...] | None
    body: bytes
    line: int


@dataclass(frozen=True)
class Definition:
    """A function and its file."""

    unit: Unit
    function: Function


@dataclass(frozen=True)
class Variable:
    """A variable with an initialiser.

    :ivar node: the value.
    """

    unit: Unit
    name: str
    kind: str
    node: Node
    line: int


class Unit:
    """A file, parsed."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path = path
        self.text = text
        self.source: Source = csource.parse(_plain(text))

    @cached_property
    def functions(self) -> Mapping[str, list[Function]]:
        """Its functions; two of a name for two branches of an ``#ifdef``."""
        found: dict[str, list[Function]] = {}
        for function in self.source.functions:
            found.setdefault(function.name, []).append(function)
        return found

    @cached_property
    def macros(self) -> Mapping[str, Macro]:
        """Its macros, the last of each name."""
        found = {}
        for node in descend(self.source.root):
            if node.type not in ("preproc_def", "preproc_function_def"):
                continue
            name, value = (node.child_by_field_name(each) for each in ("name", "value"))
            if name is None:
                continue
            names = node.child_by_field_name("parameters")
            parameters = None
            if names is not None:
                parameters = tuple(
                    self.of(each) for each in names.named_children if each.type == "identifier"
                )
            body = _unfold(self.source.of(value)) if value is not None else b""
            found[self.of(name)] = Macro(self.of(name), parameters, body, self.line(node))
        return found

    @cached_property
    def variables(self) -> Mapping[str, Variable]:
        """Global variables with an initialiser, by name."""
        found: dict[str, Variable] = {}
        for node in _outside(self.source.root):
            if node.type != "declaration":
                continue
            kind = node.child_by_field_name("type")
            for each in node.children_by_field_name("declarator"):
                value = (
                    each.child_by_field_name("value") if each.type == "init_declarator" else None
                )
                inner = each.child_by_field_name("declarator")
                if value is None or inner is None or inner.type != "identifier" or kind is None:
                    continue
                name = self.of(inner)
                found[name] = Variable(self, name, self.of(kind), value, self.line(each))
        return found

    @cached_property
    def includes(self) -> tuple[str, ...]:
        """Files that it includes with a relative path."""
        folder = posixpath.dirname(self.path)
        names = (match[1].decode("utf-8", "replace") for match in _INCLUDE.finditer(self.text))
        return tuple(posixpath.normpath(posixpath.join(folder, name)) for name in names)

    def of(self, node: Node) -> str:
        """Return the text of a node."""
        return self.source.of(node).decode("utf-8", "backslashreplace")

    def words(self, node: Node) -> str:
        """Return the text of a node in one line."""
        return " ".join(self.of(node).split())

    def line(self, node: Node) -> int:
        """Return the first line of a node."""
        return node.start_point[0] + 1


class Program:
    """All files of the analysis.

    :param files: their contents by path.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._units: dict[str, Unit] = {}
        self._found: dict[tuple[str, str], tuple[Definition, ...]] = {}
        self._near: dict[str, tuple[str, ...]] = {}
        #: Files that may define a macro or a function, by a search of the text.
        self._macros = _index(files, _DEFINES)
        self._beginnings = _index(files, _BEGINS)

    def unit(self, path: str) -> Unit:
        """Return a file, parsed."""
        if path not in self._units:
            self._units[path] = Unit(path, self.files[path])
        return self._units[path]

    def driver_files(self, path: str) -> tuple[str, ...]:
        """Return the files of the driver that a file belongs to.

        A folder below ``drivers/iommu`` is a driver; what lies there by itself is one, too.
        """
        if path not in self._near:
            near: list[str] = []
            folder = posixpath.dirname(path)
            if folder.startswith("drivers/iommu/"):
                near = sorted(each for each in self.files if posixpath.dirname(each) == folder)
            self._near[path] = tuple(dict.fromkeys((path, *near, *self._included(path))))
        return self._near[path]

    def functions(self, unit: Unit, name: str) -> tuple[Definition, ...]:
        """Return what a name that is called in a file may be; nothing if it is not here.

        A function of the same file hides those of others, one in a C file the empty one
        that a header has for a kernel without it.
        """
        key = (unit.path, name)
        if key not in self._found:
            self._found[key] = self._find(unit, name)
        return self._found[key]

    def macro(self, unit: Unit, name: str) -> tuple[Unit, Macro] | None:
        """Return the macro of a name in a file."""
        candidates = self._macros.get(name, frozenset())
        for path in self._sight(unit.path) if candidates else ():
            if path in candidates and name in (other := self.unit(path)).macros:
                return other, other.macros[name]
        return None

    def variable(self, unit: Unit, name: str) -> Variable | None:
        """Return the variable of a name in a file."""
        if name in unit.variables:
            return unit.variables[name]
        pattern = re.compile(rb"\b" + name.encode() + rb"\b[^;{}]*=")
        for path in self.driver_files(unit.path):
            if pattern.search(self.files[path]) and name in self.unit(path).variables:
                return self.unit(path).variables[name]
        return None

    def _find(self, unit: Unit, name: str) -> tuple[Definition, ...]:
        own = unit.functions.get(name)
        if own:
            return tuple(Definition(unit, each) for each in own)
        candidates = self._beginnings.get(name, frozenset())
        if not candidates:
            return ()
        near = self.driver_files(unit.path)
        headers = [path for path in self._sight(unit.path) if path.endswith(".h")]
        rest = [path for path in self.files if path not in near]
        for paths, public in (
            ([path for path in near if path.endswith(".c")], True),
            ([path for path in rest if path.endswith(".c")], True),
            (headers, False),
        ):
            found = []
            for path in paths:
                if path == unit.path or path not in candidates:
                    continue
                other = self.unit(path)
                for each in other.functions.get(name, ()):
                    if not (public and _is_static(other, each)):
                        found.append(Definition(other, each))
            if found:
                return tuple(found)
        return ()

    def _included(self, path: str) -> tuple[str, ...]:
        found: list[str] = []
        waiting = [path]
        while waiting:
            for other in self.unit(waiting.pop()).includes:
                if other in self.files and other not in found and other != path:
                    found.append(other)
                    waiting.append(other)
        return tuple(found)

    def _sight(self, path: str) -> Iterator[str]:
        """Yield the files whose macros and inline functions a file may use, the nearest first."""
        near = self.driver_files(path)
        yield path
        yield from (each for each in near if each != path)
        yield from (each for each in self.files if each.startswith("include/") and each not in near)
        yield from (
            each
            for each in self.files
            if each.endswith(".h")
            and posixpath.dirname(each) == "drivers/iommu"
            and each not in near
        )


def _index(files: Mapping[str, bytes], pattern: re.Pattern[bytes]) -> dict[str, frozenset[str]]:
    """Return the files that have a match, by what the match names."""
    found: dict[str, set[str]] = {}
    for path, text in files.items():
        for match in pattern.finditer(text):
            found.setdefault(match[1].decode("utf-8", "replace"), set()).add(path)
    return {name: frozenset(paths) for name, paths in found.items()}


class NotUnderstood(Exception):
    """A node has a missing part: the parser failed."""


def part(node: Node, name: str) -> Node:
    """Return a part of a node.

    :raises NotUnderstood: there is no such part.
    """
    found = node.child_by_field_name(name)
    if found is None:
        raise NotUnderstood(f"{node.type} without {name}")
    return found


def parts(node: Node, *names: str) -> list[Node]:
    """Return parts of a node.

    :raises NotUnderstood: one is missing.
    """
    return [part(node, name) for name in names]


def is_constant(name: str) -> bool:
    """Tell whether a name is in capitals like macros and enumerators."""
    return bool(_CONSTANT.fullmatch(name))


def _plain(text: bytes) -> bytes:
    """Replace text that the grammar does not know; offsets are kept."""

    def put(word: bytes) -> Callable[[re.Match[bytes]], bytes]:
        return lambda match: word.ljust(len(match[0]))

    text = _ATTRIBUTE.sub(put(b""), text)
    text = _TAG.sub(lambda match: re.sub(rb"\w", b" ", match[0]), text)
    text = _UNSIGNED.sub(put(b"ulong"), text)
    text = _TYPEOF.sub(put(b"long"), text)
    return _INITIALISER.sub(lambda match: _without_directives(match[0]), text)


def _unfold(body: bytes) -> bytes:
    return body.replace(b"\\\n", b" \n").strip()


def _without_directives(text: bytes) -> bytes:
    """Blank the directives in an initialiser, to parse both branches."""
    return _DIRECTIVE.sub(lambda match: re.sub(rb"[^\n]", b" ", match[0]), text)


def _outside(root: Node) -> Iterator[Node]:
    """Yield the nodes outside functions."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if node.type in ("translation_unit", "ERROR") or node.type.startswith("preproc_"):
            waiting.extend(reversed(node.children))


def _is_static(unit: Unit, function: Function) -> bool:
    return any(
        child.type == "storage_class_specifier" and unit.of(child) == "static"
        for child in function.node.children
    )
