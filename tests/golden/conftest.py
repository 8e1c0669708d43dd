"""Prints the table of errors after the tests, which several processes may have run."""

import pytest
from reference import TABLE


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.user_properties += [("reference", row) for row in TABLE]
    TABLE.clear()
    return report


def pytest_terminal_summary(terminalreporter):
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    rows = [
        row for report in reports for name, row in report.user_properties if name == "reference"
    ]
    if rows:
        terminalreporter.section("reference: case, error, limit")
        for case, error, limit in rows:
            terminalreporter.write_line(f"{case:50} {error:10.3g} {limit:8g}")
