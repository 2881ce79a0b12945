"""Shared by the commands' tests: runs whose every draw is known to be right or wrong."""

import pandas as pd
import pytest

from irlens import tables
from irlens.base import files

PROMPTS = 12


def _saved(path, right, name="p"):
    """A folder of draws: of prompt i the draws `right[i]` say whether they are right."""
    rows = [
        (f"{name}-{i}", f"prompt {i}", f"{name}-{i}/{d}", f"#### {i if r else -1}", d, float(r), [str(i)])
        for i, some in enumerate(right)
        for d, r in enumerate(some)
    ]
    columns = ["query_id", "query", "doc_id", "text", "draw", "right", "answers"]
    frame = pd.DataFrame(rows, columns=columns)
    run = tables.run(frame.drop(columns="right").assign(score=-frame["draw"])).drop(columns="reward")
    files.write_parquet(run, path / "run.parquet")
    qrels = frame[["query_id", "doc_id"]].assign(relevance=frame["right"].astype(int))
    files.write_parquet(qrels, path / "qrels.parquet")
    return path


@pytest.fixture
def saved():
    """`saved(folder, right)`: a folder of draws; of prompt i the draws `right[i]` say whether they are right."""
    return _saved


@pytest.fixture
def three(tmp_path):
    """good: right in both draws of all but one prompt; twin: the same; bad: never right."""
    good = [[1, 1]] * (PROMPTS - 1) + [[1, 0]]
    made = {"good": good, "twin": good, "bad": [[0, 0]] * PROMPTS}
    return [str(_saved(tmp_path / name, right)) for name, right in made.items()]
