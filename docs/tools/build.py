"""`make docs`: the pages that are written and those that are generated, built by Zensical, every link followed.

    python docs/tools/build.py

Pages are staged in build/docs, the site is build/site. Nothing is fetched, and nothing in the source tree is written.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "tools")]

import commands  # noqa: E402
import layout  # noqa: E402
import links  # noqa: E402
import public  # noqa: E402
import tables  # noqa: E402

import figures  # noqa: E402

STAGE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"


def stage() -> None:
    """Copies docs/ and the files that its pages show, fills the pages' marks and writes the generated pages."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGE, ignore=shutil.ignore_patterns("tools", "__pycache__"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, STAGE / name.lower())
    figures.copy(ROOT, STAGE)
    commands.write(STAGE / "reference" / "commands")
    for page in STAGE.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for filled in (figures, tables, layout):
            text = filled.fill(text, ROOT)
        page.write_text(public.fill(text), encoding="utf-8")


def main() -> int:
    stage()
    environment = os.environ | {"NO_COLOR": "1"}
    if subprocess.run(["zensical", "build", "--strict", "--clean"], cwd=ROOT, env=environment).returncode:
        return 1
    wrong = links.wrong(SITE)
    print(*wrong, sep="\n", file=sys.stderr)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}, {len(wrong)} broken or remote links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
