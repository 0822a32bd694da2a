# SPDX-License-Identifier: GPL-2.0-only
"""Split a source file into statements, without comments, braces, layout and ``#if 0``.

Each statement has its lines and its function.  Files that are not C are split by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

_C = {".c", ".h", ".S", ".dts", ".dtsi", ".rs"}
_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?(?:\*/|\Z)|//[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<word>[A-Za-z_]\w*)
      | (?P<number>\d[\w.]*|'(?:\\.|[^'\\\n])+')
      | (?P<directive>(?m:^)[ \t]*\#[ \t]*(?:\\\n|/\*.*?\*/|[^\n])*)
      | (?P<operator>->|<<=|>>=|\+\+|--|<<|>>|[-+*/%&|^<>=!]=|&&|\|\||\.\.\.|[^\s\w])
      | (?P<newline>\n)""",
    re.VERBOSE | re.DOTALL,
)
# The end of a function, where usually no block is open.
_CUT = re.compile(r"^\}[^\n]*\n", re.MULTILINE)
#: The most ends to try before the rest of the file becomes one piece.
_TRIES = 20
_WORDS = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|[^\s\w]")
_HEADS = {"if", "for", "while", "switch"}
_IF = re.compile(r"#\s*(if|ifdef|ifndef|else|elif|endif)\b\s*(.*)", re.DOTALL)
#: Tokens that end or group statements.
_SILENT = {"(", ")", "{", "}", ";", ","}
_BINDING = {"!", "~", "/", "%", "-"}


@dataclass(frozen=True)
class Statement:
    """A statement, a declaration, a preprocessor line or the head of a block.

    :ivar tokens: without brackets and its end; a string is split into words.
    :ivar first: its first line, from 1.
    :ivar last: its last line.
    :ivar scope: name of the function, struct or Kconfig symbol it is in; empty at file level.
    :ivar raw: all tokens, with brackets and whole strings.
    """

    tokens: tuple[str, ...]
    first: int
    last: int
    scope: str
    raw: tuple[str, ...] = ()


def split(path: str, data: bytes) -> list[Statement]:
    """Split a file; *path* gives the language."""
    text = data.decode("utf-8", "replace")
    return list(_split_c(text) if PurePosixPath(path).suffix in _C else _split_lines(text))


@dataclass(frozen=True)
class _Piece:
    """The statements of a piece of a C file, and the state of a `_Splitter` at its end."""

    statements: tuple[Statement, ...]
    off: tuple[bool, ...]
    whole: bool


def _split_c(text: str) -> Iterator[Statement]:
    """Split a C file by pieces, which are cached, as versions of a file share most of them."""
    ends = [*(match.end() for match in _CUT.finditer(text)), len(text)]
    start, line, tries = 0, 0, 0
    off: tuple[bool, ...] = ()
    for end in ends:
        if tries > _TRIES and end < len(text):
            continue
        piece = _split_piece(text[start:end], off)
        if not piece.whole and end < len(text):
            tries += 1
            continue
        for each in piece.statements:
            yield Statement(each.tokens, each.first + line, each.last + line, each.scope, each.raw)
        line += text.count("\n", start, end)
        start, off, tries = end, piece.off, 0


@lru_cache(maxsize=1 << 15)
def _split_piece(text: str, off: tuple[bool, ...]) -> _Piece:
    splitter = _Splitter(text, off)
    statements = tuple(splitter.run())
    return _Piece(statements, splitter.off, splitter.whole)


def _split_lines(text: str) -> Iterator[Statement]:
    scope = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"(?:^|\s)#.*", "", line)
        match = re.match(r"(?:menu)?config (\w+)$|([\w.-]+)\(\)|(\w[\w.-]*):", bare)
        if match:
            scope = match[1] or match[2] or match[3]
        tokens = tuple(token for token in _WORDS.findall(bare) if token not in _SILENT)
        if tokens:
            yield Statement(tokens, number, number, scope)


class _Splitter:
    """Goes over the tokens of a piece of a C file; *whole*: only an #if is open at its end."""

    def __init__(self, text: str, off: Sequence[bool] = ()) -> None:
        self.whole = False
        self._text = text
        self._line = 1
        self._parens = 0
        self._depth = 0
        self._scope = ""
        self._raw: list[str] = []
        self._first = 0
        self._last = 0
        self._off = list(off)  # for each #if that is open: whether it is off

    @property
    def off(self) -> tuple[bool, ...]:
        return tuple(self._off)

    def run(self) -> Iterator[Statement]:
        token = ""
        for match in _TOKEN.finditer(self._text):
            kind, token = match.lastgroup or "", match[0]
            column = match.start() - (self._text.rfind("\n", 0, match.start()) + 1)
            if kind == "directive":
                if self._parens == 0:
                    yield from self._end()
                yield from self._directive(token)
            elif kind not in ("comment", "newline") and not any(self._off):
                yield from self._take(token, column)
            self._line += token.count("\n")
        self.whole = not (self._raw or self._depth or self._parens or self._scope)
        # A comment or a macro may continue in the next piece.
        self.whole &= token == "\n"
        yield from self._end()

    def _directive(self, text: str) -> Iterator[Statement]:
        bare = re.sub(r"/\*.*?\*/|//.*|\\\n", " ", text.strip(), flags=re.DOTALL)
        match = _IF.match(bare)
        if match and match[1] in ("if", "ifdef", "ifndef"):
            self._off.append(match[1] == "if" and match[2].strip() == "0")
        elif match and match[1] in ("else", "elif") and self._off:
            self._off[-1] = False  # Also after `#if 1`, which the kernel does not use.
        elif match and self._off:
            self._off.pop()
        if not any(self._off):
            tokens = tuple(token for token in _WORDS.findall(bare) if token not in _SILENT)
            last = self._line + text.count("\n")
            yield Statement(tokens, self._line, last, self._scope)

    def _take(self, token: str, column: int) -> Iterator[Statement]:
        if token == "}" and column == 0:
            # The end of a function, even if an #ifdef unbalanced the braces.
            self._depth, self._parens = 1, 0
        if self._parens == 0 and token in ("{", "}", ";", ","):
            yield from self._punctuate(token)
            return
        if not self._raw:
            self._first = self._line
        self._raw.append(token)
        self._last = self._line
        if token == "(":
            self._parens += 1
        elif token == ")":
            self._parens = max(0, self._parens - 1)
            if self._parens == 0 and self._raw[0] in _HEADS:
                yield from self._end()
        elif token == "else" and len(self._raw) == 1:
            self._raw = []
        elif token == ":" and self._is_label():
            yield from self._end()

    def _is_label(self) -> bool:
        if self._parens or "?" in self._raw or not self._depth:
            return False
        return len(self._raw) == 2 or self._raw[0] in ("case", "default")

    def _punctuate(self, token: str) -> Iterator[Statement]:
        if token == "{" and self._depth == 0:
            scope = _scope(self._raw)
            if scope:
                self._scope = scope
        yield from self._end()
        if token == "{":
            self._depth += 1
        elif token == "}":
            self._depth = max(0, self._depth - 1)
            if self._depth == 0:
                self._scope = ""

    def _end(self) -> Iterator[Statement]:
        tokens = significant(self._raw)
        if tokens:
            yield Statement(tokens, self._first, self._last, self._scope, tuple(self._raw))
        self._raw = []


def significant(raw: Sequence[str]) -> tuple[str, ...]:
    """Return the tokens with a meaning, and strings split into words."""
    found: list[str] = []
    for at, token in enumerate(raw):
        if token.startswith('"'):
            found += [f'"{word}' for word in _WORDS.findall(token) if word != '"']
        elif token == "(" and at and raw[at - 1] in _BINDING:
            found.append(token)  # Here a bracket changes the meaning.
        elif token not in _SILENT:
            found.append(token)
    return tuple(found)


def _scope(raw: Sequence[str]) -> str:
    """Return the name of a block at file level: of a function, a struct or a variable."""
    if "(" in raw and "=" not in raw[: raw.index("(")]:
        return raw[raw.index("(") - 1] if raw.index("(") else ""
    words = [token for token in raw if re.fullmatch(r"\w+", token)]
    if words[:1] in (["struct"], ["union"], ["enum"]) and len(words) > 1:
        return " ".join(words[:2])
    if "=" in raw:
        before = [token for token in raw[: raw.index("=")] if re.fullmatch(r"[A-Za-z_]\w*", token)]
        return before[-1] if before else ""
    return ""
