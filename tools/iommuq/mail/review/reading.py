# SPDX-License-Identifier: GPL-2.0-only
"""What b4 gets of the user's when it reads mails in a sandbox: settings and public keys."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.system.errors import UserError
from iommuq.system.run import run, tail

# Sections of git's configuration that b4 and patatt read, and what in them is a secret.
_SECTIONS = ("b4.", "patatt.", "user.name", "user.email")
_SECRET = re.compile(r".*(?:-key|\.signingkey|pass|token|secret).*", re.IGNORECASE)
# Who the user is, and how the network is reached.
_VARIABLES = (
    *("GIT_COMMITTER_NAME", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_EMAIL", "EMAIL"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
# The same, and names of files.
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_RINGS = ("b4.keyringsrc", "patatt.keyringsrc")
_GNUPG_HOME = "b4.attestation-gnupghome"
# Public keys, and which are trusted; keys of senders, below the user's data.
_PUBLIC = ("pubring.kbx", "pubring.gpg", "trustdb.gpg")
_DATA = ("b4/keyring", "patatt/public")


@dataclass(frozen=True)
class Needs:
    """What b4 needs.

    :ivar env: its variables.
    :ivar readable: the files and directories that they name.
    :ivar config: the settings of the command line that it may have.
    """

    env: dict[str, str]
    readable: tuple[Path, ...]
    config: tuple[str, ...]


def needs(config: Sequence[str], folder: Path) -> Needs:
    """Return what b4 needs; copies of public keys go into *folder*.

    :param config: settings of the command line, ``key=value``.
    :param folder: a directory that b4 can write to.
    :raises UserError: git cannot read the user's configuration.
    """
    found = _settings()
    given = [(key, value) for key, _, value in (each.partition("=") for each in config)]
    home = dict(found + given).get(_GNUPG_HOME) or os.environ.get("GNUPGHOME") or "~/.gnupg"
    _copy_keys(Path(os.path.expanduser(home)), folder)  # noqa: PTH111 - raises without a home
    passed = [pair for pair in found if pair[0] != _GNUPG_HOME]
    names = [value for key, value in found + given if key in _RINGS]
    names += [os.environ[name] for name in _CERTIFICATES if name in os.environ]
    named = [Path(os.path.expanduser(name)) for name in names]  # noqa: PTH111
    there = [path for path in named if path.is_absolute() and path.exists()]
    variables = (*_VARIABLES, *_CERTIFICATES)
    return Needs(
        {
            # Otherwise b4 looks into the list of users, which the sandbox does not have.
            "GIT_AUTHOR_NAME": _full_name(),
            **{name: os.environ[name] for name in variables if name in os.environ},
            "GIT_CONFIG_COUNT": str(len(passed)),
            **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in enumerate(passed)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(passed)},
            "GNUPGHOME": str(folder / "gnupg"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_DATA_HOME": str(folder / "data"),
        },
        tuple(dict.fromkeys(each for path in there for each in (path.resolve(), path))),
        tuple(each for each in config if not each.startswith(f"{_GNUPG_HOME}=")),
    )


def _settings() -> list[tuple[str, str]]:
    done = run(["git", "config", "--list", "--null"], cwd=Path.cwd(), check=False)
    if done.returncode != 0:
        raise UserError(f"git's configuration: {tail(done.stderr, 1)}")
    pairs = [entry.partition("\n") for entry in done.output.split("\0") if entry]
    return [
        (key, value)
        for key, _, value in pairs
        if key.startswith(_SECTIONS) and not _SECRET.fullmatch(key)
    ]


def _copy_keys(gnupg: Path, folder: Path) -> None:
    """Copy the public keys that can be read; a missing one is no error, but "No key"."""
    (folder / "gnupg").mkdir(mode=0o700, exist_ok=True)
    for name in _PUBLIC:
        with contextlib.suppress(OSError):
            shutil.copyfile(gnupg / name, folder / "gnupg" / name)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
    for name in _DATA:
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            shutil.copytree(Path(data, name), folder / "data" / name)


def _full_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_gecos.strip(",")
    except KeyError:
        return ""
