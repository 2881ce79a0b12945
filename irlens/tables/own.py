"""Tables from what is at hand: prompts become topics, and one's own draws a run."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables.contracts import check, ranked


def query_id_of(query: str) -> str:
    """The query_id of a prompt that has none: a digest of its text, so that topics and draws of the same prompt meet."""
    return hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def topics(
    queries: Sequence[str] | Mapping[str, str] | pd.DataFrame,
    answers: Sequence | None = None,
    messages: Sequence | None = None,
) -> pd.DataFrame:
    """Topics from prompts: texts, or query_id → text, or a frame that holds them already (it is checked and copied).

    answers: for each prompt its right answer, or several of them. messages: for each prompt a chat to answer, instead
    of its text. Prompts without identifiers get `query_id_of` their text. Raises UserError: no prompt, a prompt twice,
    lengths that differ, an identifier or prompt that is no text.
    """
    if isinstance(queries, pd.DataFrame):
        found = queries.copy()
    elif isinstance(queries, Mapping):
        found = pd.DataFrame({"query_id": list(queries), "query": list(queries.values())}, dtype=object)
    else:
        texts = [queries] if isinstance(queries, str) else list(queries)
        bad = next((text for text in texts if not isinstance(text, str)), None)
        if bad is not None:
            raise UserError(f"topics: a prompt must be a text, got {bad!r:.80}")
        if (again := next((text for text, count in Counter(texts).items() if count > 1), None)) is not None:
            raise UserError(
                f"topics: the prompt {again!r:.80} is there twice; give such prompts identifiers: {{id: text}}"
            )
        found = pd.DataFrame({"query_id": [query_id_of(text) for text in texts], "query": texts}, dtype=object)
    if found.empty:
        raise UserError("topics: no prompt")
    for name, given in (("answers", answers), ("messages", messages)):
        if given is None:
            continue
        if isinstance(given, str) or len(given) != len(found):
            count = "a single text" if isinstance(given, str) else len(given)
            raise UserError(f"topics: {name} must have one entry for each of the {len(found)} prompts, got {count}")
        several = [[one] if isinstance(one, (str, int, float)) else list(one) for one in given]
        found[name] = [[str(a) for a in some] for some in several] if name == "answers" else several
    return check(found, "topics")


def run(draws: Iterable[tuple] | pd.DataFrame, name: str | None = None) -> pd.DataFrame:
    """A run from one's own draws: (query, response) or (query, response, score) each, or a frame.

    A query is a prompt's text (its query_id is `query_id_of` it, as `topics` has it). A frame has a column `query_id`
    or `query` (or `prompt`), and `text` (or `response`, `completion`), and whatever else a run knows, which is kept.
    Scores order a prompt's draws and are its column `reward`; without them the order of the rows is the order of drawing.
    `name` becomes the run's tag. Raises UserError: no draw, a column that is missing, a score that some draws lack.
    """
    if not isinstance(draws, pd.DataFrame):
        draws = _from_tuples(draws)
    found = draws.rename(columns={"prompt": "query", "response": "text", "completion": "text"})
    if found.empty:
        raise UserError("run: no draw")
    missing = [c for c in ("query", "text") if c not in found.columns and not (c == "query" and "query_id" in found)]
    if missing:
        raise UserError(f"run: no column {missing[0]} (found: {', '.join(map(str, draws.columns))})")
    for column, what in (("query", "query"), ("text", "response")):
        given = found[column].tolist() if column in found.columns else []
        bad = next((i for i, value in enumerate(given) if not isinstance(value, str)), None)
        if bad is not None:
            raise UserError(f"run: row {bad}: a {what} must be a text, got {given[bad]!r:.80}")
    if "query_id" not in found.columns:
        found = found.assign(query_id=[query_id_of(query) for query in found["query"]])
    place = found.groupby("query_id", sort=False).cumcount()
    if "doc_id" not in found.columns:
        found = found.assign(doc_id=[f"{query_id}/{i:05d}" for query_id, i in zip(found["query_id"], place)])
    if "score" in found.columns:
        scores = pd.to_numeric(found["score"], errors="coerce")
        if scores.isna().any():
            raise UserError(
                f"run: {int(scores.isna().sum())} of {len(found)} draws have no score; give all one, or none"
            )
        found = found.assign(score=scores.astype(float))
        found = found if "reward" in found.columns else found.assign(reward=found["score"])
    else:
        found = found.assign(score=0.0 - place, draw=place)
    found = found.assign(rank=0) if name is None else found.assign(rank=0, tag=name)
    return ranked(check(found.reset_index(drop=True), "run"))


def _from_tuples(draws: Iterable[tuple]) -> pd.DataFrame:
    rows = list(draws)
    for row in rows:
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
            raise UserError(f"run: a draw is (query, response) or (query, response, score), got {row!r:.80}")
    found = pd.DataFrame([(*row, None)[:3] for row in rows], columns=["query", "text", "score"], dtype=object)
    return found.drop(columns="score") if found["score"].isna().all() else found
