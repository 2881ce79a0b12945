"""Peers skip where a package is absent, so that the tests run anywhere; with PEERS=required a skip is a failure.

`make test-peers` sets it: what it does not run, it does not call passed.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for what several files share

REQUIRED = os.environ.get("PEERS") == "required"


def _no_skip(report):
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"would be skipped, and PEERS=required: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _no_skip((yield))
