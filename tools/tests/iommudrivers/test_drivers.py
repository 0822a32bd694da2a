# SPDX-License-Identifier: GPL-2.0-only
"""What is read out of made-up drivers that have, lack, fail or hide each trait."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

import toy
from iommudrivers import facts, memo, notes, page
from iommudrivers.command import run_drivers
from iommudrivers.judge import judge_all
from iommudrivers.model import Answer, Driver, How, Source
from iommuq.bases.sources import Base
from iommuq.queue.csource import parse
from iommuq.queue.model import Queue
from iommuq.system.errors import UserError, VerdictError

DATA = Path(__file__).parents[1] / "data/drivers"


def read() -> dict[str, bytes]:
    paths = sorted(path for path in DATA.rglob("*.[ch]"))
    return {str(path.relative_to(DATA)): path.read_bytes() for path in paths}


@cache
def drivers() -> dict[str, Driver]:
    return {driver.ops: driver for driver in judge_all(read())}


def only(sources: tuple[Source, ...]) -> Source:
    (source,) = sources
    return source


def failures(source: Source) -> list[str]:
    assert source.verdict is not None
    return [each.what for each in source.verdict.failures]


def unknown(source: Source) -> str:
    assert source.verdict is not None
    return "; ".join(each.what for each in source.verdict.unknown)


def answer(source: Source) -> Answer:
    assert source.verdict is not None
    return source.verdict.answer


def changed(path: str, old: str, new: str) -> dict[str, Driver]:
    """Return the drivers with one text in one file replaced by another."""
    files = read()
    assert old.encode() in files[path]
    files[path] = files[path].replace(old.encode(), new.encode())
    return {driver.ops: driver for driver in judge_all(files)}


def test_each_ops_is_a_driver_and_no_pointer_is() -> None:
    assert {driver.name: ops for ops, driver in drivers().items()} == {
        "empty": "empty_ops",
        "fails": "fails_ops",
        "good": "good_ops",
        "hides": "hides_late_ops",
        "maker": "maker_ops",
    }
    assert drivers()["hides_ops"].name == "hides"


def test_static_domains_that_never_fail() -> None:
    good = drivers()["good_ops"]
    identity, blocked = only(good.identity), only(good.blocked)
    assert (identity.how, identity.name) == (How.STATIC, "good_identity.domain")
    assert (blocked.how, blocked.name) == (How.STATIC, "good_blocked")
    assert answer(identity) is Answer.NEVER
    assert answer(blocked) is Answer.NEVER
    assert good.release == "blocked (good_blocked)"
    assert not good.unknown


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [
        # The test of the type is no way out for this domain, but the opposite is.
        (
            "domain->type != IOMMU_DOMAIN_IDENTITY",
            "domain->type == IOMMU_DOMAIN_IDENTITY",
            "-EINVAL",
        ),
        ("good->domain.type & __IOMMU", "!good->domain.type & __IOMMU", ""),
        ("type & __IOMMU_DOMAIN_PAGING", "type & __IOMMU_DOMAIN_PT", "-EBUSY"),
        ("		ret = 0;\nout:", "		ret = -EIO;\nout:", "-EIO"),
        ("		ret = 0;\n		goto out;", "		goto out;", "-EINVAL"),
        # A variable of a block is not the one that has its name outside of it.
        (
            "	bool changed;\n\n	if (domain",
            "	bool changed;\n	int ret = 0;\n\n	if (domain",
            "",
        ),
        ("return good_enable(dev->good, &changed);", "return -dev->count;", "?"),
    ],
)
def test_a_way_to_an_error_is_seen(old: str, new: str, errors: str) -> None:
    found = only(changed("drivers/iommu/good.c", old, new)["good_ops"].identity)
    if errors == "?":
        assert answer(found) is Answer.UNDECIDED
        assert "dev->count" in unknown(found)
    else:
        assert failures(found) == ([errors] if errors else [])


def test_an_error_has_its_way_and_its_cause() -> None:
    found = only(drivers()["fails_ops"].identity)
    assert (found.how, found.name) == (How.STATIC, "fails_identity")
    assert found.verdict is not None
    (reason,) = found.verdict.failures
    text = read()["drivers/iommu/fails.c"].decode().splitlines()
    assert reason.what == "-ENOMEM"
    assert reason.place is not None
    assert text[reason.place.line - 1].strip() == "ret = -ENOMEM;"
    chain = ("pci_for_each_dma_alias", "fails_setup_alias", "fails_setup")
    assert reason.chain == ("fails_identity_attach", *chain)
    assert reason.when == "`!table` after fails_table → kzalloc()"


def test_a_helper_that_is_asked_not_to_allocate_still_gives_null() -> None:
    found = changed(
        "drivers/iommu/fails.c", "fails_table(fails, true)", "fails_table(fails, false)"
    )
    assert only(found["fails_ops"].identity).verdict is not None
    (reason,) = only(found["fails_ops"].identity).verdict.failures  # type: ignore[union-attr]
    assert "kzalloc" not in reason.when


def test_errors_from_outside_and_in_pointers() -> None:
    found = only(drivers()["fails_ops"].blocked)
    assert failures(found) == ["error of pm_runtime_resume_and_get()", "-ENXIO"]
    assert unknown(found) == "`dev->token`" or answer(found) is Answer.FAILS


def test_without_its_check_an_error_pointer_is_no_error() -> None:
    old = "		return PTR_ERR(token);\n"
    found = only(changed("drivers/iommu/fails.c", old, "		return 0;\n")["fails_ops"].blocked)
    assert failures(found) == ["error of pm_runtime_resume_and_get()"]


def test_a_pointer_to_a_function_is_undecided() -> None:
    found = only(drivers()["hides_ops"].identity)
    assert answer(found) is Answer.UNDECIDED
    assert unknown(found) == "`dev->impl->attach` is a pointer to a function"


def test_a_macro_that_returns_is_undecided() -> None:
    found = only(drivers()["hides_ops"].blocked)
    assert answer(found) is Answer.UNDECIDED
    assert unknown(found) == "macro `HIDES_CHECK` returns from the function"


def test_a_variable_whose_address_is_given_away_is_undecided() -> None:
    found = only(drivers()["hides_late_ops"].blocked)
    assert answer(found) is Answer.UNDECIDED
    assert "whose address is taken" in unknown(found)
    assert found.notes == ("its type is not known",)


def test_a_domain_that_is_set_at_run_time_is_undecided() -> None:
    found = drivers()["hides_late_ops"].identity
    assert [each.how for each in found] == [How.UNDECIDED]
    assert "run time" in found[0].notes[0]


def test_what_an_initialiser_hides_is_said() -> None:
    assert any("HIDES_UNKNOWN_MACRO" in each for each in drivers()["hides_late_ops"].unknown)


def test_what_cannot_be_parsed_is_undecided() -> None:
    broken = "	case IOMMU_DOMAIN_IDENTITY) {:\n"
    found = changed("drivers/iommu/good.c", "	case IOMMU_DOMAIN_IDENTITY:\n", broken)
    assert only(found["good_ops"].blocked).verdict is None or (
        answer(only(found["good_ops"].blocked)) is not Answer.NEVER
    )


def test_allocated_domains_of_old_kernels() -> None:
    maker = drivers()["maker_ops"]
    identity, blocked = only(maker.identity), only(maker.blocked)
    assert (identity.how, identity.name) == (How.ALLOCATED, "maker_domain_alloc")
    assert identity.notes == ("maker_domain_alloc() can fail, too",)
    assert answer(identity) is Answer.NEVER
    # What the core takes to block is a paging domain, and its attach is another way.
    assert blocked.how is How.NONE
    assert "the core takes an empty paging domain" in blocked.notes
    assert failures(blocked) == ["error of clk_enable()"]


def test_a_stub_in_a_header_is_not_what_runs() -> None:
    # Without the C file there is only the stub.
    files = read()
    del files["drivers/iommu/maker/map.c"]
    found = {driver.ops: driver for driver in judge_all(files)}
    assert failures(only(found["maker_ops"].blocked)) == ["-ENODEV"]


def test_nothing_is_nothing() -> None:
    empty = drivers()["empty_ops"]
    assert [only(empty.identity).how, only(empty.blocked).how] == [How.NONE, How.NONE]
    assert (empty.release, empty.default, empty.resv, empty.regions) == ("", "", "", ())


def test_default_domains() -> None:
    assert drivers()["good_ops"].default == "good_def_domain_type(): identity or dma or any"
    assert drivers()["fails_ops"].default == "always blocked (fails_blocked)"


def kinds(driver: Driver) -> set[str]:
    return {region.kind for region in driver.regions}


def test_types_of_regions() -> None:
    assert kinds(drivers()["good_ops"]) == {"DIRECT", "DIRECT_RELAXABLE"}
    shared = drivers()["fails_ops"]
    # Through another file, and a function that returns the type; what is compared is none.
    assert kinds(shared) == {"DIRECT", "DIRECT_RELAXABLE", "RESERVED"}
    (direct,) = (region for region in shared.regions if region.kind == "DIRECT")
    assert direct.chain == ("shared_get_resv_regions", "region_type")
    assert direct.place.path == "drivers/iommu/dma-iommu.c"


def test_copied_regions_are_of_the_types_that_the_driver_makes() -> None:
    hides = drivers()["hides_ops"]
    assert kinds(hides) == {"MSI"}
    assert any("pointer to a function" in each for each in hides.unknown)


def test_a_condition_of_the_preprocessor_is_both_ways() -> None:
    old = "	good_write(stream);\n"
    new = "#ifdef CONFIG_X\n	return -EPERM;\n#endif\n"
    found = changed("drivers/iommu/good.c", f"	{old}", new)
    assert failures(only(found["good_ops"].identity)) == ["-EPERM"]


def test_the_page_says_it_all() -> None:
    kernel = page.Kernel("toy", "Linux toy", tuple(drivers().values()))
    text = page.render([kernel])
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert re.search(r"\| static \| never \| static \| never \| blocked \|", rows["good"])
    assert "**can fail**: -ENOMEM" in rows["fails"]
    assert "undecided" in rows["hides (`hides_ops`)"]
    assert "none (empty paging domain) | **can fail**: error of clk_enable()" in rows["maker"]
    assert "if `!table` after fails_table → kzalloc()" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    data = json.loads(json.dumps(page.as_json([kernel])))
    (good,) = (each for each in data[0]["drivers"] if each["ops"] == "good_ops")
    assert good["identity_answers"] == ["never"]
    assert good["place"].startswith("drivers/iommu/good.c:")


def test_text_of_a_source_does_not_break_the_page() -> None:
    old = "if (!table) {\n		ret"
    found = changed("drivers/iommu/fails.c", old, 'if (!table || dev->x["\x1b<b>"]) {\n		ret')
    text = page.render([page.Kernel("toy", "Linux toy", tuple(found.values()))])
    assert "\x1b" not in text
    assert "<b>" not in text
    assert "\\|\\|" in text


def test_what_was_found_is_kept_until_a_file_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = memo.judged(read())

    def never(_files: object) -> None:
        raise AssertionError

    monkeypatch.setattr("iommudrivers.judge.judge_all", never)
    assert memo.judged(read()) == first
    files = read()
    files["drivers/iommu/empty.c"] += b"\n"
    with pytest.raises(AssertionError):
        memo.judged(files)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\0{", b"struct iommu_ops x = {", b"}" * 500, b"(" * 4000]
)
def test_any_file_is_survived(text: bytes) -> None:
    files = read() | {"drivers/iommu/odd.c": b"static struct iommu_ops o = {};\n" + text}
    assert {driver.ops for driver in judge_all(files)} >= set(drivers())


def test_a_function_that_calls_itself_ends() -> None:
    old = "	return good_enable(dev->good, &changed);\n"
    new = "	return good_identity_attach(domain, dev);\n"
    found = only(changed("drivers/iommu/good.c", old, new)["good_ops"].identity)
    assert answer(found) is Answer.UNDECIDED


def test_facts_are_of_one_mind(tmp_path: Path) -> None:
    assert facts.load()["kzalloc"] == "memory"
    path = tmp_path / "drivers.toml"
    path.write_text('[[call]]\ngives = "memory"\nnames = ["a", "b"]\n' * 2)
    with pytest.raises(UserError, match="a, b is there twice"):
        facts._read(path)


def test_the_root_of_a_source_is_the_whole_file() -> None:
    assert parse(b"int a;\nint b;\n").root.named_child_count == 2


def test_an_error_that_is_set_before_its_check_has_the_condition() -> None:
    old = "	table = fails_table(fails, true);\n	if (!table) {\n		ret = -ENOMEM;\n"
    new = "	ret = -ENOMEM;\n	table = fails_table(fails, true);\n	if (!table) {\n"
    files = read()
    path = "drivers/iommu/fails.c"
    text = files[path].decode().replace(old, new).replace("	table->used++;", "	ret = 0;")
    assert "ret = 0;\nout_unlock" in text
    found = {each.ops: each for each in judge_all(files | {path: text.encode()})}
    verdict = only(found["fails_ops"].identity).verdict
    assert verdict is not None
    (reason,) = verdict.failures
    assert (reason.what, reason.when) == ("-ENOMEM", "`!table` after fails_table → kzalloc()")


def with_drivers(work: Path) -> None:
    """Put the made-up drivers into the toy kernel."""
    for path, text in read().items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(text)
    toy.git("add", "-Af", cwd=work)


def test_the_command(
    toy_base: Base,
    toy_queue: Queue,
    toy_work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del toy_base, toy_queue
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)  # where the base comes from
    with_drivers(toy_work)
    into, data = tmp_path / "page.md", tmp_path / "page.json"
    run_drivers((), None, into, data)
    assert not capsys.readouterr().out
    assert into.read_text().startswith("# IOMMU drivers\n")
    assert "## Linux 6.12.117\n" in into.read_text()
    assert {each["ops"] for each in json.loads(data.read_text())[0]["drivers"]} == set(drivers())
    run_drivers(("6.12", "6.12"), "base", None, None)
    assert capsys.readouterr().out.count("| good | static | never |") == 1


def test_mistakes_are_told(toy_base: Base, toy_queue: Queue, tmp_path: Path) -> None:
    del toy_base, toy_queue
    with pytest.raises(UserError, match=r"no base '9\.9'"):
        run_drivers(("9.9",), None, None, None)
    with pytest.raises(UserError, match="--at needs exactly one base"):
        run_drivers(("6.12", "6.1"), "0001", None, None)
    with pytest.raises(UserError, match=r"page\.md: no directory"):
        run_drivers(("6.12",), None, tmp_path / "none/page.md", None)


def test_a_tree_without_drivers_is_no_good_result(
    toy_base: Base, toy_queue: Queue, toy_work: Path
) -> None:
    del toy_base, toy_queue
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)
    with pytest.raises(VerdictError, match="no driver found"):
        run_drivers(("6.12",), None, None, None)


def test_notes_are_of_bases_that_there_are() -> None:
    assert any(note.driver == "amd" for note in notes.of("7.3"))
    assert not notes.of("9.9")
