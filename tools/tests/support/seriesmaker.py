# SPDX-License-Identifier: GPL-2.0-only
"""Make the mails of a series for the toy kernel, as somebody would post them, or a bad one."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

import toy
import toykernel
from toykernel import BASE, IOMMU_C, Project

#: A patch that mends what the baseline of the toy kernel broke.
GOOD = {IOMMU_C: ("return 0;", "return -22;")}
SENDER = "Ada Toy <ada@example.com>"
DOMAIN = "example.com"
DATE = "Wed, 7 Jun 2023 12:00:00 +0200"


def message_id(name: str) -> str:
    """Return the id of the mail that is called *name*."""
    return f"<{name}@{DOMAIN}>"


def mail(
    subject: str, body: str, *, name: str, parent: str = "", sender: str = SENDER
) -> EmailMessage:
    """Make a plain mail to the list."""
    made = EmailMessage(policy=email.policy.default.clone(max_line_length=998))
    made["From"] = sender
    made["To"] = "iommu@lists.example.com"
    made["Cc"] = "Grace Toy <grace@example.com>"
    made["Subject"] = subject
    made["Date"] = DATE
    made["Message-ID"] = message_id(name)
    if parent:
        made["In-Reply-To"] = message_id(parent)
        made["References"] = message_id(parent)
    made.set_content(body, charset="utf-8", cte="8bit")
    return made


def patch_text(formatted: bytes) -> tuple[str, str]:
    """Return subject and body of what ``git format-patch`` wrote."""
    parsed = email.message_from_bytes(formatted, policy=email.policy.default)
    subject = str(parsed["Subject"]).replace("[PATCH] ", "")
    return subject, parsed.get_content()


@dataclass
class Series:
    """Mails of a series, on top of what a work tree of the toy kernel has.

    :ivar mails: what was made so far.
    """

    maker: toy.QueueMaker
    prefix: str = "PATCH"
    mails: list[EmailMessage] = field(default_factory=list)

    def cover(self, count: int, text: str = "What it is for.\n", *, name: str = "cover") -> None:
        """Add a cover letter."""
        subject = f"[{self.prefix} 0/{count}] toy: Mend it"
        self.mails.append(mail(subject, text, name=name))

    def patch(
        self,
        number: int,
        count: int,
        edits: Mapping[str, tuple[str, str] | str | None],
        *,
        subject: str = "toy: Refuse to block",
        body: str = "The baseline does not.\n\nSigned-off-by: Ada Toy <ada@example.com>",
        name: str = "",
        parent: str = "cover",
    ) -> EmailMessage:
        """Add a patch."""
        title, text = patch_text(self.maker.mail(subject, edits, body=body))
        counter = "" if count == 1 else f" {number}/{count}"
        made = mail(
            f"[{self.prefix}{counter}] {title}",
            text,
            name=name or f"patch{number}",
            parent="" if count == 1 else parent,
        )
        self.mails.append(made)
        return made

    def write(self, path: Path, mails: Sequence[EmailMessage] | None = None) -> Path:
        """Write the mails into an mbox."""
        path.write_bytes(b"".join(map(as_mbox, self.mails if mails is None else mails)))
        return path


def as_mbox(message: EmailMessage) -> bytes:
    """Return a mail as it is in an mbox."""
    return in_mbox(message.as_bytes())


def in_mbox(data: bytes) -> bytes:
    """Return the bytes of a mail as they are in an mbox."""
    return b"From mboxrd@z Thu Jan  1 00:00:00 1970\n" + data + b"\n"


def at_baseline(project: Project) -> toy.QueueMaker:
    """Return a maker of patches whose work tree is the baseline of the toy kernel."""
    work = project.root / "posted"
    toy.write_tree(work, toykernel.FILES)
    text = (work / IOMMU_C).read_text()
    (work / IOMMU_C).write_text(text.replace("return -22;", "return 0;"))
    makefile = project.root / "linux" / "Makefile"
    if makefile.exists():
        (work / "Makefile").write_text(makefile.read_text())
    toy.git("init", "--quiet", "--template=", "--initial-branch=base", ".", cwd=work)
    toy.commit_all(work, "baseline")
    return toy.QueueMaker(folder=project.root / "none", work=work)


def reviewing_project(root: Path) -> Project:
    """Return a project with the toy kernel whose tools are those of a sandbox."""
    project = toykernel.make_project(root)
    makefile = root / "linux" / "Makefile"
    # TOY_PYTHON is not handed on into the sandbox, which has a python3 in its PATH.
    makefile.write_text(makefile.read_text().replace("$(TOY_PYTHON)", "python3"))
    return project


__all__ = ["BASE", "GOOD", "Series", "at_baseline", "mail", "reviewing_project"]
