"""Prints the table of errors after the tests."""

from reference import TABLE


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.section("reference: case, error, limit")
        for case, error, limit in TABLE:
            terminalreporter.write_line(f"{case:50} {error:10.3g} {limit:8g}")
