# SPDX-License-Identifier: GPL-2.0-only
"""``patches/<base>/base.toml``: the source of a kernel, and its last known version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iommuq.bases.providers import KINDS, Source
from iommuq.system import files, tables
from iommuq.system.errors import UserError
from iommuq.system.tables import Table, require

FILE = "base.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Seen(Table):
    """The last version of a source that was fetched and checked.

    :ivar version: the provider's version: a package's, a commit id, a file's name.
    :ivar sha256: of the package or archive; empty if there is no single file.
    :ivar commit: id of the commit, which depends on the files alone; may be empty.
    """

    version: str
    sha256: str = ""
    commit: str = ""

    def __post_init__(self) -> None:
        require(self.version and self.version.isprintable(), "version is malformed")
        require(re.fullmatch(r"([0-9a-f]{64})?", self.sha256), "sha256 is not 64 hex digits")
        require(re.fullmatch(r"([0-9a-f]{40})?", self.commit), "commit is not 40 hex digits")


@dataclass(frozen=True)
class BaseSpec:
    """One kernel with a patch queue.

    :ivar name: the name of its folder, like ``6.12``.
    :ivar folder: ``patches/<name>``.
    :ivar seen: the last version fetched; None before the first fetch.
    """

    name: str
    title: str
    folder: Path
    source: Source
    seen: Seen | None = None

    @property
    def path(self) -> Path:
        """The file of the base."""
        return self.folder / FILE

    @property
    def key(self) -> str:
        """A hash of the ``[source]`` table."""
        # A new key that is off changes nothing for a base in the cache.
        fields = {key: value for key, value in vars(self.source).items() if value is not False}
        # A relative path depends on the checkout; a package does not.
        local = self.source.provider != "debian" and "://" not in str(fields.values())
        text = json.dumps([fields, str(self.folder) if local else ""], sort_keys=True)
        return files.hash_of(text)


@dataclass(frozen=True)
class _Document(Table):
    name: str
    title: str
    source: dict[str, Any]
    seen: Seen | None = None


def load_spec(name: str) -> BaseSpec:
    """Read the file of the base *name*.

    :raises UserError: there is no such base, or its file is malformed.
    """
    folder = _patches() / name
    if not _NAME.fullmatch(name) or not (folder / FILE).exists():
        there = ", ".join(_names())
        raise UserError(
            f"no base {name!r}; there {'are ' + there if there else 'is none'}",
            hint="`iommuq base add` makes one",
        )
    return parse(files.read_text(folder / FILE), folder)


def list_specs() -> list[BaseSpec]:
    """Return all bases, the oldest kernel first.

    :raises UserError: one of them is malformed.
    """
    return [load_spec(name) for name in _names()]


def parse(text: str, folder: Path) -> BaseSpec:
    """Parse the text of a ``base.toml``.

    :param folder: the folder of the file.
    :raises UserError: it is malformed; names file and key.
    """
    path = folder / FILE
    document = tables.validate(_Document, tables.parse(text, path), path)
    if document.name != folder.name:
        raise UserError(f"{path}: name is {document.name!r}, but its folder is {folder.name!r}")
    provider = document.source.get("provider")
    if not isinstance(provider, str) or provider not in KINDS:
        raise UserError(
            f"{path}: source.provider is {provider!r}" if provider else f"{path}: no provider",
            hint=f"it may be {', '.join(KINDS)}",
        )
    source = tables.validate(KINDS[provider], document.source, path, "source.")
    return BaseSpec(document.name, document.title, folder, source, document.seen)


def render(name: str, source: Mapping[str, str | bool], *, title: str = "") -> str:
    """Return the text of a ``base.toml``; the arguments are those of `add`.

    :raises UserError: the name is malformed.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the name of a base", hint="use one like 6.12")
    lines = [f"name = {_quote(name)}", f"title = {_quote(title or f'Linux {name}')}", ""]
    keys = {key: value for key, value in source.items() if value is not False}
    lines += ["[source]", *(f"{key} = {_quote(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def add(name: str, source: Mapping[str, str | bool], *, title: str = "") -> Path:
    """Make the folder of a new base, with its file and an empty series.

    :param name: the base, like ``7.3``.
    :param source: keys and values of its ``[source]`` table.
    :param title: its title in output.
    :return: the file.
    :raises UserError: the base exists, or an argument is malformed.
    """
    text = render(name, source, title=title)
    folder = _patches() / name
    if (folder / FILE).exists():
        raise UserError(f"{folder / FILE} exists already", hint="edit it, or choose another name")
    parse(text, folder)
    folder.mkdir(exist_ok=True)
    series = folder / "series"
    if not series.exists():
        series.write_text("# One patch a line, in the order to apply them.\n", encoding="utf-8")
    files.write_whole(folder / FILE, text.encode())
    return folder / FILE


def write_seen(spec: BaseSpec, seen: Seen) -> None:
    """Rewrite the ``[seen]`` table of the file of a base, and nothing else.

    :raises UserError: the form of the file does not allow it.
    """
    new = [f"{key} = {_quote(value)}" for key, value in vars(seen).items() if value]
    lines: list[str] = []
    inside = found = False
    for line in spec.path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("["):
            inside = re.match(r"\s*\[\s*seen\s*\]", line) is not None
            lines.append(line)
            if inside:
                found = True
                lines += new
        elif not (inside and re.match(r"\s*(version|sha256|commit)\s*=", line)):
            lines.append(line)
    if not found:
        lines += ["", "[seen]", *new]
    text = "\n".join(lines) + "\n"
    try:
        good = parse(text, spec.folder).seen == seen
    except UserError:
        good = False
    if not good:
        raise UserError(
            f"{spec.path}: cannot rewrite `seen`", hint="write it as a separate [seen] table"
        )
    files.write_whole(spec.path, text.encode())


def _patches() -> Path:
    return files.project_root() / "patches"


def _names() -> list[str]:
    names = [path.parent.name for path in _patches().glob(f"*/{FILE}")]
    return sorted(filter(_NAME.fullmatch, names), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts 6.1 before 6.12 before 7.3."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _quote(text: str | bool) -> str:
    # A JSON string or truth value is one of TOML.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
