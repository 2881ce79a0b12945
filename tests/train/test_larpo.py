"""Algorithm 1: one page, one loop for the command and the notebook, and what its steps remember."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.commands.settings import Train
from irlens.commands.train import train
from irlens.models.weights import stored
from irlens.train import larpo as page
from irlens.train.options import LarpoOptions

SMALL = {"prompts": 24, "n": 4, "epochs": 1, "batch_lists": 8}


def test_the_algorithm_is_one_page():
    source = Path(page.__file__).read_text(encoding="utf-8").splitlines()
    assert len(source) <= 120
    loop = next(i for i, line in enumerate(source) if line.lstrip().startswith("for s in range(1, "))
    steps = [line.rpartition("# ")[2] for line in source[loop : loop + 8] if "  # " in line]
    assert steps == ["retrieve, rerank", "negatives", "train"]


@pytest.mark.slow
def test_the_loop_in_a_notebook_is_that_of_the_command(tmp_path):
    """The same draws, rewards and lists, the second iteration's from the policy as it was saved, here in bfloat16; the start
    keeps its weights."""
    small = SMALL | {"save_dtype": "bfloat16"}
    folder, _, _ = train(
        Train(out=str(tmp_path / "command"), iterations=2, eval_limit=4, eval_n=2, test_limit=0, **small),
        lambda _: None,
    )
    policies = irlens.larpo("tiny", irlens.load("sums", "train"), iterations=2, out=tmp_path / "notebook", **small)
    assert len(policies) == 3
    for s in (1, 2):
        ours, theirs = (
            pd.read_parquet(root / f"iteration-{s}" / "lists.parquet") for root in (tmp_path / "notebook", folder)
        )
        pd.testing.assert_frame_equal(ours[theirs.columns], theirs)
        runs = [pd.read_parquet(root / f"iteration-{s}" / "run.parquet") for root in (tmp_path / "notebook", folder)]
        assert {stored(r / f"iteration-{s}" / "model")[1] for r in (tmp_path / "notebook", folder)} == {"BF16"}
        assert runs[0]["reward"].tolist() == runs[1]["reward"].tolist() and set(runs[0]["reward"]) == {0.0, 1.0}
    again = irlens.larpo("tiny", irlens.load("sums", "train"), iterations=2, out=tmp_path / "notebook", **small)
    assert [p.folder for p in again[1:]] == [p.folder for p in policies[1:]]
    weights = policies[2].folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a model that is not as it was written is trained again
    irlens.larpo("tiny", irlens.load("sums", "train"), iterations=2, out=tmp_path / "notebook", **small)
    assert weights.read_bytes() == whole
    others = [({"seed": 1}, "seed = 0, now 1"), ({"judge": "length"}, "now 'length'")]
    others += [({"save_dtype": "float32"}, "save_dtype = 'bfloat16', now 'float32'")]
    for more, named in others:
        with pytest.raises(UserError, match=named):  # another run's tables are never read
            irlens.larpo(
                "tiny", irlens.load("sums", "train"), iterations=2, out=tmp_path / "notebook", **(small | more)
            )
    with pytest.raises(UserError, match="holds nothing of `larpo`"):
        irlens.larpo("tiny", irlens.load("sums", "train"), out=folder, **small)


def test_without_a_folder_every_policy_holds_weights_of_its_own():
    start = irlens.Policy("tiny")
    policies = irlens.larpo(
        start, irlens.load("sums", "train", 12), judge=lambda run: -run["text"].str.len(),
        objective="pairwise", iterations=1, learning_rate=1e-3, **{**SMALL, "prompts": 12},
    )  # fmt: skip
    assert policies[0] is start and policies[1].model is not start.model
    first = next(p for p in policies[1].model.parameters())
    assert not (first == next(p for p in start.model.parameters())).all()


def test_wrong_settings_are_refused_before_a_draw():
    task = irlens.load("sums", "train", 4)
    for more, message in (({"promts": 3}, "did you mean 'prompts'"), ({"n": 1}, "nothing to rank"),
                          ({"tier": "easy"}, "here it is own"), ({"iterations": 0}, "--iterations")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            irlens.larpo("tiny", task, **more)


def test_prompts_go_on_and_begin_anew():
    topics = pd.DataFrame({"query_id": list("abcde"), "query": "?"})
    options = LarpoOptions(prompts=3)
    asked = ["".join(page.prompts_of(topics, options, s)["query_id"]) for s in (1, 2, 3)]
    assert asked == ["abc", "dea", "bcd"]
    assert list(page.prompts_of(topics, options, 1).columns) == ["query_id", "query"]
    same = LarpoOptions(prompts=3, same_prompts=True)
    assert "".join(page.prompts_of(topics, same, 3)["query_id"]) == "abc"


def draws_of(rewards):
    """A run of one prompt, a draw a reward; texts differ."""
    ids = [f"q/{i}" for i in range(len(rewards))]
    texts = [f"draw {i} of {rewards}" for i in range(len(rewards))]
    run = pd.DataFrame({"query_id": "q", "doc_id": ids, "text": texts, "reward": rewards})
    return run.assign(score=[-float(i) for i in range(len(rewards))], rank=range(len(rewards)), finish_reason="stop")


PART = SimpleNamespace(topics=pd.DataFrame({"query_id": ["q"], "query": ["?"]}))


def test_memory_merges_runs_and_gives_rewards_of_a_list_anew():
    runs = {1: draws_of([1.0, 2.0]), 2: draws_of([3.0, 4.0]), 3: draws_of([5.0, 6.0])}
    kept = {
        memory: page.remember(runs, PART, LarpoOptions(memory=memory), str)["reward"].tolist()
        for memory in ("current", "previous", "all")
    }
    assert kept == {"current": [5, 6], "previous": [3, 4, 5, 6], "all": [1, 2, 3, 4, 5, 6]}

    class Anew:
        relative = True

        def __call__(self, pool, s):
            return pool.assign(reward=float(s))

    assert page.remember(runs, PART, LarpoOptions(memory="all"), Anew())["reward"].tolist() == [3.0] * 6


def test_lists_have_the_shape_that_was_asked_for():
    options = LarpoOptions(objective="listmle", positives=2, negatives=3, lists=1)
    lists, without = page.cut_from(draws_of([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), PART, options, 2, True)
    assert lists["grade"].tolist() == [6.0, 5.0, 1.0, 2.0, 3.0] and set(lists["iteration"]) == {2} and without.empty


def test_sft_imitates_the_best_of_rewards_below_zero():
    lists, _ = page.cut_from(draws_of([-2.0, -1.0]), PART, LarpoOptions(objective="sft"), 1, True)
    assert lists["grade"].tolist() == [-1.0]
