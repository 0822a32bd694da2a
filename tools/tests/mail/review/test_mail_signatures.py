# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.review.fetch: what is made of the signatures of mails."""

from __future__ import annotations

import base64
import email.policy
import functools
import shutil
from email.message import EmailMessage
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import pytest
from nacl.signing import SigningKey

from mailfetched import alone, get
from mailproject import Keys
from seriesmaker import Series, in_mbox


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Return a key for the sender, in the ring that b4 looks into."""
    made = Keys(tmp_path / "keys", "ada@example.com")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data" / "b4").mkdir(parents=True)
    (tmp_path / "data" / "b4" / "keyring").symlink_to(made.make())
    return made


@pytest.mark.parametrize(
    ("case", "signature"),
    [
        ("good", "Signed: ed25519/ada@example.com"),
        ("no key", "No key: ed25519/ada@example.com"),
        ("changed", "BADSIG: ed25519/ada@example.com"),
    ],
)
def test_patatt(
    inbox: Path, series: Series, tmp_path: Path, keys: Keys, case: str, signature: str
) -> None:
    data = in_mbox(keys.sign(alone(series)))
    if case == "no key":
        shutil.rmtree(keys.folder / "ring")
    if case == "changed":
        data = data.replace(b"int ret = 40", b"int ret = 41")
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    posted = get(inbox, path)
    assert posted.patches[0].signature.startswith(signature)


def test_what_follows_the_signed_part_is_dropped(
    inbox: Path, series: Series, tmp_path: Path, keys: Keys
) -> None:
    """A list's footer may follow what was signed, and so may another diff."""
    data = in_mbox(keys.sign(alone(series))).rstrip() + b"\n"
    evil = b"diff --git a/evil b/evil\nnew file mode 100644\n--- /dev/null\n+++ b/evil\n"
    path = tmp_path / "x.mbox"
    path.write_bytes(data + evil + b"@@ -0,0 +1 @@\n+evil\n")
    posted = get(inbox, path)
    assert posted.patches[0].signature == "Signed: ed25519/ada@example.com"
    assert b"evil" not in posted.mails[0].read_bytes()


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the records that a look-up for keys of DKIM gets, and no other is made."""
    records: dict[str, bytes] = {}

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:  # noqa: ARG001
        return records.get(name.decode().rstrip("."))

    monkeypatch.setattr(dkim, "verify", functools.partial(dkim.verify, dnsfunc=look_up))
    return records


def dkim_signed(message: EmailMessage, records: dict[str, bytes]) -> bytes:
    key = SigningKey.generate()
    public = base64.b64encode(key.verify_key.encode())
    records["mail._domainkey.example.com"] = b"v=DKIM1; k=ed25519; p=" + public
    data = message.as_bytes(policy=email.policy.SMTP)
    header = dkim.sign(
        data,
        b"mail",
        b"example.com",
        base64.b64encode(key.encode()),
        signature_algorithm=b"ed25519-sha256",
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=[b"from", b"subject", b"date"],
    )
    whole: bytes = (header + data).replace(b"\r\n", b"\n")
    return in_mbox(whole)


@pytest.mark.parametrize(
    ("case", "signature"),
    [
        ("good", "Signed: DKIM/example.com"),
        ("changed", "BADSIG: DKIM/example.com"),
        ("no key", "BADSIG: DKIM/example.com"),
    ],
)
def test_dkim(
    inbox: Path, series: Series, tmp_path: Path, dns: dict[str, bytes], case: str, signature: str
) -> None:
    data = dkim_signed(alone(series), dns)
    if case == "changed":
        data = data.replace(b"int ret = 40", b"int ret = 41")
    if case == "no key":
        dns.clear()
    path = tmp_path / "x.mbox"
    path.write_bytes(data)
    posted = get(inbox, path, offline=False)
    assert posted.patches[0].signature.startswith(signature)


def test_offline_asks_for_no_key(
    inbox: Path, series: Series, tmp_path: Path, dns: dict[str, bytes]
) -> None:
    path = tmp_path / "x.mbox"
    path.write_bytes(dkim_signed(alone(series), dns))
    assert "DKIM" not in get(inbox, path, offline=True).patches[0].signature
