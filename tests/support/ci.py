"""Two rules for the whole test run, loaded by pyproject.toml's `-p tests.support.ci`.

1. With CI=true in the environment a skipped test is a failure: on the machine that guards the project nothing may
   be missing. An expected failure (xfail) stays one.
2. scripts/test runs the tests in two parts, the ones marked `serial` first and alone, then the rest under xdist.
   PYOFFLOAD_TEST_PART names the part; PYOFFLOAD_TEST_REPORTS is a file that carries the reports of the first part into
   the summary of the second, so that the last line of the output counts every test of the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

SKIPS_FAIL = os.environ.get("CI", "").lower() in {"true", "1"}
PART = os.environ.get("PYOFFLOAD_TEST_PART")
REPORTS = os.environ.get("PYOFFLOAD_TEST_REPORTS")

CARRIED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (SKIPS_FAIL and report.skipped) or hasattr(report, "wasxfail"):
        return
    where = ""
    reason = str(report.longrepr)
    if isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        where = f" ({path}:{line})"
    report.outcome = cast("Literal['failed']", "failed")
    report.longrepr = f"skipped, and with CI=true a skip is a failure: {reason}{where}"


# tryfirst makes these the outermost wrappers: pytest's own have marked expected failures by then.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_a_skip(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Not reported as "deselected": the other part runs them.
    if PART is not None:
        items[:] = [
            item for item in items if (item.get_closest_marker("serial") is not None) == (PART == "serial")
        ]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    if REPORTS is None:
        return
    carrier = Path(REPORTS)
    if PART == "serial":
        carried = {
            category: [
                config.hook.pytest_report_to_serializable(config=config, report=report)
                for report in terminalreporter.stats.get(category, [])
                if isinstance(report, pytest.TestReport)
            ]
            for category in CARRIED
        }
        carrier.write_text(json.dumps(carried), encoding="utf-8")
    elif carrier.is_file() and carrier.stat().st_size:
        for category, reports in json.loads(carrier.read_text(encoding="utf-8")).items():
            if not reports:
                continue
            terminalreporter.stats.setdefault(category, []).extend(
                config.hook.pytest_report_from_serializable(config=config, data=data) for data in reports
            )
