# SPDX-License-Identifier: GPL-2.0-only
"""Read a TOML file into dataclasses that derive from `Table`, or say which key is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from iommuq.system.errors import UserError

_T = TypeVar("_T")

# What pydantic calls a mistake that has a plainer name.
_REASONS = {
    "missing": "is missing",
    "missing_argument": "is missing",
    "unexpected_keyword_argument": "is not a key that it may have",
    "extra_forbidden": "is not a key that it may have",
}


def load(kind: type[_T], path: Path) -> _T:
    """Read a file.

    :param kind: a dataclass; its ``__post_init__`` may raise `ValueError`.
    :raises UserError: it cannot be read or is malformed; file and key are named.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: {error}") from error
    return validate(kind, data, path)


def validate(kind: type[_T], data: Mapping[str, Any], path: Path, where: str = "") -> _T:
    """Make a *kind* of a table.

    :param path: the file that it is from.
    :param where: what stands before its keys in that file, such as ``source.``.
    :raises UserError: a key is wrong; file and key are named.
    """
    # Here and not above: it takes longer to import than most commands to run.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = where + ".".join(str(part) for part in first["loc"])
        reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UserError(f"{path}: {key.rstrip('.') or 'file'}: {reason}") from error
