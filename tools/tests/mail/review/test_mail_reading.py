# SPDX-License-Identifier: GPL-2.0-only
"""Tests of iommuq.mail.review.reading: what b4 gets of the user's in its sandbox."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from iommuq.mail.review import reading
from iommuq.queue.parse import read_mails
from iommuq.system.errors import InfraError, UserError
from iommuq.system.sandbox import reader


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with keys, public and private."""
    made = tmp_path / "home"
    for name in (".gnupg", ".local/share/patatt/public", ".local/share/patatt/private"):
        (made / name).mkdir(parents=True)
    (made / ".gnupg/pubring.kbx").write_text("public")
    (made / ".gnupg/secring.gpg").write_text("private")
    (made / ".local/share/patatt/public/ada").write_text("public")
    (made / ".local/share/patatt/private/ada.key").write_text("private")
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(made / ".gitconfig"))
    for name in ("GNUPGHOME", *reading._CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(made)
    return made


@pytest.mark.usefixtures("home")
def test_public_keys_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    needs = reading.needs((), folder)
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert sorted(texts) == ["public", "public"]
    assert needs.readable == ()
    assert needs.env["XDG_DATA_HOME"] == str(folder / "data")
    assert needs.env["GNUPGHOME"] == str(folder / "gnupg")


def test_settings_without_secrets(home: Path, tmp_path: Path) -> None:
    settings = {
        "b4.midmask": "https://lore.example.org/%s",
        "b4.pw-key": "the-secret",
        "b4.gh-api-key": "the-secret",
        "b4.send-smtp-token": "the-secret",
        "b4.attestation-policy": "hardfail",
        "patatt.signingkey": "ed25519:the-secret",
        "sendemail.smtppass": "the-secret",
    }
    for key, value in settings.items():
        subprocess.run(["git", "config", "--global", key, value], check=True)
    (tmp_path / "mails").mkdir()
    env = reading.needs((), tmp_path / "mails").env
    assert "the-secret" not in str(env)
    given = {
        env[f"GIT_CONFIG_KEY_{number}"]: env[f"GIT_CONFIG_VALUE_{number}"]
        for number in range(int(env["GIT_CONFIG_COUNT"]))
    }
    assert given["b4.midmask"] == settings["b4.midmask"]
    assert given["b4.attestation-policy"] == "hardfail"
    (home / ".gitconfig").write_text("[b4\n")
    with pytest.raises(UserError, match=r"git's configuration: .*bad config"):
        reading.needs((), tmp_path / "mails")


def test_places_of_the_user(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, bundle = tmp_path / "ring", home / "ca.pem"
    ring.mkdir()
    bundle.write_text("")
    other = tmp_path / "gnupg"
    other.mkdir()
    (other / "pubring.kbx").write_text("other")
    (tmp_path / "mails").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    config = (f"b4.keyringsrc={ring}", f"b4.attestation-gnupghome={other}", "b4.x=~nouser/x")
    needs = reading.needs(config, tmp_path / "mails")
    assert needs.readable == (ring, bundle)
    assert needs.config == (config[0], config[2])
    assert (tmp_path / "mails/gnupg/pubring.kbx").read_text() == "other"
    monkeypatch.delenv("HOME")
    (tmp_path / "more").mkdir()
    reading.needs((), tmp_path / "more")


def test_command_lines_have_no_secret(tmp_path: Path) -> None:
    """Every user of the machine can read them."""
    (tmp_path / "work").mkdir()
    with reader.boxed(["true"], cwd=tmp_path / "work", env={"HTTPS_PROXY": "the-secret"}) as inside:
        assert reader.missing() == ""
        assert "the-secret" not in str(inside.argv)
        place = Path(inside.argv[3] + ".args")
        assert place.stat().st_mode & 0o77 == 0
        assert b"the-secret" in place.read_bytes()


def test_a_reader_that_does_not_start_is_no_fault_of_the_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reader.missing() == ""
    shim = tmp_path / "bin"
    shim.mkdir()
    text = "#!/bin/sh\necho bwrap: Creating new namespace failed >&2; exit 1\n"
    (shim / "bwrap").write_text(text)
    (shim / "bwrap").chmod(0o755)
    for path, why in ((f"{shim}:{os.environ['PATH']}", "bwrap: Creating"), (str(shim), "env: not")):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(InfraError, match=f"git cannot be started: .*{why}"):
            reader.read(["git", "mailinfo"], check=False)


def test_a_reader_that_is_killed_is_no_fault_of_the_mail() -> None:
    with pytest.raises(InfraError, match="sh was killed by SIGKILL"):
        reader.read(["sh", "-c", "kill -9 $$"], check=False)


def test_no_sandbox_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reader, "missing", lambda: "no bubblewrap here")
    monkeypatch.setattr(reader, "_told", set())
    for _ in range(2):
        done = reader.read(["sh", "-c", "echo $X"], env={"X": "given"})
        assert done.output == "given\n"
    assert capsys.readouterr().err.count("no bubblewrap here") == 1


def test_a_reader_owns_no_device_of_the_host() -> None:
    words = ["sh", "-c", "id -u; chmod 667 /dev/full"]
    done = reader.read(words, check=False)
    assert "Operation not permitted" in done.stderr
    assert Path("/dev/full").stat().st_mode & 0o777 == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_no_fault_of_the_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git mailinfo ends well when it could not write."""
    mail = tmp_path / "0001.eml"
    head = "From: Ada Toy <ada@example.com>\nDate: Wed, 7 Jun 2023 12:00:00 +0200\nSubject: x\n\n"
    lines = "@@ -0,0 +1,9000 @@\n" + "+some words of it\n" * 9000
    mail.write_text(f"{head}y\n---\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n{lines}")
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)]
    subprocess.run(words, check=True)
    try:
        monkeypatch.setenv("TMPDIR", str(place))
        monkeypatch.setattr(tempfile, "tempdir", None)
        with pytest.raises((InfraError, OSError), match=r"No space left|no space left"):
            read_mails([mail], boxed=True)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
