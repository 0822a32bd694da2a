# SPDX-License-Identifier: GPL-2.0-only
"""A run as JUnit XML for Jenkins; a suite is one lane at one step.

Known failures, and failures that a later patch fixes, are skips with a reason."""

from __future__ import annotations

import re
import time
from io import BytesIO

from junitparser import Error, Failure, JUnitXml, Properties, Property, Skipped
from junitparser import TestCase as XmlCase
from junitparser import TestSuite as XmlSuite

from iommuq.report.view import Tone, View, middle, visible
from iommuq.results.runs.model import CellRecord, CommandRun, Test
from iommuq.results.store import Status

#: Characters of a message; the log has all.
_MESSAGE = 20_000
# Characters that XML 1.0 does not allow, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The suite for the run as a whole.
WHOLE = "run"


def to_junit(record: CommandRun) -> str:
    """Return a run as JUnit XML."""
    view = View(record)
    xml = JUnitXml(f"iommuq {_text(record.command)}")
    whole = XmlSuite(f"{_text(record.base)} {WHOLE}")
    whole.add_testcase(_whole(view))
    whole.timestamp = _stamp(record.started)
    _describe(whole, record)
    xml.add_testsuite(whole)
    for cell in record.cells:
        xml.add_testsuite(_suite(view, cell))
    xml.update_statistics()  # type: ignore[no-untyped-call]
    for element in (xml, *xml):
        element.time = round(element.time or 0.0, 6)
    # Jenkins' schema does not allow this attribute.
    xml._elem.attrib.pop("skipped", None)
    out = BytesIO()
    xml.write(out, pretty=True)
    return out.getvalue().decode("utf-8")


def _whole(view: View) -> XmlCase:
    """Return the case for the verdict on the run."""
    record = view.record
    case = XmlCase("is_as_it_should_be", f"{_text(record.base).replace('.', '_')}.{WHOLE}", 0)
    kinds = {Tone.BAD: Failure, Tone.UNKNOWN: Error}
    if view.tone in kinds:
        result = kinds[view.tone](_text(view.sentence))
        result.text = _lines("\n".join([view.sentence, *record.head.findings, *record.head.errors]))
        case.result = [result]
    return case


def _describe(suite: XmlSuite, record: CommandRun) -> None:
    properties = Properties()  # type: ignore[no-untyped-call]
    values = {
        "run": record.id,
        "command": f"iommuq {record.command}",
        "kernel": record.head.kernel,
        "version": record.head.version,
        "iommuq": record.head.tool,
        **dict(record.head.versions),
    }
    for name, value in values.items():
        if value:
            properties.add_property(Property(_text(name), _text(value)))
    suite.append(properties)  # type: ignore[no-untyped-call]


def _suite(view: View, cell: CellRecord) -> XmlSuite:
    suite = XmlSuite(_text(f"{view.record.base} {cell.step} {cell.lane}"))
    suite.timestamp = _stamp(cell.started or view.record.started)
    if cell.failure:
        case = XmlCase("builds", _class(view.record, cell, ""), 0)
        failure = Failure(_text(cell.failure))
        failure.text = _lines(cell.failure)
        case.result = [failure]
        suite.add_testcase(case)
    elif not cell.tests:
        case = XmlCase("has_results", _class(view.record, cell, ""), 0)
        case.result = [Error("no results: the run was killed")]
        suite.add_testcase(case)
    for test in cell.tests:
        suite.add_testcase(_case(view, cell, test))
    return suite


def _case(view: View, cell: CellRecord, test: Test) -> XmlCase:
    group, _, name = test.name.partition(".")
    case = XmlCase(_text(name or group), _class(view.record, cell, group if name else ""))
    case.time = round(test.duration, 6)
    judged = view.judged(cell, test)
    kinds = {Status.FAIL: Failure, Status.ERROR: Error, Status.SKIP: Skipped}
    if judged.status in kinds:
        first = test.message.strip().partition("\n")[0]
        result = kinds[judged.status](_text(judged.note or first or test.status.value))
        result.text = _lines("\n".join(filter(None, [judged.note, test.message])))
        case.result = [result]
    told = [test.answer, f"full log: {test.log}" if test.log else ""]
    if any(told):
        case.system_out = _lines("\n".join(filter(None, told)))
    return case


def _class(record: CommandRun, cell: CellRecord, group: str) -> str:
    # Dots separate packages in Jenkins.
    words = (record.base, cell.step, cell.lane, group)
    return ".".join(_text(word).replace(".", "_") for word in words if word)


def _text(text: str) -> str:
    return _ILLEGAL.sub("�", visible(text))


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in middle(text, _MESSAGE).split("\n"))


def _stamp(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
