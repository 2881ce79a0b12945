"""BM25: the lexical retriever, and the baseline that every learned one has to beat."""

import warnings

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base.errors import UserError, did_you_mean
from irlens.base.progress import progress_bar

SILENT = 10_000  # a search over more documents than this shows its progress


class BM25:
    """An index over a corpus (`doc_id, text`, and `title` where there is one), held in memory. A `Retriever`.

    Lucene's variant: a query term adds idf · tf / (tf + k1 · (1 − b + b · length / mean length)), where
    idf = ln(1 + (N − df + ½) / (df + ½)). Words are lower-cased runs of two or more letters or digits, without bm25s's
    English stop words, cut to their stems (`stemmer`: a Snowball language, or None).
    """

    def __init__(self, corpus: pd.DataFrame, k1: float = 1.5, b: float = 0.75, stemmer: str | None = "english"):
        import bm25s

        if not k1 >= 0 or not 0 <= b <= 1:
            raise UserError(f"BM25: k1 must be at least 0 and b between 0 and 1, got k1={k1}, b={b}")
        corpus = corpus if isinstance(corpus, pd.DataFrame) else corpus.frame()  # of a corpus that need not fit
        tables.check(corpus, "corpus")
        if corpus.empty:
            raise UserError("BM25: the corpus is empty; give it at least one document")
        _check_strings(corpus, "text", "corpus")
        self._stemmer = _stemmer(stemmer)
        self._corpus = corpus.sort_values("doc_id", ascending=False, ignore_index=True)  # a stable sort settles ties so
        texts = self._corpus["text"].astype(object)
        if "title" in corpus.columns:
            texts = self._corpus["title"].astype(object).fillna("").astype(str) + " " + texts
        words = self._words(texts)
        if not any(words):
            raise UserError("BM25: no document has a word to index (stop words and single letters do not count)")
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        self._index.index(words, show_progress=False)

    def __call__(self, topics: pd.DataFrame, n: int) -> pd.DataFrame:
        """The run of the n best documents of every topic (see `search`), all that match where there are no more.

        With the documents' `title`, where they have one, and the `query`.
        """
        if n < 1:
            raise UserError(f"BM25: n must be at least 1, got {n}")
        run = self.search(topics, min(n, len(self)))
        if "title" in self._corpus.columns:
            run["title"] = run["doc_id"].map(dict(zip(self._corpus["doc_id"], self._corpus["title"])))
        return tables.with_queries(run, topics)

    def __len__(self) -> int:
        return len(self._corpus)

    def search(self, topics: pd.DataFrame, k: int = 100) -> pd.DataFrame:
        """The run of the `k` best documents of every query: `query_id, doc_id, score, rank, text, tag`.

        Of equal scores the larger doc_id is first, at the cut after k too. A document that shares no word with the query is not
        retrieved, so a query can have fewer than k rows; one warning counts the queries that have none at all.
        """
        tables.check(topics, "topics")
        _check_strings(topics, "query", "topics")
        if not 1 <= k <= len(self):
            raise UserError(f"BM25: k={k} of a corpus of {len(self)} documents; k must be between 1 and {len(self)}")
        found = self._found(self._words(topics["query"]), k)
        counts = np.array([len(rows) for rows, _ in found], dtype=np.int64)
        self._warn_unmatched(topics["query_id"][counts == 0])
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
        run = pd.DataFrame(
            {
                "query_id": topics["query_id"].to_numpy(dtype=object).repeat(counts),
                "doc_id": self._corpus["doc_id"].to_numpy(dtype=object)[rows],
                "score": np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)]),
                "rank": np.zeros(len(rows), np.int64),
                "text": self._corpus["text"].to_numpy(dtype=object)[rows],
                "tag": "bm25",
            }
        )
        return tables.ranked(run)

    def _best(self, words: list[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and scores of the k best documents, best first; rows are in the falling order of doc_id."""
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(words))
        rows = np.flatnonzero(scores > 0)
        if len(rows) > k:  # every document that ties with the k-th takes part in the sort
            rows = rows[scores[rows] >= np.partition(scores[rows], -k)[-k]]
        rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return rows, scores[rows]

    def _words(self, texts: pd.Series) -> list[list[str]]:
        import bm25s

        return bm25s.tokenize(
            texts.tolist(), stopwords="english", stemmer=self._stemmer, return_ids=False, show_progress=False
        )

    def _found(self, queries: list[list[str]], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        with progress_bar(silent=len(self) <= SILENT, unit="queries", passing=True) as progress:
            bar = progress.add_task("BM25", total=len(queries), rate="")
            found = []
            for words in queries:
                found.append(self._best(words, k))
                progress.update(bar, advance=1)
        return found

    @staticmethod
    def _warn_unmatched(query_ids: pd.Series) -> None:
        if len(query_ids):
            first = ", ".join(query_ids.head(3)) + (", …" if len(query_ids) > 3 else "")
            warnings.warn(
                f"BM25: queries that share no word with any document: {len(query_ids)} ({first})", stacklevel=3
            )


def _stemmer(language: str | None):
    import Stemmer

    if language is None:
        return None
    if language not in Stemmer.algorithms():
        raise UserError(f"BM25: unknown stemmer {language!r}: {did_you_mean(str(language), Stemmer.algorithms())}")
    return Stemmer.Stemmer(language)


def _check_strings(frame: pd.DataFrame, column: str, table: str) -> None:
    bad = ~frame[column].map(lambda value: isinstance(value, str)).astype(bool)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(f"{table}: row {row}: {column} must be a string, got {frame[column].tolist()[row]!r}")
