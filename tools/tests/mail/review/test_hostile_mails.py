# SPDX-License-Identifier: GPL-2.0-only
"""Hostile mails, fetched, screened, applied and answered as `iommuq mail review` does it.

tests/data/mails.toml says how each ends; support/hostilemails.py makes them.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

import hostilemails
import toy
from boxed import WHO, become, give, place, reason_not_to
from mailjudge import Judged, judge
from seriesmaker import GOOD, Series, at_baseline, patch_text, reviewing_project
from toykernel import Project

pytestmark = pytest.mark.hostile

_DATA = Path(__file__).parents[2] / "data" / "mails.toml"
#: What any mail may cost: bytes of memory of a process, and seconds.
_MOST_MEMORY, _MOST_SECONDS = 1 << 30, 60.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HEADERS = {
    "from", "to", "cc", "subject", "in-reply-to", "references", "mime-version", "content-type",
    "content-transfer-encoding",
}  # fmt: skip
_MOST_LINES, _LONGEST = 3, 1000


@dataclass(frozen=True)
class Hostile:
    """A mail; the table explains the fields."""

    id: str
    ends: int
    says: str = ""
    known: str = ""


def table() -> list[Hostile]:
    """Return the table."""
    return [Hostile(**each) for each in tomllib.loads(_DATA.read_text(encoding="utf-8"))["mail"]]


def case(hostile: Hostile) -> object:
    """Return a mail as a case; a known fault must fail."""
    known = [pytest.mark.xfail(strict=True, reason=hostile.known)] if hostile.known else []
    return pytest.param(hostile, id=hostile.id, marks=known)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with the toy kernel, which the mails leave as it is."""
    if reason := reason_not_to("root"):
        pytest.skip(reason)
    where = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in toy.hermetic_environment(where).items():
            patch.setenv(name, value)
        return reviewing_project(where / "project")


@pytest.fixture(scope="module")
def good(project: Project) -> str:
    """Return a diff that applies."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in toy.hermetic_environment(project.root.parent).items():
            patch.setenv(name, value)
        maker = Series(at_baseline(project)).maker
        _, text = patch_text(maker.mail("x", GOOD, body="y"))
    return text[text.index("diff --git") :].split("\n-- \n")[0] + "\n"


def outside(project: Project) -> dict[str, object]:
    """Return what no mail may change."""
    skip = ("cache", "state", "trace", "home")
    files = toy.snapshot(project.root)
    kept = {name: each for name, each in files.items() if not name.startswith(skip)}
    return {**kept, "evil": [*Path("/tmp").glob("iommuq-evil*")]}


def check_drafts(folder: Path) -> None:
    """Test that no word of the mail is a header, a trailer or a control of a draft."""
    for path in folder.glob("*"):
        draft = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert {name.lower() for name in draft} <= _HEADERS
        text = draft.get_content()
        assert not _CONTROL.search(text), path.read_bytes()
        assert not re.search(r"^[A-Z][a-z-]+-by:|^(?:Cc|Link|Fixes):", text, re.M), text


def check_words(judged: Judged) -> None:
    """Test that what iommuq prints is a few plain lines."""
    assert "Traceback" not in judged.err, judged.err
    assert not _CONTROL.search(judged.out + judged.err), repr(judged.out + judged.err)
    if judged.code != 0:
        error = judged.err[judged.err.find("iommuq: ") :]
        assert judged.code == 1 or len(error.splitlines()) <= _MOST_LINES, judged.err
        assert max(map(len, error.splitlines()), default=0) <= _LONGEST, judged.err


@pytest.mark.parametrize("hostile", [case(each) for each in table()])
def test_mail(project: Project, good: str, tmp_path: Path, hostile: Hostile) -> None:
    before = outside(project)
    mbox = tmp_path / "x.mbox"
    mbox.write_bytes(hostilemails.make(hostile.id, good))
    judged = judge(project, mbox, tmp_path)
    print(f"{judged.seconds:.1f} s, {judged.memory >> 20} MiB")
    assert judged.code == hostile.ends, judged
    said = judged.out if hostile.ends < 2 else judged.err
    assert hostile.says in said.replace(str(tmp_path), ""), judged
    assert judged.seconds <= _MOST_SECONDS
    assert judged.memory <= _MOST_MEMORY
    check_words(judged)
    check_drafts(tmp_path / "drafts")
    assert (tmp_path / "drafts").exists() == (hostile.ends < 2)
    assert outside(project) == before
    assert [*project.root.glob("cache/reviews/*/work")] == []


def test_every_mail_is_in_the_table() -> None:
    assert sorted(each.id for each in table()) == sorted(hostilemails.names())


#: Fetches, screens and parses the mails of a directory, and prints the exit code of each.
_READ = """
import json, sys
from pathlib import Path
from iommuq.mail.review import review
from iommuq.mail.review.fetch import fetch
from iommuq.system.errors import IommuqError
from iommuq.system.sandbox import reader
assert reader.missing() == "", reader.missing()
ends = {}
for mbox in sorted(Path(sys.argv[1]).glob("*.mbox")):
    folder = mbox.with_suffix(".out")
    folder.mkdir()
    try:
        review._screened(fetch(str(mbox), folder, offline=True))
        ends[mbox.stem] = 0
    except IommuqError as error:
        ends[mbox.stem] = error.exit_code
print(json.dumps(ends))
"""


@pytest.mark.skipif(len(WHO) < 2, reason="only root can become a user")
def test_mails_as_root_and_as_a_user(good: str) -> None:
    """What reads them is another user, in a user namespace or not: they end alike."""
    if reason := reason_not_to("user"):
        pytest.skip(reason)
    # setpriv itself may start what the user may not.
    words = [*become("user"), "env", sys.executable, "-c", ""]
    if subprocess.run(words, check=False, capture_output=True, cwd="/").returncode != 0:
        pytest.skip("a user cannot start this Python")
    found = []
    for who in WHO:
        with place(who) as folder:
            for each in table():
                (folder / f"{each.id}.mbox").write_bytes(hostilemails.make(each.id, good))
            give(who, folder)
            package = Path(hostilemails.__file__).parents[2]
            done = subprocess.run(
                [*become(who), sys.executable, "-P", "-c", _READ, str(folder)],
                env={**os.environ, "PYTHONPATH": str(package), "TMPDIR": str(folder)},
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    wanted = {each.id: each.ends for each in table()}
    assert set(found[0].values()) == {0, 2}
    assert {name for name, code in found[0].items() if code == 2} <= {
        name for name, code in wanted.items() if code == 2
    }
