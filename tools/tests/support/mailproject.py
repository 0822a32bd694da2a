# SPDX-License-Identifier: GPL-2.0-only
"""A project with the toy kernel whose series can be mailed, and somebody who does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cache
from pathlib import Path

from nacl.encoding import Base64Encoder
from nacl.signing import SigningKey

import toy
import toykernel
from mailservers import LIST, LOOPBACK, Archive, Post
from toykernel import BASE, FILES, IOMMU_C, KNOWN, PROJECT, SUITE_C, Done, Project

#: The series that is mailed, and the patch that it stands on.
SERIES = "follow"
NEEDED = "pre/0001-toy-pave-the-way.patch"
FIRST = "follow/0001-toy-Count-up-to-two.patch"
SECOND = "follow/0002-toy-Mend-the-late-device.patch"
TESTS = "toy: Add KUnit tests"
#: Seconds for one command, on a machine that is busy.
LIMIT = 900.0
SENDER = "Toy Committer <committer@example.com>"

# What the kernel's own program is asked for, line by line.
UNIFDEF = r"""
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char line[1000], name[200];
	int depth = 0, off = 0, changed = 0;

	while (fgets(line, sizeof(line), stdin)) {
		int is_if = sscanf(line, "#ifdef %199s", name) == 1;
		int known = -1;

		if (!is_if)
			is_if = sscanf(line, "#if %199s", name) == 1;
		for (int i = 1; is_if && i < argc; i++) {
			char *end = strchr(argv[i], '=');
			size_t length = end ? (size_t)(end - argv[i]) : strlen(argv[i]);

			if (strlen(name) == length - 2 && !strncmp(name, argv[i] + 2, length - 2))
				known = argv[i][1] == 'D' && (!end || end[1] != '0');
		}
		if (known >= 0) {
			depth = 1, off = !known, changed = 1;
		} else if (depth && !strncmp(line, "#else", 5)) {
			off = !off;
		} else if (depth && !strncmp(line, "#endif", 6)) {
			depth = off = 0;
		} else if (!off) {
			fputs(line, stdout);
		}
	}
	return changed;
}
"""

_COMPAT = """\
/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
#define TOY_NEWEST
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define TOY_HAS_DRIVER
#endif
"""

_VERSION = """\
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 12, 117)
"""

_MAINTAINERS = """\
#!/bin/sh
cat > /dev/null
case "$*" in
*--nol*) echo 'Joe Maintainer <joe@example.com>' ;;
*) echo 'iommu@lists.example.com (open list:TOY)' ;;
esac
"""

_COVER = """\
# toy: Keep the promise

## Why

A late device was lost, see the thread of 2023. This series mends it, and says what
it does not do: everything else stays as it has always been in this toy kernel.

Link: https://example.org/thread
"""

_PROOF = """\
suites = ["kunit"]

[[patch]]
name = "pre/0001"
reason = "it paves the way"

[[patch]]
name = "follow/0001"
reason = "it counts in another way, and finds the same"

[[patch]]
name = "follow/0002"
fixes = ["kunit.toy_owner.late_device"]
"""

_BODY = "The driver has to say something, or the next patch cannot be told apart."


def _project(root: Path) -> Project:
    """Make the project, and let it prove its queue."""
    files = dict(FILES)
    # TOY_PYTHON is not handed on into the sandbox of a review, which has a python3.
    files["Makefile"] = files["Makefile"].replace("$(TOY_PYTHON)", "python3")
    files["scripts/unifdef.c"] = UNIFDEF
    files["include/linux/version.h"] = _VERSION
    toy.write_tree(root / "linux", files)
    maintainers = root / "linux/scripts/get_maintainer.pl"
    maintainers.write_text(_MAINTAINERS)
    maintainers.chmod(0o755)
    suite = PROJECT[SUITE_C]
    conditional = '#include "toy_compat.h"\n\n#ifdef TOY_HAS_DRIVER\n/* Here is a driver. */\n'
    suite = suite.replace(
        "\n/* A device", f"\n{conditional}#else\n#error no\n#endif\n/* A device", 1
    )
    compat = "kunit/drivers/iommu/tests/toy_compat.h"
    source = f'provider = "directory"\npath = "{root / "linux"}"\n'
    base = f'name = "{BASE}"\ntitle = "Toy Linux"\n\n[source]\n{source}'
    toy.write_tree(
        root,
        {
            **PROJECT,
            SUITE_C: suite,
            compat: _COMPAT,
            KNOWN: "",
            "kunit/export.toml": (
                f'subject = "{TESTS}"\nmessage = "They show that it works."\n'
                'compat = "drivers/iommu/tests/toy_compat.h"\noverlay = true\n'
            ),
            f"patches/{BASE}/base.toml": base,
            f"patches/{BASE}/proof.toml": _PROOF,
            f"patches/{BASE}/{SERIES}/0000-cover.md": _COVER,
        },
    )
    shutil.copytree(root / "linux", root / "work")
    toy.git("init", "--quiet", "--template=", "--initial-branch=base", "work", cwd=root)
    toy.commit_all(root / "work", "Linux 6.12.117")
    maker = toy.QueueMaker(folder=root / "patches" / BASE, work=root / "work")
    for name, edit in {
        NEEDED: ("return 3;", "return 5;"),
        FIRST: ("return 2;", "return 1 + 1;"),
        SECOND: ("return 5;", "return 4;"),
    }.items():
        subject = "toy: " + name.partition("toy-")[2].removesuffix(".patch").replace("-", " ")
        subject = subject.replace("pave", "Pave")
        maker.add(name, maker.mail(subject, {IOMMU_C: edit}, body=_BODY))
    return Project(root)


@cache
def template(where: Path) -> Project:
    """Return a project that has proven its queue; tests copy it and leave it as it is."""
    project = _project(where / "mailproject")
    done = Sender(project, Path()).run("prove", BASE)
    assert done.code == 0, done
    return project


@dataclass
class Sender:
    """Somebody who mails a series of the project.

    :ivar tree: the work tree.
    """

    project: Project
    tree: Path

    def mail(self, *words: str, **environment: str) -> Done:
        """Run ``iommuq mail`` in the work tree."""
        rest = () if words[0] == "prep" else ("--from", str(self.tree))
        return self.run("mail", words[0], *rest, *words[1:], **environment)

    def run(self, *words: str, **environment: str) -> Done:
        """Run iommuq; b4 takes its time where others are at work."""
        before = dict(self.project.extra)
        self.project.extra |= environment
        try:
            process = self.project.start(*words)
            out, err = process.communicate(timeout=LIMIT)
        finally:
            self.project.extra = before
        assert "Traceback" not in err, err
        # Shown if the test fails.
        print(f"$ iommuq {' '.join(words)}\n{out}{err}exit {process.returncode}")
        return Done(process.returncode, out, err)

    def prep(self) -> Done:
        """Make the branch, or bring it up to date."""
        done = self.mail("prep", BASE, SERIES, "--into", str(self.tree))
        assert done.code == 0, done
        return done

    def git(self, *words: str) -> str:
        """Run git in the work tree."""
        return toy.git(*words, cwd=self.tree)

    def configure(self, values: Mapping[str, str]) -> None:
        """Set variables of git in the work tree."""
        for name, value in values.items():
            self.git("config", name, value)

    def use(self, post: Post, archive: Archive | None = None) -> None:
        """Send by a server, and ask an archive."""
        self.configure(
            {"sendemail.smtpserver": LOOPBACK, "sendemail.smtpserverport": str(post.port)}
        )
        self.configure({"b4.send-no-patatt-sign": "yes"})
        if archive is not None:
            self.configure({"b4.midmask": archive.midmask, "b4.linkmask": archive.midmask})

    def amend(self, subject: str, old: str, new: str) -> None:
        """Change the toy's driver in the commit with a subject, and put the rest on top."""
        commits = self.git("log", "--reverse", "--format=%H %s", "HEAD").splitlines()
        found = next(line.split()[0] for line in commits if line.endswith(subject))
        path = self.tree / IOMMU_C
        editor = self.tree.parent / "edit.sh"
        editor.write_text(
            f"#!/bin/sh\nsed -i 's/{old}/{new}/' {path}\ngit commit --quiet --amend --no-edit -a\n"
        )
        subprocess.run(
            [
                "git", "-c", f"sequence.editor=sed -i '1s|$|\\nexec sh {editor}|'",
                "rebase", "--quiet", "-i", "-X", "theirs", "--keep-empty", f"{found}^",
            ],
            cwd=self.tree, env=self.project.environment, check=True, capture_output=True,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """``patches/<base>``."""
        return self.project.root / "patches" / BASE

    @property
    def cover(self) -> str:
        """The cover letter in the queue."""
        return (self.folder / SERIES / "0000-cover.md").read_text()

    def write_cover(self, old: str, new: str) -> None:
        """Change the letter on the branch, as an editor does."""
        script = self.tree.parent / "editor.py"
        script.write_text(
            "import sys\npath = sys.argv[1]\ntext = open(path).read()\n"
            f"assert {old!r} in text, text\nopen(path, 'w').write(text.replace({old!r}, {new!r}))\n"
        )
        subprocess.run(
            [sys.executable, "-m", "b4.command", "--offline-mode", "prep", "--edit-cover"],
            cwd=self.tree,
            env={**self.project.environment, "GIT_EDITOR": f"{sys.executable} {script}"},
            check=True,
            capture_output=True,
        )


def sender(template_: Project, root: Path) -> Sender:
    """Copy a project and return somebody at work in it."""
    project = toykernel.copy_project(template_, root, warm=True)
    # b4 looks for the cover letter among the commits of the last year.
    project.extra |= {"GIT_AUTHOR_DATE": "", "GIT_COMMITTER_DATE": ""}
    return Sender(project, root / "tree")


def reply(
    to: EmailMessage, body: str, *, sender: str = "Bob Reviewer <bob@example.com>", msgid: str = ""
) -> EmailMessage:
    """Make an answer to a mail."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = LIST
    mail["Subject"] = f"Re: {to['Subject']}"
    mail["Date"] = "Thu, 8 Jun 2023 12:00:00 +0000"
    mail["Message-ID"] = msgid or f"<reply-{abs(hash((body, sender, to['Subject'])))}@example.com>"
    mail["In-Reply-To"] = to["Message-ID"]
    mail["References"] = f"{to['References'] or ''} {to['Message-ID']}".strip()
    mail.set_content(f"> quoted\n\nLooks good.\n\n{body}\n")
    return mail


@dataclass
class Keys:
    """A key of patatt's for somebody, and a ring that it is in.

    :ivar folder: a directory of their own.
    """

    folder: Path
    address: str = "carol@example.com"

    def make(self) -> Path:
        """Make the key, and return the ring."""
        key = SigningKey.generate()
        self.folder.mkdir()
        (self.folder / "key").write_bytes(key.encode(Base64Encoder))
        name, _, domain = self.address.partition("@")
        public = self.folder / "ring/ed25519" / domain / name / "default"
        public.parent.mkdir(parents=True)
        public.write_bytes(key.verify_key.encode(Base64Encoder))
        toy.git("init", "--quiet", "repo", cwd=self.folder)
        for key_name, value in (
            ("user.email", self.address),
            ("patatt.signingkey", f"ed25519:{self.folder / 'key'}"),
        ):
            toy.git("config", key_name, value, cwd=self.folder / "repo")
        return self.folder / "ring"

    def sign(self, mail: EmailMessage) -> bytes:
        """Return a mail with a signature."""
        return subprocess.run(
            [Path(sys.executable).with_name("patatt"), "sign"],
            input=mail.as_bytes(),
            cwd=self.folder / "repo",
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
