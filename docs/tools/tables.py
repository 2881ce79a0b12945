"""A CSV file as a Markdown table: `<!-- table: experiments/bench/training.csv: case, contender, seconds -->`."""

import csv
import re
from pathlib import Path

MARK = re.compile(r"^( *)<!-- table: (\S+?\.csv): (.+?) -->$", re.M)


def fill(text: str, root: Path) -> str:
    """Puts the named columns of a CSV file in the place of every mark. A column is `name` or `name as heading`."""
    return MARK.sub(lambda found: _table(root / found[2], found[3], found[1]), text)


def _table(path: Path, columns: str, indent: str) -> str:
    chosen = [(name, heading or name) for name, _, heading in (c.strip().partition(" as ") for c in columns.split(","))]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| " + " | ".join(heading for _, heading in chosen) + " |", "|" + "---|" * len(chosen)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row[name]) for name, _ in chosen) + " |")
    return "\n".join(indent + line for line in lines)


def _cell(text: str) -> str:
    if re.fullmatch(r"-?\d*\.\d{5,}(e[+-]?\d+)?|-?\d\.\d{3,}e[+-]?\d+", text):
        text = f"{float(text):.3g}"
    return text.replace("|", r"\|")
