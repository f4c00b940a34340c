"""For `pieces.py`: a row of Markdown for each test as it ends, with what it has printed."""

import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if "GPU_ROWS" in os.environ and (report.when == "call" or not report.passed):
        said = " ".join(report.capstdout.split()).replace("|", "/")[:150]
        terminal = item.config.pluginmanager.getplugin("terminalreporter")
        terminal.write_line(f"\n| {item.name} | {report.outcome} | {report.duration:.1f} | {said or '-'} |")
    return report


def pytest_sessionstart(session):
    if "GPU_ROWS" in os.environ:
        session.config.pluginmanager.getplugin("terminalreporter").write_line(
            "| test | outcome | seconds | said |\n| --- | --- | --- | --- |"
        )
