# SPDX-License-Identifier: GPL-2.0-only
"""Read TOML files into dataclasses, where an error names the wrong key, and JSON of our own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from iommuq.system import files
from iommuq.system.errors import InfraError, IommuqError, UserError

_T = TypeVar("_T")

# Plain words for pydantic's types of errors.
_REASONS = {
    "missing": "is missing",
    "missing_argument": "is missing",
    "unexpected_keyword_argument": "unknown key",
    "extra_forbidden": "unknown key",
}

#: Largest number of dots in a line: tomllib takes the square of the number of a key's parts.
_MOST_DOTS = 200


class Table:
    """Base of the dataclasses that are read from files; unknown keys are errors."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def require(condition: object, message: str) -> None:
    """Check a value of a table.

    :raises ValueError: *condition* is false; pydantic turns it into its own error.
    """
    if not condition:
        raise ValueError(message)


def own_table(package: str, name: str) -> dict[str, Any]:
    """Return the content of a TOML file of ours, which is not checked; *package* has it."""
    return tomllib.loads(resources.files(package).joinpath(name).read_text("utf-8"))


def load_toml(kind: type[_T], path: Path) -> _T:
    """Read a TOML file.

    :param kind: a dataclass; its ``__post_init__`` may raise `ValueError`.
    :raises UserError: it cannot be read or is malformed; names file and key.
    """
    return validate(kind, parse(files.read_text(path), path), path)


def parse(text: str, path: Path) -> dict[str, Any]:
    """Read the text of a TOML file.

    :raises UserError: it is malformed, or nested more deeply than tables of ours.
    """
    try:
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    except ValueError as error:  # Also a number of too many digits.
        raise UserError(f"{path}: {error}") from error


def validate(kind: type[_T], data: Mapping[str, Any], path: Path, where: str = "") -> _T:
    """Make a *kind* of a table.

    :param path: the file of the table.
    :param where: prefix of its keys for messages, such as ``source.``.
    :raises UserError: a key is wrong; names file and key.
    """
    # Not at the top: the import takes longer than most commands.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = where + ".".join(str(part) for part in first["loc"])
        reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UserError(f"{path}: {key.rstrip('.') or 'file'}: {reason}") from error


def load_json(kind: type[_T], path: Path, damaged: IommuqError | None = None) -> _T | None:
    """Read a JSON file that iommuq wrote; None if there is none.

    :param damaged: raised if it is not a *kind*; None: return None if it cannot be used.
    :raises InfraError: it cannot be read.
    """
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(kind).validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        if damaged is None or isinstance(error, FileNotFoundError):
            return None
        if isinstance(error, OSError):
            raise InfraError(f"{path}: {error.strerror}") from error
        raise damaged from error
