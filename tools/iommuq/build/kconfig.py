# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments, and why a symbol that they ask for is not set in a ``.config``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.bases.dotconfig import malformed, missing, parse
from iommuq.system import files
from iommuq.system.errors import CommandFailed, UserError, VerdictError
from iommuq.system.run import run

_TOKEN = re.compile(r'"[^"]*"|\w+|&&|\|\||!=|[=!()<>]+')
_VALUES = ("n", "m", "y")
#: Limit of nested Kconfig files.
_DEPTH = 10


@dataclass(frozen=True)
class Unmet:
    """A symbol that was not set as asked.

    :ivar name: without ``CONFIG_``.
    :ivar where: file and line of its definition; empty without one.
    :ivar depends: its unmet dependencies, with the values found.
    """

    name: str
    where: str
    depends: tuple[str, ...]


def explain(tree: Path, names: Iterable[str], got: dict[str, str]) -> list[Unmet]:
    """Return the unmet dependencies of symbols, one entry each.

    :param tree: kernel source tree.
    :param names: symbols, without ``CONFIG_``.
    :param got: the symbols of the resulting ``.config``.
    """
    found = []
    for name in names:
        place = _grep(tree, rf"^[[:space:]]*(menu)?config[[:space:]]+{name}[[:space:]]*$")
        depends = []
        for expression in dict.fromkeys(_conditions(tree, *place) if place else ()):
            if not is_met(expression, got):
                symbols = dict.fromkeys(filter(_is_symbol, _TOKEN.findall(expression)))
                state = ", ".join(f"{symbol}={got.get(symbol, 'n')}" for symbol in symbols)
                depends.append(f"{expression} ({state})")
        where = f"{place[0]}:{place[1]}" if place else ""
        found.append(Unmet(name, where, tuple(depends)))
    return found


def _grep(tree: Path, pattern: str) -> tuple[str, int] | None:
    """Return file and line number of the first match in a tree's Kconfig files."""
    words = ["grep", "-rnE", "--include=Kconfig*", "--", pattern, "."]
    try:
        first = run(words, cwd=tree, timeout=120).output.splitlines()[0]
    except (CommandFailed, IndexError):
        return None
    file, number, _ = first.removeprefix("./").split(":", 2)
    return file, int(number)


def _conditions(tree: Path, file: str, number: int, depth: int = 0) -> Iterator[str]:
    """Yield the dependencies of the entry at a line, then those of its enclosing blocks."""
    text = (tree / file).read_text(errors="replace")
    # Join continuation lines; line numbers are kept.
    joined = re.sub(
        r"(?:[^\n]*\\\n)+[^\n]*",
        lambda match: re.sub(r"\\\n\s*", "", match[0]) + "\n" * match[0].count("\n"),
        text,
    )
    lines = list(_without_help(joined))
    yield from _depends(lines, number)
    blocks: list[list[str]] = []
    for index, line in enumerate(lines[: number - 1], 1):
        word = line.partition(" ")[0]
        if word == "if":
            blocks.append([line.removeprefix("if ").strip()])
        elif word in ("menu", "choice"):
            blocks.append(list(_depends(lines, index)))
        elif word in ("endif", "endmenu", "endchoice") and blocks:
            blocks.pop()
    for block in reversed(blocks):
        yield from block
    source = _grep(tree, rf'^[[:space:]]*source[[:space:]]+"{re.escape(file)}"')
    if source is not None and depth < _DEPTH:
        yield from _conditions(tree, *source, depth + 1)


def _without_help(text: str) -> Iterator[str]:
    """Yield the lines of a file, with empty lines for help texts."""
    # A help text has at least the indentation of its first line.
    wanted: int | None = None
    inside = False
    for line in text.expandtabs().splitlines():
        word = line.strip()
        indent = len(line) - len(line.lstrip())
        if inside and wanted is None and word:
            wanted = indent
        inside = inside and (not word or indent >= (wanted or 1))
        yield "" if inside else word
        if not inside:
            inside, wanted = word == "help", None


def _depends(lines: list[str], number: int) -> Iterator[str]:
    """Yield each ``depends on`` of the entry at a line."""
    ends = r"(?:menu)?config\b|menu\b|choice\b|if |end|source\b|comment\b|help$"
    for line in lines[number:]:
        if re.match(ends, line):
            return
        if line.startswith("depends on "):
            yield line.removeprefix("depends on ").strip()


def _is_symbol(word: str) -> bool:
    return word.isidentifier() and word not in _VALUES


def is_met(expression: str, got: dict[str, str]) -> bool:
    """Tell whether a Kconfig expression is ``y`` or ``m``; False if it cannot be parsed.

    :param got: symbols and their values; missing ones are ``n``.
    """
    tokens = _TOKEN.findall(expression)

    def value(word: str) -> str:
        return got.get(word, "n") if _is_symbol(word) else word.strip('"')

    def chain(sign: str, choose: Callable[[int, int], int], part: Callable[[], int]) -> int:
        left = part()
        while tokens[:1] == [sign]:
            tokens.pop(0)
            left = choose(left, part())
        return left

    def either() -> int:
        return chain("||", max, lambda: chain("&&", min, single))

    def single() -> int:
        word = tokens.pop(0)
        if word == "!":
            return 2 - single()
        if word == "(":
            inner = either()
            tokens.pop(0)
            return inner
        if tokens[:1] in (["="], ["!="]):
            sign, other = tokens.pop(0), tokens.pop(0)
            return 2 if (value(word) == value(other)) is (sign == "=") else 0
        return _VALUES.index(value(word)) if value(word) in _VALUES else 0

    try:
        return either() > 0 and not tokens
    except IndexError:
        return False


def check(tree: Path, wanted: dict[str, str], config: Path) -> None:
    """Check that a ``.config`` has all symbols as asked.

    :raises VerdictError: names each other symbol, and its unmet dependencies.
    """
    got = parse(config.read_text())
    lost = missing(wanted, got)
    if not lost:
        return
    words = []
    for unmet in explain(tree, lost, got):
        asked = f"CONFIG_{unmet.name}={lost[unmet.name]}"
        if not unmet.where:
            words.append(f"{asked}: no such symbol in this tree")
        elif unmet.depends and lost[unmet.name] != "n":
            words.append(f"{asked} ({unmet.where}) needs {'; '.join(unmet.depends)}")
        else:
            is_now = got.get(unmet.name, "n")
            words.append(f"{asked} ({unmet.where}): other symbols make it {is_now}")
    raise VerdictError("not configured as asked: " + " | ".join(words))


@dataclass(frozen=True)
class Fragments:
    """Kconfig fragments, read once: later edits do not change a run.

    :ivar texts: contents, in the order of merging.
    :ivar variant: name of the build directory of other fragments than the usual ones.
    :ivar tiny: start from tinyconfig, not from the defaults of Kconfig like kunit.py.
    :ivar every: start from allmodconfig; such a kernel is never built completely.
    :ivar make_args: further arguments of make, such as ``W=1``.
    :ivar optional: the content of a fragment whose symbols a tree may lack; all others
        override it.
    """

    texts: tuple[str, ...]
    variant: str = ""
    tiny: bool = False
    make_args: tuple[str, ...] = ()
    every: bool = False
    optional: str = ""

    @classmethod
    def read(
        cls,
        *paths: Path,
        variant: str = "",
        tiny: bool = False,
        every: bool = False,
        optional: Path | None = None,
    ) -> Fragments:
        """Read fragments from files.

        :param optional: the file of symbols that a tree may lack.
        :raises UserError: one of them is missing or malformed.
        """
        texts = tuple(_read_fragment(path) for path in paths)
        may_lack = "" if optional is None else _read_fragment(optional)
        return cls(texts, variant, tiny, every=every, optional=may_lack)

    @property
    def key(self) -> str:
        """A hash of the symbols and options, without comments."""
        words = [self.tiny, *(parse(text) for text in self.texts), *self.make_args]
        if self.every:
            words.append("allmodconfig")
        if self.optional:
            words.append(["optional", parse(self.optional)])
        return files.hash_of(json.dumps(words))

    def with_warnings(self) -> Fragments:
        """Return the same fragments, to be built with ``W=1``."""
        variant = "-".join(filter(None, (self.variant, "w1")))
        return replace(self, variant=variant, make_args=(*self.make_args, "W=1"))

    @property
    def wanted(self) -> dict[str, str]:
        """The merged symbols; a later fragment overrides an earlier one."""
        return {name: value for text in self.texts for name, value in parse(text).items()}

    def wanted_of(self, tree: Path) -> dict[str, str]:
        """Return `wanted`, with the optional symbols that a kernel source tree has."""
        optional = parse(self.optional)
        known = defined(tree, optional) if optional else frozenset()
        return {name: value for name, value in optional.items() if name in known} | self.wanted


def defined(tree: Path, names: Iterable[str]) -> frozenset[str]:
    """Return which symbols, without ``CONFIG_``, the Kconfig files of a tree define."""
    pattern = rf"^[[:space:]]*(menu)?config[[:space:]]+({'|'.join(names)})[[:space:]]*$"
    argv = ["grep", "-rhE", "--include=Kconfig*", "--", pattern, "."]
    said = run(argv, cwd=tree, timeout=120, check=False).output
    return frozenset(line.split()[-1] for line in said.splitlines() if line.strip())


def _read_fragment(path: Path) -> str:
    text = files.read_text(path, hint="required to configure a kernel")
    number = malformed(text)
    if number is not None:
        raise UserError(
            f"{path}:{number}: not a line of a configuration",
            hint="use CONFIG_X=value, # CONFIG_X is not set, or a comment",
        )
    return text
