"""`make audit`: a known vulnerability fails; a service that does not answer is said and does not, nor is it taken for "none"."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"
KNOWN = {"name": "torch", "version": "1", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}
SKIPPED = {"name": "numpy", "skip_reason": "not found on PyPI"}


def audited(tmp_path, answer, error=""):
    """The script in `tmp_path`, a stand-in for pip-audit saying `answer`."""
    (tmp_path / "pip_audit.py").write_text(f"import sys\nprint({answer!r})\nsys.exit({error!r})\n")
    told = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), sys.executable]
    return subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, timeout=60)


def test_a_vulnerability_fails_and_licences_are_listed(tmp_path):
    done = audited(tmp_path, json.dumps({"dependencies": [KNOWN, {"name": "pandas", "version": "2", "vulns": []}]}))
    assert done.returncode == 1 and "torch 1: CVE-1, CVE-2" in done.stdout
    assert "vulnerabilities: 1 of 2 packages that were looked up" in done.stdout
    page = (tmp_path / "build" / "licences.md").read_text()
    assert "| torch |" in page and len(page.splitlines()) > 50


@pytest.mark.parametrize("answer, error, why", [
    (json.dumps({"dependencies": [SKIPPED]}), "", "(not found on PyPI)"),
    ("", "nobody answers at the service", "(nobody answers at the service)"),
])  # fmt: skip
def test_what_was_not_looked_up_is_said(tmp_path, answer, error, why):
    done = audited(tmp_path, answer, error)
    assert done.returncode == 0 and "vulnerabilities: 0 of 0 packages that were looked up" in done.stdout
    assert "packages were NOT looked up, so nothing is known of them" in done.stdout and why in done.stdout
