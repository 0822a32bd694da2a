# SPDX-License-Identifier: GPL-2.0-only
"""A file for comparison: its statements, their counts and weights.

Statements have no comments, braces, layout and ``#if 0``.  Each has its lines and its function.
Files that are not C are split by line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
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
_LOG = re.compile(r"(?:dev|pr|netdev|pci)_(?:warn|err|info|dbg|notice|crit)|printk")
_WORD = re.compile(r"[A-Za-z_]\w*")
# Words that are common in every file.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """if else for while do switch case default break continue return goto static inline
        const struct union enum int unsigned long short char void bool true false NULL sizeof
        extern u8 u16 u32 u64 ret err dev i out""",
    )
)


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


@dataclass(frozen=True)
class View:
    """A file: its path and its content."""

    path: str
    data: bytes

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """All statements, in order."""
        return tuple(split(self.path, self.data))

    @cached_property
    def lines(self) -> tuple[bytes, ...]:
        """Its lines, each run of blanks as one."""
        return tuple(map(squeeze, self.data.split(b"\n")))

    @cached_property
    def scopes(self) -> frozenset[str]:
        """The names of its functions and structures."""
        return frozenset(each.scope for each in self.statements)

    @cached_property
    def counts(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """The number of each statement in each scope."""
        return Counter((each.scope, each.tokens) for each in self.statements)

    @cached_property
    def totals(self) -> Counter[tuple[str, ...]]:
        """The number of each statement."""
        return Counter(each.tokens for each in self.statements)

    @cached_property
    def tokens(self) -> Counter[str]:
        """The number of each token."""
        return Counter(token for each in self.statements for token in each.tokens)

    @cached_property
    def calls(self) -> frozenset[tuple[str, str]]:
        """Pairs of a scope and a word that is used in it."""
        pairs = ((each.scope, token) for each in self.statements for token in each.tokens)
        return frozenset(pair for pair in pairs if is_word(pair[1]))

    def in_scope(self, scope: str) -> list[Statement]:
        """Return the statements of a function."""
        return [each for each in self.statements if each.scope == scope]

    def find(self, block: Sequence[bytes]) -> list[int]:
        """Return the lines, from 1, where a block of lines begins."""
        wanted = tuple(map(squeeze, block))
        if not any(wanted):
            return []
        return [
            at + 1
            for at in range(len(self.lines) - len(wanted) + 1)
            if self.lines[at] == wanted[0] and self.lines[at : at + len(wanted)] == wanted
        ]


def squeeze(line: bytes) -> bytes:
    """Return a line with each run of blanks as one."""
    return b" ".join(line.split())


@cache
def is_word(token: str) -> bool:
    """Return whether a token is a name or a keyword."""
    return _WORD.fullmatch(token) is not None


@cache
def words(tokens: tuple[str, ...]) -> frozenset[str]:
    """Return the words of a statement that are not common in every file."""
    return frozenset(token for token in tokens if is_word(token)) - _COMMON


class Scale:
    """Weighs tokens: the rarer a token is in the file, the more it weighs."""

    def __init__(self, before: View) -> None:
        self._counts = before.tokens
        self._parts = Counter(part for token in before.tokens for part in set(token.split("_")))
        self._rare: dict[str, frozenset[str]] = {}
        self._known: dict[tuple[str, ...], float] = {}

    def token(self, token: str) -> float:
        """Return the weight of a token."""
        if token.startswith('"'):
            return 0.3 if token[1:].isalpha() else 0.1
        if not is_word(token):
            return 0.2 if not token[0].isdigit() or token in "01" else 1.0
        if token in _COMMON:
            return 0.3
        count = self._counts[token]
        return 4.0 if count == 0 else 3.0 if count <= 2 else 2.0 if count <= 10 else 1.0

    def is_new(self, token: str) -> bool:
        """Return whether the file before the patch lacks a token."""
        return self._counts[token] == 0

    def rare_parts(self, name: str) -> frozenset[str]:
        """Return the parts of a name that are in few names of the file."""
        if name not in self._rare:
            parts = name.split("_")
            self._rare[name] = frozenset(p for p in parts if p and self._parts[p] <= 4)
        return self._rare[name]

    def statement(self, tokens: tuple[str, ...]) -> float:
        """Return the weight of a statement."""
        if tokens not in self._known:
            # Log messages are often reworded.
            factor = 0.3 if _LOG.match(tokens[0]) else 1.0
            self._known[tokens] = factor * sum(map(self.token, tokens))
        return self._known[tokens]

    def is_telling(self, tokens: tuple[str, ...]) -> bool:
        """Return whether a statement is rare enough to be recognized in any place."""
        return self.statement(tokens) >= 3.5 and any(
            self.token(token) >= 3.0 for token in tokens if is_word(token)
        )


def write_out(view: View, known: frozenset[str]) -> tuple[View, dict[str, set[str]]]:
    """Inline the functions that only return an expression.

    :param known: functions to keep.
    :return: the changed file, and for each inlined function the scopes of its callers.
    """
    bodies: dict[str, tuple[list[str], tuple[str, ...]]] = {}
    for scope in view.scopes - known - {""}:
        inside = view.in_scope(scope)
        if len(inside) == 2 and inside[1].raw[:1] == ("return",) and scope in inside[0].raw:
            bodies[scope] = (_parameters(inside[0].raw), inside[1].raw[1:])
    if not bodies:
        return view, {}
    used: dict[str, set[str]] = {}
    statements = []
    for each in view.statements:
        raw = each.raw
        for name in [name for name in bodies if name in raw and name != each.scope]:
            raw = _expand(raw, name, *bodies[name])
            used.setdefault(name, set()).add(each.scope)
        statements.append(
            replace(each, raw=raw, tokens=significant(raw)) if raw != each.raw else each
        )
    if not used:
        return view, {}
    other = View(view.path, view.data)
    # Preset the cached_property.
    other.__dict__["statements"] = tuple(each for each in statements if each.scope not in used)
    return other, used


def _arguments(raw: Sequence[str], at: int) -> tuple[list[tuple[str, ...]], int]:
    """Return the arguments in the bracket at *at*, and the place of its closing bracket."""
    depth = 0
    found: list[list[str]] = [[]]
    for end in range(at, len(raw)):
        token = raw[end]
        depth += (token in "([") - (token in ")]")
        if depth == 0:
            return [tuple(each) for each in found if each], end
        if token == "," and depth == 1:
            found.append([])
        elif end > at:
            found[-1].append(token)
    return [], len(raw) - 1


def _parameters(raw: Sequence[str]) -> list[str]:
    arguments, _ = _arguments(raw, raw.index("(")) if "(" in raw else ([], 0)
    return [next((token for token in reversed(each) if is_word(token)), "") for each in arguments]


def _expand(
    raw: tuple[str, ...], name: str, parameters: list[str], body: tuple[str, ...]
) -> tuple[str, ...]:
    out: list[str] = []
    at = 0
    while at < len(raw):
        if raw[at] == name and raw[at + 1 : at + 2] == ("(",):
            arguments, end = _arguments(raw, at + 1)
            values = dict(zip(parameters, arguments, strict=False))
            out.append("(")
            for token in body:
                out += values.get(token, (token,))
            out.append(")")
            at = end + 1
        else:
            out.append(raw[at])
            at += 1
    return tuple(out)
