"""What figures/ holds, as pages: the gallery, and each recipe's claim and verdicts, read from its conclusions."""

import json
import re
import shutil
import tomllib
from pathlib import Path

GALLERY = "<!-- gallery -->"
TALLY = re.compile(r"<!-- tally: (\w+) -->")


def copy(root: Path, stage: Path) -> None:
    """Copies the figures and their tables to where the gallery looks for them."""
    (stage / "figures").mkdir()
    for path in (root / "figures").iterdir():
        if path.suffix in (".png", ".csv"):
            shutil.copy(path, stage / "figures" / path.name)


def fill(text: str, root: Path) -> str:
    """Puts every figure in the place of `<!-- gallery -->`, how many claims hold in that of `<!-- tally: NAME -->`."""
    if GALLERY in text:
        text = text.replace(GALLERY, gallery(root))
    return TALLY.sub(lambda found: tally(root, found[1]), text)


def gallery(root: Path) -> str:
    """A section per figure, in the paper's order."""
    names = sorted((p.name.split(".")[0] for p in (root / "figures").glob("*.manifest.json")), key=_order)
    return "\n\n".join(_entry(root, name) for name in names)


def verdicts(root: Path, name: str) -> str:
    """The claim and what came out, as a list: figures/NAME.conclusions.md without its title."""
    told = (root / "figures" / f"{name}.conclusions.md").read_text(encoding="utf-8")
    return told.partition("\n")[2].strip()


def tally(root: Path, name: str) -> str:
    """`5 of 6`, linked: how many of a recipe's claims were confirmed; its arms against the start are no claims."""
    told = verdicts(root, name)
    judged = re.findall(r": (confirmed|not confirmed|contradicted)\b", told)
    return f"[{judged.count('confirmed')} of {len(judged)}](../gallery.md#{name})"


def title(root: Path, name: str) -> str:
    """The title of a recipe, or of the one that it is like."""
    return tomllib.loads((root / "experiments" / f"{name}.toml").read_text(encoding="utf-8"))["title"]


def command(root: Path, name: str) -> str:
    """The command that made a figure, from its manifest, without what only says where and how many at once."""
    words = json.loads((root / "figures" / f"{name}.manifest.json").read_text(encoding="utf-8"))["argv"]
    return re.sub(r" --(out|jobs) \S+", "", " ".join(["irlens", *words]))


def _entry(root: Path, name: str) -> str:
    parts = [f"## {title(root, name)} {{ #{name} }}", f"![{title(root, name)}](figures/{name}.png)"]
    parts.append(f"```sh\n{command(root, name)}\n```")
    csvs = [p.name for p in sorted((root / "figures").glob(f"{name}.*csv"))]
    parts.append("Tables: " + ", ".join(f"[{name}](figures/{name})" for name in csvs) + ".")
    if (root / "figures" / f"{name}.conclusions.md").exists():
        told = "\n".join("    " + line for line in verdicts(root, name).splitlines())
        parts.append(f'??? note "Claim, tests and verdicts"\n\n{told}')
    return "\n\n".join(parts)


def _order(name: str) -> tuple:
    kinds = ("fig", "table", "math", "budget")
    return next((i for i, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name
