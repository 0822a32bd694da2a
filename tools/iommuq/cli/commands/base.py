# SPDX-License-Identifier: GPL-2.0-only
"""What the commands print that look after bases, the queue and the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from iommuq.bases import basefile, sources
from iommuq.queue.checkout import apply_to_repo
from iommuq.queue.model import load_queue
from iommuq.queue.steps import make_steps
from iommuq.system import progress
from iommuq.system.errors import EXIT_INFRA, EXIT_OK

#: The key of the source's place in ``base.toml``, by provider.
_PLACE = {"debian": "package", "git": "url", "tarball": "url", "directory": "path"}


def list_bases() -> None:
    """Print the bases, one a line."""
    for spec in basefile.list_specs():
        here = "in the cache" if sources.is_cached(spec) else "not fetched"
        version = spec.seen.version if spec.seen else "never seen"
        print(f"{spec.name:<8} {spec.title}; {spec.source.label}, {version}; {here}")


def fetch_base(name: str, *, update: bool, record: bool) -> None:
    """Fetch a base and print what it is.

    :param update: get it again, and the newest there is.
    :param record: write what was found into its ``base.toml``.
    """
    spec = basefile.load_spec(name)
    base, notes = sources.fetch(spec, update=update)
    for line in notes:
        progress.note(line)
    if record:
        sources.record_seen(spec, base)
    print(f"{name}: Linux {base.kernel}, {base.version}, commit {base.commit}")


def add_base(
    name: str, provider: str, where: str, options: Mapping[str, str | None], title: str
) -> None:
    """Make the folder of a new base and print its file.

    :param where: the source's place, whatever the provider calls it.
    :param options: further keys; None for those that were not given.
    """
    source = {"provider": provider, _PLACE[provider]: where}
    source |= {key: value for key, value in options.items() if value is not None}
    print(basefile.add(name, source, title=title))


def show_queue(name: str) -> None:
    """Print the patches of a queue, one a line, under their sections."""
    queue = load_queue(basefile.load_spec(name).folder, name)
    section = None
    for patch in queue.patches:
        if patch.section != section:
            section = patch.section
            print(f"{section}:")
        print(f"  {patch.label:<16} {progress.one_line(patch.subject)}")


def apply_queue(name: str, to: str | None, into: Path | None) -> None:
    """Apply a queue and print the commits.

    :param to: the step to stop after; all if None.
    :param into: directory for a repository; None to try the patches only.
    """
    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    base = sources.open_base(spec)
    if into is None:
        steps = make_steps(base, queue, None, to=to)
    else:
        steps = apply_to_repo(base, queue, into, to=to)
    for step in steps:
        subject = step.patch.subject if step.patch else f"{len(queue.baseline)} patches"
        print(f"{step.commit[:12]} {step.label:<16} {progress.one_line(subject)}")
    if into is not None:
        print(f"{into}: branch iommuq/{name}")


def show_doctor(*, as_json: bool) -> int:
    """Print what the machine has and lacks.

    :return: the exit code: 3 if something needed is missing.
    """
    from iommuq.cli.commands import doctor

    checks = doctor.collect()
    if as_json:
        print(json.dumps(doctor.report(checks), indent=2))
    else:
        from rich.console import Console

        Console(highlight=False).print(doctor.table(checks))
    return EXIT_INFRA if doctor.lacking(checks) else EXIT_OK
