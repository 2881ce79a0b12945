"""`module:function` in the place of a name: what cannot be used is refused in one line that names the option."""

import pandas as pd
import pytest

from irlens import tasks
from irlens.base import plugins
from irlens.base.errors import UserError
from irlens.rerank.by_name import reranker
from irlens.retrieve import engines
from irlens.train import losses as objectives

CODE = """
number = 3
def plain(scores): return scores.policy.sum()
def bare(scores, beta): return 0
def few(run): return [1.0]
def no_task(split, limit): return 5
def load(split, limit):
    import pandas as pd
    from irlens.tasks import Task
    return Task("own", "test", pd.DataFrame({"query_id": ["1"], "query": ["What?"]}))
def broken(run): return run["no such column"]
"""


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_code.py").write_text(CODE)
    (folder / "own_broken.py").write_text("1 / 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.mark.parametrize("name, message", [
    ("no_such_module:f", "--objective no_such_module:f: No module named 'no_such_module' .a module is looked for"),
    ("own_code:absent", "--objective own_code:absent: .*no attribute 'absent'"),
    ("own_code:number", "number is no function"),
    ("own_broken:f", "importing it failed .ZeroDivisionError"),
    ("own_code:bare", "parameters whose defaults are numbers"),
])  # fmt: skip
def test_what_cannot_be_an_objective(name, message):
    with pytest.raises(UserError, match=message):
        objectives.get(name)


def test_every_kind_names_its_option():
    with pytest.raises(UserError, match="^--dataset no_such:load"):
        tasks.load("no_such:load")
    with pytest.raises(UserError, match="^--dataset no_such:load"):
        tasks.splits("no_such:load")
    with pytest.raises(UserError, match="^--engine no_such:load"):
        engines.module("no_such:load")


def test_a_task_is_known_by_its_topics():
    assert len(tasks.load("own_code:load").revision) == 16
    assert tasks.splits("own_code:load") == []
    with pytest.raises(UserError, match="must return an irlens.tasks.Task, got int"):
        tasks.load("own_code:no_task")
    with pytest.raises(UserError, match=r"--dataset os:getcwd: is called as load\(split, limit\), and cannot be"):
        tasks.load("os:getcwd")


def test_a_reranker_gives_a_number_per_row():
    run = pd.DataFrame({"query_id": ["a", "a"], "doc_id": ["1", "2"], "score": [1.0, 0.0], "text": ["x", "y"]})
    run["rank"] = [0, 1]
    with pytest.raises(UserError, match=r"it gave \(1,\) scores for a run of 2 rows"):
        reranker("own_code:few")(run)
    with pytest.raises(UserError, match="it failed: KeyError: 'no such column'"):
        reranker("own_code:broken")(run)


def test_only_that_form_is_code():
    assert plugins.named("a.b:c")
    for name in ("vllm", "irds:a/b", "C:\\data", "regex:(a)", "http://host:80/v1", "judge:", "a b:c"):
        assert not plugins.named(name)
