"""Pairs of answers by a reranker's scores, and the journal of a judge's answers."""

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.rerank import judgements, questions
from irlens.rerank.reranker import Prepared, Scores, Scoring

PAIRS = pd.DataFrame(
    {
        "instruction": ["p", "p", "q"],
        "generator_2": ["a", "b", "a"],
        "output_1": ["base", "base", "base"],
        "output_2": ["long answer", "base", "b"],
    }
)


def scoring(relative, seen):
    """The length of a text, less the mean of its list where scores hold within one only."""

    def prepare(run, _):
        seen.append(run)
        length = run["text"].str.len().astype(float)
        mean = length.groupby([run["query_id"], run["tag"]]).transform("mean") if relative else 0.0
        return Prepared(lambda: Scores((length - mean).to_numpy()))

    return Scoring("test", prepare, relative=relative)


@pytest.mark.parametrize("relative, rows", [(False, 4), (True, 5)])
def test_the_higher_score_wins(relative, rows):
    """A text is scored once for a prompt, or once for each pair that is a list of its own."""
    seen = []
    found = judgements.by_scores(PAIRS, scoring(relative, seen))
    assert found["preference"].tolist() == [2.0, 1.5, 1.0]
    assert found["reason"].tolist() == ["", judgements.SAME, ""]
    assert len(seen[0]) == rows and "preference" not in PAIRS.columns
    lists = seen[0].groupby(["query_id", "tag"]).size()
    assert lists.tolist() == ([2, 1, 2] if relative else [2, 2])


def test_a_journal_keeps_whole_lines_only(tmp_path):
    journal = questions.Journal(tmp_path / "answers.jsonl")
    said = [questions.Said(1.25, answer="“m”\n", prompt_tokens=3), questions.Said(None, "refused: no")]
    for key, one in zip("ab", said):
        journal.add(key, one)
    again = questions.Journal(journal.path)
    assert again.said == dict(zip("ab", said)) and again.damaged == 0
    assert [one.final for one in again.said.values()] == [True, False]
    whole = journal.path.read_bytes()
    for at in range(0, len(whole) - 1, 7):  # whatever byte is changed, no answer is another one
        journal.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = questions.Journal(journal.path)
        assert found.damaged and all(found.said[key] == again.said[key] for key in found.said)
        assert questions.Journal(journal.path).damaged == 0  # what was damaged is gone


def test_scores_that_are_no_numbers_are_refused():
    from irlens.rerank.reranker import of_function

    with pytest.raises(UserError, match="score not finite"):
        judgements.by_scores(PAIRS, of_function(lambda run: np.full(len(run), np.nan), "own"))
