# SPDX-License-Identifier: GPL-2.0-only
"""The plugin for pytest, on the toy kernel: what is collected, run, shown and shared."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

import toykernel
from iommuq.cli.pytest_plugin import inventory, lanes
from iommuq.cli.pytest_plugin.lanes import Options, Outcome, Told
from iommuq.results.known import Verdict
from iommuq.system import progress
from iommuq.system.errors import ToolMissing
from toykernel import BASE, IOMMU_C, KNOWN, SUITE_C, Project

pytest_plugins = ["pytester"]

#: The plugin, named like its module.
PLUGIN = "iommuq.cli.pytest_plugin"
ROOT = Path(__file__).parents[3]
#: What comes of the toy's tests: block_refused, plain_kept, claim and the check for splats pass.
USUAL = {"passed": 4, "skipped": 1, "xfailed": 1}


class Session:
    """Runs pytest on a project with the toy kernel."""

    def __init__(
        self, project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.project = project
        self._pytester = pytester
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(project.root)

    def run(self, *words: str, base: str = BASE, process: bool = False) -> pytest.RunResult:
        """Run it, in this process unless told otherwise."""
        run = self._pytester.runpytest_subprocess if process else self._pytester.runpytest_inprocess
        root = self.project.root
        return run(
            "-p",
            "iommuq.cli.pytest_plugin",
            f"--rootdir={root}",
            "-ra",
            "--iommu-base",
            base,
            *words,
        )


@pytest.fixture(autouse=True)
def _progress() -> Iterator[None]:
    yield
    progress.configure()


@pytest.fixture
def warm(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    """Return a project that has run its queue."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=True)
    return Session(project, pytester, monkeypatch)


@pytest.fixture
def cold(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    """Return a project that has run nothing yet."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=False)
    return Session(project, pytester, monkeypatch)


def test_it_is_there_for_every_pytest_of_the_environment() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # One name for both: so `-p iommuq.cli.pytest_plugin` is no second plugin where it is installed.
    assert data["project"]["entry-points"]["pytest11"] == {
        "iommuq.cli.pytest_plugin": "iommuq.cli.pytest_plugin"
    }


def test_every_case_is_an_item_and_all_share_one_boot(cold: Session) -> None:
    result = cold.run("kunit")
    assert result.ret == 0
    result.assert_outcomes(**USUAL)
    result.stdout.fnmatch_lines(
        [
            "Linux 6.12.117 (6.12.117) 0002: KUnit on User-mode Linux: 6 results",
            "SKIPPED * kunit/drivers/iommu/tests/iommu_kunit.c:*: needs CONFIG_PCI",
            "XFAIL *iommu_kunit.c::toy_owner.late_device - no fix yet (https:*)",
        ],
        consecutive=False,
    )
    assert cold.project.trace.count("make linux") == 1
    assert cold.project.trace.count("kunit.py exec") == 1


def test_collecting_builds_nothing(cold: Session) -> None:
    result = cold.run("--collect-only", "-q", "kunit")
    result.stdout.fnmatch_lines(
        ["kunit/drivers/iommu/tests/iommu_kunit.c::toy_domain.block_refused", "6 tests collected*"]
    )
    assert not (cold.project.root / "cache").exists()


def test_what_did_not_change_is_not_run_again(warm: Session) -> None:
    warm.run("kunit").assert_outcomes(**USUAL)
    assert warm.project.trace == []
    warm.run("kunit", "--iommu-again").assert_outcomes(**USUAL)
    assert warm.project.trace == ["kunit.py exec"]


def test_k_boots_for_the_selection_alone(warm: Session) -> None:
    result = warm.run("kunit", "-k", "plain_kept")
    result.assert_outcomes(passed=1, deselected=5)
    # One filter, and so one boot; the check for splats comes with every boot.
    result.stdout.fnmatch_lines(["*: KUnit on User-mode Linux: 2 results"])
    assert warm.project.trace == ["kunit.py exec"]


def test_m_selects_a_lane(warm: Session) -> None:
    assert warm.run("kunit", "-m", "selftest", "--strict-markers").ret == 5
    warm.run("kunit", "-m", "kunit", "--strict-markers").assert_outcomes(**USUAL)


def test_one_item_by_its_name(warm: Session) -> None:
    result = warm.run(f"{SUITE_C}::toy_domain.block_refused", "-v")
    result.assert_outcomes(passed=1)


def test_a_failure_shows_what_the_kernel_said_and_lf_runs_it_again(warm: Session) -> None:
    result = warm.run("kunit", "--iommu-at", "baseline")
    result.assert_outcomes(**(USUAL | {"passed": 3, "failed": 1}))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*toy_domain.block_refused*",
            "# block_refused: EXPECTATION FAILED at *iommu_kunit.c:*",
            "Expected toy_block() == -22, but",
            "    toy_block() == 0 (0x0)",
            "full log: /*.log",
            "FAILED kunit/drivers/iommu/tests/iommu_kunit.c::toy_domain.block_refused*",
        ]
    )
    # No line of Python.
    assert "nodes.py" not in result.stdout.str()
    again = warm.run("kunit", "--iommu-at", "baseline", "--lf")
    assert again.parseoutcomes()["failed"] == 1
    assert "passed" not in again.parseoutcomes()


def test_junit(warm: Session, tmp_path: Path) -> None:
    warm.run("kunit", "--iommu-at", "baseline", f"--junitxml={tmp_path}/junit.xml")
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "1", "2")
    cases = {case.get("name"): case for case in suite}
    failure = cases["toy_domain.block_refused"].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "Expected toy_block() == -22, but" in failure.text


def test_two_workers_build_once(cold: Session) -> None:
    result = cold.run("kunit", "-n", "2", "-q", process=True)
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(**USUAL)
    result.stdout.fnmatch_lines(["*: KUnit on User-mode Linux: 6 results"])
    assert cold.project.trace.count("make linux") == 1
    assert cold.project.trace.count("kunit.py exec") == 1


def test_two_workers_do_not_both_run_what_was_asked_for_again(warm: Session) -> None:
    result = warm.run("kunit", "-n", "2", "--iommu-again", process=True)
    result.assert_outcomes(**USUAL)
    assert warm.project.trace == ["kunit.py exec"]


def test_what_does_not_build_fails_with_the_compiler_s_words(warm: Session) -> None:
    maker = warm.project.maker
    maker.add("resv/0003-bad.patch", maker.mail("toy: bad", {IOMMU_C: ("return 5;", "return x;")}))
    result = warm.run("kunit")
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines(["resv/0003-bad.patch does not build for um: *error: *undeclared*"])


def test_what_the_machine_failed_to_tell_is_an_error(warm: Session) -> None:
    warm.project.edit(SUITE_C, "\t(void)test;", "\t_exit(1);")
    result = warm.run("kunit")
    # The case that the kernel died in; nor does anybody know whether it would complain.
    assert result.parseoutcomes()["errors"] == 1
    assert "failed" not in result.parseoutcomes()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR *::toy_owner.claim*"])


def test_a_missing_tool_is_an_error_of_every_item(
    warm: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lanes._RUNS, "kunit", _missing)
    result = warm.run("kunit")
    result.assert_outcomes(errors=6)
    result.stdout.fnmatch_lines(["flex is not installed (install it)"])


def _missing(_options: Options, _selected: object) -> tuple[str, list[Told]]:
    raise ToolMissing("flex is not installed", hint="install it")


def test_what_ran_and_was_not_collected_is_told(warm: Session) -> None:
    warm.project.edit(SUITE_C, "KUNIT_CASE(claim)", "HIDDEN(claim)")
    warm.project.edit(
        SUITE_C, "static void claim", "#define HIDDEN(x) KUNIT_CASE(x)\nstatic void claim"
    )
    result = warm.run("kunit")
    result.assert_outcomes(**(USUAL | {"passed": 3}))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  ran, but not collected: toy_owner.claim"])
    # Should it fail, nothing is as it should be.
    warm.project.edit(SUITE_C, "\t(void)test;", "\ttest->failed = 1;")
    result = warm.run("kunit")
    result.assert_outcomes(**(USUAL | {"passed": 3}))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  failed, not selected: toy_owner.claim"])


def test_a_splat_outside_of_all_tests_fails_the_session(warm: Session) -> None:
    warm.project.edit(
        SUITE_C,
        "static void claim",
        "__attribute__((destructor)) static void late(void)\n"
        '{\n\tputs("BUG: sleeping function called from toy.c:1");\n}\n\nstatic void claim',
    )
    result = warm.run("kunit", "-k", "plain_kept")
    result.assert_outcomes(passed=1, deselected=5)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["  failed, not selected: kernel.no_splat_outside_of_cases", "*sleeping function*"]
    )


def test_a_case_that_the_kernel_has_not(warm: Session) -> None:
    warm.project.edit(
        SUITE_C,
        "\tKUNIT_CASE(claim),\n\t{}",
        "\tKUNIT_CASE(claim),\n#ifdef TOY_NEWER\n\tKUNIT_CASE(newer),\n#endif\n\t{}, "
        "KUNIT_CASE(claim2)",
    )
    warm.project.edit(SUITE_C, "static void claim", "#define claim2 claim\nstatic void claim")
    result = warm.run("kunit")
    result.assert_outcomes(**(USUAL | {"skipped": 2, "failed": 1}))
    result.stdout.fnmatch_lines(
        [
            "the kernel did not run it, no #if in the source excludes it",
            "SKIPPED * not in this kernel: TOY_NEWER",
            "FAILED *::toy_owner.claim2*",
        ]
    )


def test_a_case_that_the_kernel_has_not_is_skipped_by_itself_too(warm: Session) -> None:
    warm.project.edit(
        SUITE_C,
        "\tKUNIT_CASE(claim),\n\t{}",
        "\tKUNIT_CASE(claim),\n#ifdef TOY_NEWER\n\tKUNIT_CASE(newer),\n#endif\n\t{}",
    )
    result = warm.run(f"{SUITE_C}::toy_owner.newer")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * not in this kernel: TOY_NEWER"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("toy_owner.late_device", "toy_owner.claim", "passes, but is listed as known: no fix*"),
        ("2999-01-01", "2020-02-29", "the known failure has expired: no fix*"),
    ],
)
def test_a_list_that_is_wrong_fails(warm: Session, old: str, new: str, words: str) -> None:
    warm.project.edit(KNOWN, old, new)
    result = warm.run("kunit")
    assert result.ret == 1
    result.stdout.fnmatch_lines([words])


@pytest.mark.parametrize(
    ("base", "words", "said"),
    [
        ("9.9", [], "*no base '9.9'; there are toy*"),
        (BASE, ["--iommu-at", "0009"], "*no patch '0009'*"),
        (BASE, ["--iommu-arch", "vax"], "*vax*"),
    ],
)
def test_a_mistake_in_an_option(warm: Session, base: str, words: Sequence[str], said: str) -> None:
    result = warm.run("kunit", *words, base=base)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_without_a_base_nothing_is_collected(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = ("-p", PLUGIN, "-p", "no:cacheprovider", "kunit", "selftests")
    result = pytester.runpytest_inprocess(*words)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["kunit and selftests need a kernel: add --iommu-base 6.12"])


def test_the_project_s_own_tests_do_not_load_the_tool() -> None:
    """Who starts pytest for something else pays nothing."""
    code = f"import sys, {PLUGIN}; print([n for n in sys.modules if n.startswith('iommuq.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # What they take of it imports nothing more.
    loaded = ["cli", "defaults", "system", "system.logtext", "cli.pytest_plugin"]
    assert done.stdout == f"{[f'iommuq.{name}' for name in loaded]}\n"


def _told(test: str, verdict: Verdict, message: str = "") -> Told:
    return Told(test, verdict.value, message)


def test_userspace_suites(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [found.test for found in inventory.everything("selftest", ROOT, "6.12", None)]
    asked: list[set[str]] = []

    def run(_options: Options, selected: Sequence[str]) -> tuple[str, list[Told]]:
        asked.append({name.partition(".")[0] for name in selected})
        told = [_told(name, Verdict.OK) for name in names if name.startswith("resv_direct.")]
        bad = "resv_direct_fail_nth.builds"
        return "a kernel", [*told, _told(bad, Verdict.FAILED, "x.c:1: error: no such thing")]

    monkeypatch.setitem(lanes._RUNS, "selftest", run)
    monkeypatch.chdir(ROOT)
    result = pytester.runpytest_inprocess(
        "-p",
        "iommuq.cli.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "selftests/iommu",
        "--iommu-base",
        "6.12",
    )
    # All are collected from the sources, with the variants of a fixture.
    own = [name for name in names if name.count(".") > 1]
    assert "resv_direct.mixed_group.direct_last.bind_refused" in own
    failed = sum(name.startswith("resv_direct_fail_nth.") for name in own)
    result.assert_outcomes(passed=len(own) - failed, failed=failed)
    result.stdout.fnmatch_lines(["x.c:1: error: no such thing"])
    assert asked == [{"resv_direct", "resv_direct_fail_nth"}]


def test_firmware_scenarios(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def run(_options: Options, selected: Sequence[str]) -> tuple[str, list[Told]]:
        asked.append(set(selected))
        return "a kernel", [
            _told(name, Verdict.SKIPPED, "needs VFIO") if "amd" in name else _told(name, Verdict.OK)
            for name in selected
        ]

    monkeypatch.setitem(lanes._RUNS, "firmware", run)
    monkeypatch.chdir(ROOT)
    result = pytester.runpytest_inprocess(
        *(
            "-p",
            "iommuq.cli.pytest_plugin",
            "-p",
            "no:cacheprovider",
            "selftests",
            "-m",
            "firmware",
        ),
        *("--iommu-kernel", "some-package", "-k", "claim-group and no_splat"),
    )
    assert asked == [
        {f"q35-{on}.claim-group.no_splat" for on in ("amd", "intel", "intel-scalable")}
    ]
    assert result.parseoutcomes()["passed"] == 2
    assert result.parseoutcomes()["skipped"] == 1


def test_what_is_written_for_other_workers_is_read_again(tmp_path: Path) -> None:
    told = Told("a.b", "failed", "x\ud800", "/log", "", 1.5)
    session = lanes.Lanes(Options("6.12"), tmp_path, {"kunit": {"a.b"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lanes._RUNS, "kunit", lambda _o, _s: ("t", [told]))
        patch.setattr(inventory, "everything", lambda *_: iter(()))
        made = session.outcome("kunit")
    assert made == Outcome("t", (told,), extra=("a.b",))
    assert lanes.Lanes(Options("6.12"), tmp_path).outcome("kunit") == made


def test_cases_with_parameters_stand_for_all_their_results() -> None:
    told = tuple(_told(name, Verdict.OK) for name in ("s.case.1", "s.case.2", "s.case2"))
    assert Outcome(told=told).of("s.case") == list(told[:2])


def test_conditions_and_comments_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#if NEW\n#include "b.c"\n#endif\n')
    (tmp_path / "b.c").write_text(
        "static struct kunit_case cases[] = {\n"
        "\t/* KUNIT_CASE(no), */ KUNIT_CASE(one),\n"
        "// KUNIT_CASE(never),\n"
        "#ifndef OLD\n\tKUNIT_CASE_PARAM(two, gen),\n#else\n\tKUNIT_CASE(three),\n#endif\n"
        "\t{}\n};\n"
        'static struct kunit_suite s = { .name = "s", .test_cases = cases,\n};\n'
    )
    assert inventory.kunit_cases(tmp_path / "b.c") == [
        inventory.Found("s.one", 2, "NEW"),
        inventory.Found("s.two", 5, "NEW && !OLD"),
        inventory.Found("s.three", 7, "NEW && !(!OLD)"),
    ]
