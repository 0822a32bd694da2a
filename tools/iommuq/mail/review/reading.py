# SPDX-License-Identifier: GPL-2.0-only
"""What b4 gets of the user's when it reads mails in a sandbox: settings and public keys."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from iommuq.system.run import run

# Sections of git's configuration that b4 and patatt read; others may hold passwords.
_SECTIONS = ("b4.", "patatt.", "user.name", "user.email")
# Who the user is, and how the network is reached.
_VARIABLES = (
    *("GIT_COMMITTER_NAME", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_EMAIL", "EMAIL"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_RINGS = ("b4.keyringsrc", "patatt.keyringsrc")
_GNUPG_HOME = "b4.attestation-gnupghome"
# Public keys, and which are trusted.
_PUBLIC = ("pubring.kbx", "pubring.gpg", "trustdb.gpg")


def settings(config: Sequence[str]) -> list[tuple[str, str]]:
    """Return the settings of b4 and patatt, by the user's configuration and ``key=value``s."""
    done = run(["git", "config", "--list", "--null"], cwd=Path.cwd(), check=False)
    pairs = [entry.partition("\n") for entry in done.output.split("\0") if entry]
    found = [(key, value) for key, _, value in pairs if key.startswith(_SECTIONS)]
    return found + [(key, value) for key, _, value in (each.partition("=") for each in config)]


def environment(found: Sequence[tuple[str, str]], folder: Path) -> dict[str, str]:
    """Return the variables for b4; copies of the public keys go into *folder*.

    :param found: as `settings` returns them.
    :param folder: a directory that b4 can write to.
    """
    gnupg = folder / "gnupg"
    gnupg.mkdir(mode=0o700, exist_ok=True)
    home = dict(found).get(_GNUPG_HOME) or os.environ.get("GNUPGHOME") or "~/.gnupg"
    for name in _PUBLIC:
        if (Path(home).expanduser() / name).is_file():
            shutil.copyfile(Path(home).expanduser() / name, gnupg / name)
    given = [(key, value) for key, value in found if key != _GNUPG_HOME]
    return {
        # Otherwise b4 looks into the list of users, which the sandbox does not have.
        "GIT_AUTHOR_NAME": _full_name(),
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "GIT_CONFIG_COUNT": str(len(given)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in enumerate(given)},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(given)},
        "GNUPGHOME": str(gnupg),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(_data()),
    }


def rings(found: Sequence[tuple[str, str]]) -> list[Path]:
    """Return the directories with keys of senders, and what their links lead to."""
    named = [Path(value).expanduser() for key, value in found if key in _RINGS]
    ours = [_data() / "b4" / "keyring", _data() / "patatt"]
    there = [path for path in (*named, *ours) if path.is_absolute() and path.is_dir()]
    return list(dict.fromkeys(each for path in there for each in (path.resolve(), path)))


def _full_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_gecos.strip(",")
    except KeyError:
        return ""


def _data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
