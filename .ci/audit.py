"""What an environment holds: known vulnerabilities (pip-audit), and the licence of every package (build/licences.md).

    python .ci/audit.py PYTHON_OF_THE_ENVIRONMENT

runs where pip-audit is installed. The exit code is 1 for a package with a known vulnerability, and 0 otherwise: also where
the service that knows them does not answer, which is said.
"""

import json
import subprocess
import sys
from pathlib import Path

LISTED = """
import json
from importlib import metadata
def licence(found):
    said = found.get("License-Expression") or (found.get("License") or "").strip().split("\\n")[0][:60]
    classified = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier") or () if c.startswith("License :: ")]
    return said or ", ".join(classified) or "not told"
all = {d.metadata["Name"].lower(): [d.metadata["Name"], d.version, licence(d.metadata)] for d in metadata.distributions()}
print(json.dumps([all[name] for name in sorted(all)]))
"""
COPYLEFT = ("GPL", "AGPL", "SSPL", "EUPL")  # of these a distributor must know


def licences(python: str) -> list[list[str]]:
    """(name, version, licence) of every package of an environment."""
    return json.loads(subprocess.run([python, "-c", LISTED], capture_output=True, text=True, check=True).stdout)


def vulnerable(python: str) -> tuple[list[dict], int, str]:
    """(packages with known vulnerabilities, packages that were looked up, why others were not)."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--path", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], 0, (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    why = next((one["skip_reason"] for one in found if "skip_reason" in one), "")
    return [one for one in found if one.get("vulns")], sum("vulns" in one for one in found), why


def main(python: str) -> int:
    """Prints both, and writes the licences."""
    packages = licences(python)
    page = Path("build") / "licences.md"
    page.parent.mkdir(exist_ok=True)
    rows = ["| package | version | licence |", "|---|---|---|", *(f"| {' | '.join(one)} |" for one in packages)]
    page.write_text("\n".join(rows) + "\n", encoding="utf-8")
    copyleft = [f"{name} ({said})" for name, _, said in packages if any(word in said for word in COPYLEFT)]
    unknown = [name for name, _, said in packages if said == "not told"]
    print(f"licences: {len(packages)} packages, see {page}; copyleft: {', '.join(copyleft) or 'none'}; "
          f"not told: {', '.join(unknown) or 'none'}")  # fmt: skip
    found, asked, why = vulnerable(python)
    for one in found:
        print(f"{one['name']} {one['version']}: {', '.join(v['id'] for v in one['vulns'])}")
    print(f"vulnerabilities: {len(found)} of {asked} packages that were looked up")
    if asked < len(packages):
        print(f"{len(packages) - asked} packages were NOT looked up, so nothing is known of them ({why})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
