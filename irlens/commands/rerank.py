"""Stages `rerank` (run → run) and `verify` (run → qrels)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.commands.folder import OutputFolder
from irlens.commands.runs import Source, qrels_of, read
from irlens.commands.settings import Rerank, Verify
from irlens.rerank import by_name as rerankers
from irlens.rerank.judges import cut_in_words
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def kept_of(settings, source: Source, ready: list[rerankers.Reranker]) -> dict:
    """The settings that make a result what it is, resolved: not where it goes nor how the work is batched."""
    from irlens.models import thoughts

    more = {"thought": thoughts.record(source.thought), "rerankers": {one.name: one.identity for one in ready}}
    return identity(settings, run=source.revision, **source.data(), **more)


def rerank(settings: Rerank, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Scores a run anew; returns the folder and, where judgements are known, what the first of each list is worth.

    The folder holds run.parquet (in the new order, with the column `reward`: the scores before ties were broken),
    results.csv and qrels.parquet (with judgements), trec/, shards/ of scores, and the manifest.
    """
    from irlens import tables
    from irlens.rerank.scoring import reranked

    source = read(settings.run, settings.dataset, settings.split, settings.verifier, settings.thought)
    say_of_thoughts(source, settings.thought, say)
    ready = rerankers.build(settings.reranker, source, settings)
    judged = qrels_of(source, settings.qrels) if settings.qrels or source.judged is not None else None
    grades = _grades(source, judged)
    kept = kept_of(settings, source, [ready]) | {"grades": grades_digest(grades)}
    out = Path(settings.out or Path("irlens-out") / f"rerank-{rerankers.slug(settings.reranker)}-{source.name}")
    with OutputFolder(out, "rerank", kept) as folder:
        found = ready.run(out / "shards")
        run = reranked(source.run, found.scores, settings.reranker)
        files.write_parquet(run, out / "run.parquet")
        for tag, rows in run.groupby("tag"):
            tables.write_trec_run(rows, out / "trec" / f"{rerankers.slug(str(tag))}.run")
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
        if nonsense := found.facts.get("nonsense"):
            say(f"{nonsense:,} of {found.facts['asked']:,} answers could not be read, asked twice: kept as ties")
        if cut := found.facts.get("truncated"):
            say(cut_in_words(cut, len(run), settings.reranker))
    return out, results


def grades_digest(grades: np.ndarray | None) -> str | None:
    """Short SHA-256 of the grades of a run: other judgements are another result."""
    return None if grades is None else hashlib.sha256(grades.tobytes()).hexdigest()[:16]


def _grades(source: Source, judged: tuple[pd.DataFrame, str] | None) -> np.ndarray | None:
    from irlens.measure.best_of_n import grades_of

    return None if judged is None else grades_of(source.run, *judged)


def _first(run: pd.DataFrame, scores: np.ndarray, grades: np.ndarray | None, name: str) -> pd.DataFrame:
    """What the best-scored candidate of each list is worth (ties shared), and a random one; empty without grades."""
    import pandas as pd

    from irlens.measure import stats

    out = pd.DataFrame(columns=["run", "measure", "value", "low", "high", "n"])
    if grades is None:
        return out
    parts = []
    by = run["tag"].astype(str).to_numpy() if "tag" in run.columns else [""] * len(run)
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
    from irlens import tables
    from irlens.measure import stats
    from irlens.models.thoughts import unclosed
    from irlens.rerank.scoring import finished, need_texts
    from irlens.rerank.verify import unreadable
    from irlens.rerank.verify import verify as judge

    source = read(settings.run, settings.dataset, settings.split, settings.verifier, settings.thought)
    say_of_thoughts(source, settings.thought, say)
    need_texts(source.run, "a verifier")
    verifier, topics = source.verifier, source.task.topics
    kept = kept_of(settings, source, []) | {"verifier": verifier.name}
    out = Path(settings.out or Path("irlens-out") / f"verify-{rerankers.slug(verifier.name)}-{source.name}")
    with OutputFolder(out, "verify", kept) as folder:
        qrels = judge(source.run, topics, verifier.judge, settings.judge_unfinished, verifier.needs_answers)
        unread = unreadable(source.run, qrels, verifier.extract)
        files.write_parquet(source.run, out / "run.parquet")
        files.write_parquet(qrels.assign(unreadable=unread), out / "qrels.parquet")
        if qrels["relevance"].dtype.kind == "i":  # the format knows whole grades only
            tables.write_trec_qrels(qrels, out / "trec" / "verdicts.qrels")
        unfinished = int((~finished(source.run)).sum())
        rows = []
        tags = source.run["tag"].astype(str) if "tag" in source.run.columns else ["run"] * len(source.run)
        for tag, part in qrels.assign(tag=list(tags)).groupby("tag", sort=False):
            values = part.groupby("query_id")["relevance"].mean().to_numpy(dtype=float)
            low, high = stats.mean_interval(values)
            named = {"run": tag, "measure": "share right", "value": values.mean()}
            rows.append(named | {"low": low, "high": high, "n": len(values)})
        results = _frame(rows)
        files.write_csv(results, out / "results.csv")
        folder.note(
            data=source.data(),
            policy=source.policy,
            responses=len(qrels),
            right=float(qrels["relevance"].sum()),
            unfinished=unfinished,
            unfinished_are="judged" if settings.judge_unfinished else "wrong",
            unclosed_thoughts=int(unclosed(source.run, source.thought).sum()),
            unreadable=int(unread.sum()),
        )
        if unfinished:
            what = "judged like the others" if settings.judge_unfinished else "counted as wrong"
            say(f"{unfinished:,} of {len(qrels):,} responses never finished: {what}")
        if unread.any():
            say(unreadable_in_words(int(unread.sum()), len(qrels)))
    return out, results


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


def _frame(rows: list[dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)


def check_names(names: str) -> list[str]:
    """The rerankers of a comma-separated list. Raises UserError for an empty one or one named twice."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found or len(set(found)) < len(found):
        raise UserError(f"--reranker {names!r}: name at least one, each once")
    return found
