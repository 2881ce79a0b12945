"""Stages `rerank` (run → run) and `verify` (run → qrels)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.base.untrusted import file_names
from irlens.commands import finished
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.runs import Source, qrels_of, read
from irlens.commands.settings import BestOfN, Rerank, Verify
from irlens.rerank import by_name
from irlens.rerank.judges import cut_in_words, refused_in_words
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd

    from irlens.rerank.reranker import Prepared, Scores


def source_of(settings: Rerank | Verify | BestOfN, say: Say) -> Source:
    """The run that a command was given. What is to be known of its thoughts is said."""
    source = read(settings.run, settings.dataset, settings.split, settings.verifier, settings.thought, settings.columns)
    say_of_thoughts(source, settings.thought, say)
    return source


def kept_of(settings: Rerank | Verify | BestOfN, source: Source, ready: Mapping[str, Prepared]) -> dict:
    """The settings that make a result what it is, resolved: not where it goes nor how the work is batched."""
    from irlens.models import thoughts

    more = {
        "thought": thoughts.record(source.thought),
        "rerankers": {name: one.identity for name, one in ready.items()},
    }
    return identity(settings, run=source.revision, **source.data(), **more)


def rerank(settings: Rerank, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Scores a run anew; returns the folder and, where judgements are known, what the first of each list is worth.

    The folder holds run.parquet (in the new order, with the column `reward`: the scores before ties were broken, and, where
    a judge's server refused to judge some, the column `refused`: why), results.csv and qrels.parquet (with judgements), trec/, shards/ of scores, and the manifest.
    """
    from irlens import tables
    from irlens.rerank.scoring import reranked

    source = source_of(settings, say)
    out = Path(settings.out or Path("irlens-out") / f"rerank-{by_name.slug(settings.reranker)}-{source.name}")
    tables.no_spaces(source.run, out / "trec")  # before a judge is paid
    given = source.given(settings, settings.seed, out / "shards", settings.qrels)
    ready = by_name.build(settings.reranker, given).prepared(source.run)
    judged = qrels_of(source, settings.qrels) if settings.qrels or source.judged is not None else None
    grades = _grades(source, judged)
    kept = kept_of(settings, source, {settings.reranker: ready}) | {"grades": grades_digest(grades)}
    with OutputFolder(out, "rerank", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv") if judged else _first(source.run, grades, None, "")
        found = ready.score()
        run = reranked(source.run, found.scores, settings.reranker, found.refused)
        _write(run, out)
        results = _first(source.run, found.scores, grades, settings.reranker)
        if judged:
            files.write_parquet(judged[0], out / "qrels.parquet")
            files.write_csv(results, out / "results.csv")
        folder.note(
            data=source.data(),
            policy=source.policy,
            queries=int(run["query_id"].nunique()),
            candidates=len(run),
            **{"reward_calls": 0} | found.facts,
        )
        _say_of_scores(found, len(run), settings.reranker, say)
        if found.facts.get("refused"):
            folder.asked = None  # those are asked again at the next start
    return out, results


def _write(run: pd.DataFrame, out: Path) -> None:
    from irlens import tables

    files.write_parquet(run, out / "run.parquet")
    names = file_names(run["tag"].astype(str), by_name.slug)
    for tag, rows in run.groupby("tag"):
        tables.write_trec_run(rows, out / "trec" / f"{names[str(tag)]}.run")


def _say_of_scores(found: Scores, texts: int, name: str, say: Say) -> None:
    """What could not be read, and what was read cut."""
    if nonsense := found.facts.get("nonsense"):
        say(f"{nonsense:,} of {found.facts['asked']:,} answers could not be read, asked twice: kept as ties")
    if cut := found.facts.get("truncated"):
        say(cut_in_words(cut, texts, name))
    if found.refused is not None and (line := refused_in_words(found.refused, name)):
        say(line)


def grades_digest(grades: np.ndarray | None) -> str | None:
    """Short SHA-256 of the grades of a run: other judgements are another result."""
    return None if grades is None else hashlib.sha256(grades.tobytes()).hexdigest()[:16]


def _grades(source: Source, judged: tuple[pd.DataFrame, str] | None) -> np.ndarray | None:
    from irlens.rerank.scoring import grades_of

    return None if judged is None else grades_of(source.run, *judged)


def _tags(run: pd.DataFrame, without: str) -> np.ndarray:
    """[rows] the tag of each row; `without` in a run that has none."""
    import numpy as np

    return run["tag"].astype(str).to_numpy() if "tag" in run.columns else np.full(len(run), without, dtype=object)


def _first(run: pd.DataFrame, scores: np.ndarray, grades: np.ndarray | None, name: str) -> pd.DataFrame:
    """What the best-scored candidate of each list is worth (ties shared), and a random one; empty without grades."""
    import pandas as pd

    from irlens.measure import stats

    out = pd.DataFrame(columns=["run", "measure", "value", "low", "high", "n"])
    if grades is None:
        return out
    parts = []
    by = _tags(run, "")
    frame = pd.DataFrame({"query_id": run["query_id"].to_numpy(), "tag": by, "score": scores, "grade": grades})
    for tag, rows in frame.groupby("tag", sort=False):
        best = rows[rows["score"] == rows.groupby("query_id")["score"].transform("max")]
        for label, some in ((f"{tag}, {name}", best), (f"{tag}, random", rows)):
            values = some.groupby("query_id")["grade"].mean().to_numpy()
            low, high = stats.mean_interval(values)
            named = {"run": label.removeprefix(", "), "measure": "grade of the first", "value": values.mean()}
            parts.append(pd.DataFrame([{**named, "low": low, "high": high, "n": len(values)}]))
    return concat(parts)


def verify(settings: Verify, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Judges a run; returns the folder and the share of right responses per tag, with its interval over queries.

    The folder holds qrels.parquet, run.parquet (as it was, so that the folder can be reranked and measured),
    results.csv, trec/ and the manifest. Verifiers by name: `irlens.rerank.verifiers`; one's own function runs code.
    """
    from dataclasses import replace

    from irlens import tables
    from irlens.rerank.scoring import need_texts
    from irlens.rerank.verify import not_judged, unreadable

    source = source_of(settings, say)
    need_texts(source.run, "a verifier")
    judge = replace(source.judge, judge_unfinished=settings.judge_unfinished)
    rule = judge.read
    kept = kept_of(settings, source, {}) | {"verifier": rule.name}
    out = Path(settings.out or Path("irlens-out") / f"verify-{by_name.slug(rule.name)}-{source.name}")
    with OutputFolder(out, "verify", kept) as folder:
        qrels = judge(source.run)
        unread = unreadable(source.run, qrels, rule.extract)
        files.write_parquet(source.run, out / "run.parquet")
        files.write_parquet(qrels.assign(unreadable=unread, not_judged=not_judged(qrels)), out / "qrels.parquet")
        if qrels["relevance"].dtype.kind == "i":  # the format knows whole grades only
            tables.write_trec_qrels(qrels, out / "trec" / "verdicts.qrels")
        results = _share_right(source.run, qrels)
        files.write_csv(results, out / "results.csv")
        folder.note(data=source.data(), policy=source.policy, **_verdicts(source, settings, qrels, unread, say))
    return out, results


def _share_right(run: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """The share of right responses of each tag, with its interval over queries."""
    import pandas as pd

    from irlens.measure import stats

    rows = []
    for tag, part in qrels.assign(tag=_tags(run, "run")).groupby("tag", sort=False):
        values = part.groupby("query_id")["relevance"].mean().to_numpy(dtype=float)
        low, high = stats.mean_interval(values)
        named = {"run": tag, "measure": "share right", "value": values.mean()}
        rows.append(named | {"low": low, "high": high, "n": len(values)})
    return pd.DataFrame(rows)


def _verdicts(source: Source, settings: Verify, qrels: pd.DataFrame, unread: np.ndarray, say: Say) -> dict:
    """What the manifest holds of the verdicts; what was not judged as it stands is said."""
    from irlens.models.thoughts import unclosed
    from irlens.rerank.scoring import finished
    from irlens.rerank.verify import not_judged, not_judged_in_words

    unfinished = int((~finished(source.run)).sum())
    if unfinished:
        what = "judged like the others" if settings.judge_unfinished else "counted as wrong"
        say(f"{unfinished:,} of {len(qrels):,} responses never finished: {what}")
    if unread.any():
        say(unreadable_in_words(int(unread.sum()), len(qrels)))
    if line := not_judged_in_words(qrels):
        say(line)
    return {
        "responses": len(qrels),
        "right": float(qrels["relevance"].sum()),
        "unfinished": unfinished,
        "unfinished_are": "judged" if settings.judge_unfinished else "wrong",
        "unclosed_thoughts": int(unclosed(source.run, source.thought).sum()),
        "unreadable": int(unread.sum()),
        "not_judged": int(not_judged(qrels).sum()),
    }


def unreadable_in_words(unread: int, responses: int) -> str:
    """How many finished responses give no answer."""
    return f"{unread:,} of {responses:,} responses finished without an answer that can be read: counted as wrong"


def say_of_thoughts(source: Source, option: str | None, say: Say) -> None:
    """How many responses never closed their thought, or that they hold thoughts which nobody named."""
    from irlens.models import thoughts

    if never := int(thoughts.unclosed(source.run, source.thought).sum()):
        say(thoughts.in_words(never, len(source.run)))
    if line := thoughts.suspicion(source.run, source.thought, option):
        say(line)


def check_names(names: str) -> list[str]:
    """The rerankers of a comma-separated list. Raises UserError for an empty one or one named twice."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found or len(set(found)) < len(found):
        raise UserError(f"--reranker {names!r}: name at least one, each once")
    return found
