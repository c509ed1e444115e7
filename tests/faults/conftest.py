"""A second attempt for tests that break servers, which a busy machine can make fail."""

import pathlib
from typing import Any, List

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was wrong with the first attempt: it may be a fault that is rare."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed, and was run again: {report.nodeid}")
        terminalreporter.line(report.longreprtext)
