"""RewardBench 2 in its authors' layout: prompts with chosen and rejected completions, as a run and its qrels.

Rows `id, prompt, chosen [text], rejected [text], subset` (and `num_correct`, `total_completions`, which must agree), from
the hub (allenai/reward-bench-2), a file (JSON lines, JSON, Parquet) or a folder with one. Five subsets have one right
completion of four; in Ties the items `ref:k` (one right answer) and `tied:k` (several) ask about the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.tasks import rows
from irlens.tasks.contract import UNSAFE, digest, folder_name, pick_split

if TYPE_CHECKING:
    import pandas as pd

HUB = "allenai/reward-bench-2"
TIES = "Ties"
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", TIES)
TIED = re.compile(r"(ref|tied):(\d+)")  # of an item of Ties: its kind, and the number that its twin has too
INSTEAD = "give its rows with --data FILE.jsonl (or .parquet, .json), or a folder with such a file"
LONGEST = 900  # letters of an identifier


def read(place: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """(run, qrels, revision) of the benchmark at `place`: a hub id (owner/name, or with @revision), a file, a folder.

    run: a row per completion, the right ones first, under query ids SUBSET/ID, with `query`, `text` and `subset`; qrels:
    relevance 1 of the right ones, 0 of the others. Raises UserError, naming the row: nothing there, an unknown subset, no
    chosen or no rejected completion, texts that are none, counts that do not agree, an item twice, an item of Ties whose
    identifier is not its own or that lacks its twin.
    """
    import pandas as pd

    placed, revision = _rows(place)
    found: list[tuple] = []
    seen: dict[str, str] = {}  # query id → where it stands
    for where, row in placed:
        subset, name, texts, right = _item(where, row)
        query_id = f"{subset}/{name}"
        if query_id in seen:
            raise UserError(f"{where}: {subset} has an item {name!r} already ({seen[query_id]})")
        seen[query_id] = where
        found += [
            (query_id, f"{query_id}/{i:03d}", 0.0, i, text, row["prompt"], subset, int(i < right))
            for i, text in enumerate(texts)
        ]
    if not found:
        raise UserError(f"{place}: no rows")
    _check_twins(seen)
    columns = ["query_id", "doc_id", "score", "rank", "text", "query", "subset", "relevance"]
    frame = pd.DataFrame(found, columns=columns)
    return frame.drop(columns="relevance"), frame[["query_id", "doc_id", "relevance"]], revision


def twin(query_id: str) -> tuple[str, int] | None:
    """("ref" or "tied", k) of an item of Ties; None of another subset's."""
    subset, _, name = query_id.partition("/")
    found = TIED.fullmatch(name) if subset == TIES else None
    return (found[1], int(found[2])) if found else None


def _item(where: str, row: dict) -> tuple[str, str, list[str], int]:
    """(subset, identifier, completions with the right ones first, how many are right) of a row."""
    if missing := [key for key in ("id", "prompt", "chosen", "rejected", "subset") if row.get(key) is None]:
        told = ", ".join(map(str, row))
        raise UserError(f"{where}: an item of RewardBench 2 needs {missing[0]!r} (found: {told or 'none'})")
    subset = _subset(where, row["subset"])
    name = row["id"]
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not 0 < len(str(name)) <= LONGEST:
        raise UserError(f"{where}: id must be a short text or a whole number, got {name!r:.80}")
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        raise UserError(f"{where}: prompt must be a text, got {row['prompt']!r:.80}")
    chosen, rejected = (_texts(where, row, key) for key in ("chosen", "rejected"))
    for key, count in (("num_correct", len(chosen)), ("total_completions", len(chosen) + len(rejected))):
        if row.get(key) is not None and row[key] != count:
            raise UserError(f"{where}: {key} is {row[key]!r:.40}, but there are {count}")
    if subset == TIES and not TIED.fullmatch(str(name)):
        raise UserError(f"{where}: an item of Ties is called ref:NUMBER or tied:NUMBER, not {name!r:.80}")
    if subset != TIES and len(chosen) != 1:
        raise UserError(f"{where}: an item of {subset} has one chosen completion, not {len(chosen)}")
    return subset, str(name), chosen + rejected, len(chosen)


def _subset(where: str, name: object) -> str:
    by_name = {known.lower(): known for known in SUBSETS}
    if not isinstance(name, str) or name.strip().lower() not in by_name:
        raise UserError(f"{where}: unknown subset {name!r:.40}; {did_you_mean(str(name), SUBSETS)}")
    return by_name[name.strip().lower()]


def _texts(where: str, row: dict, key: str) -> list[str]:
    """The completions of a kind, one at least."""
    some = row[key]
    if not isinstance(some, (list, tuple)) or not all(isinstance(text, str) for text in some):
        raise UserError(f"{where}: {key} must be a list of texts, got {some!r:.80}")
    if not some:
        raise UserError(f"{where}: no {key} completion")
    return list(some)


def _check_twins(seen: dict[str, str]) -> None:
    """Raises UserError for an item of Ties without its twin: its margins say nothing alone."""
    known = {found: where for query_id, where in seen.items() if (found := twin(query_id))}
    for (kind, number), where in known.items():
        other = "tied" if kind == "ref" else "ref"
        if (other, number) not in known:
            raise UserError(f"{where}: {TIES} has {kind}:{number} without its twin {other}:{number}")


# -- files ---------------------------------------------------------------------------------------------------------


def _rows(place: str) -> tuple[Iterator[rows.Placed], str]:
    """(rows, revision) of a path that is there, else of the hub."""
    from irlens.models import hub

    path = Path(place).expanduser()
    if path.exists():
        return _local(path)
    if rows.looks_like_a_file(place) or not hub.is_id(place):
        raise UserError(f"{place}: no such file or folder, and no hub id owner/name")
    repo, revision = hub.pinned(place, "--data")
    folder = hub.snapshot(repo, "dataset", INSTEAD, revision, allow_patterns="*.parquet")
    found = sorted(folder.rglob("*.parquet"))
    test = [file for file in found if file.name.startswith("test")] or found
    if not test:
        raise UserError(f"{place} (dataset on the Hugging Face hub): it has no Parquet file; {INSTEAD}")
    return _read(test), f"{repo}@{folder.name}"


def _local(path: Path) -> tuple[Iterator[rows.Placed], str]:
    """Those of a file, or of the split `test` (or the only one) of a folder, of its folder data/, or of `save_to_disk`."""
    from irlens.tasks import datasets_library

    if path.is_dir() and datasets_library.is_saved(path):
        found, _, revision = datasets_library.saved_rows(path, None)
        return found, revision
    splits = rows.splits(path) or rows.splits(path / "data")
    if not splits:
        raise UserError(f"{path}: no file of rows there ({rows.ENDINGS})")
    files = splits[pick_split(None, splits, str(path))]
    return _read(files), UNSAFE.sub("-", folder_name(path)) + " " + digest(*files)


def _read(files: Iterable[Path]) -> Iterator[rows.Placed]:
    return chain.from_iterable(map(rows.read, files))
