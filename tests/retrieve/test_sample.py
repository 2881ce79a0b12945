"""Draws as a run: shards that survive a kill, longer runs that continue shorter ones, prompts."""

import pandas as pd
import pytest

from irlens.catalog import PLAIN_PROMPT
from irlens.retrieve.engines import Draw, Engine, Prompt
from irlens.retrieve.sample import prompts, sample_run
from irlens.tables import check

ASKED = [Prompt(f"q{i}", f"text {i}") for i in range(30)]


class Counting(Engine):
    """An engine whose draws are a function of their names; it dies after `lives` calls."""

    def __init__(self, lives=10**9):
        self.lives, self.made = lives, []

    def sample(self, asked, draws, sampling, on_batch=None):
        if not self.lives:
            raise KeyboardInterrupt
        self.lives -= 1
        names = [(p.query_id, sampling.temperature, d) for p in asked for d in draws]
        self.made += names
        return [Draw(q, d, f"{q} {t} {d} {sampling.seed}", 3, -1.5, "stop") for q, t, d in names]


def run(folder, n=100, temperatures=(0.5, 1.0), engine=None, say=print):
    return sample_run(lambda: engine or Counting(), ASKED, n, temperatures, 7, 16, folder, "m", say)


def test_a_run_is_a_run(tmp_path):
    drawn = check(run(tmp_path), "run")
    assert len(drawn) == 30 * 100 * 2
    assert list(drawn["tag"].unique()) == ["m T=0.5", "m T=1"]
    one = drawn[(drawn["query_id"] == "q3") & (drawn["temperature"] == 1.0)]
    assert one["draw"].tolist() == one["rank"].tolist() == list(range(100))
    assert one["score"].is_monotonic_decreasing and one["score"].is_unique
    assert drawn["query_id"].drop_duplicates().tolist() == [p.query_id for p in ASKED]


@pytest.mark.parametrize("first, then", [(100, 200), (8, 16), (30, 64), (64, 64)])
def test_more_draws_continue_fewer(tmp_path, first, then):
    fewer = run(tmp_path / "a", first)
    engine, said = Counting(), []
    more = run(tmp_path / "a", then, engine=engine, say=said.append)
    assert len(engine.made) == 30 * 2 * (then - first) == len(set(engine.made))
    assert said == [f"reused {30 * 2 * first:,} of {30 * 2 * then:,} draws from {tmp_path / 'a'}"]
    pd.testing.assert_frame_equal(more, run(tmp_path / "b", then))
    kept = more[more["draw"] < first].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, fewer)


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", engine=Counting(lives=3))
    (tmp_path / "a" / ".T0.5-q000000-000016-d000000-000050.parquet.x.tmp").write_bytes(b"half a shard")
    engine = Counting()
    resumed = run(tmp_path / "a", engine=engine)
    unbroken = Counting()
    pd.testing.assert_frame_equal(resumed, run(tmp_path / "b", engine=unbroken))
    assert 0 < len(engine.made) < len(unbroken.made)


def test_unusual_temperatures_are_told_apart(tmp_path):
    temperatures = (1e-05, 0.1, 0.10000001)
    first = run(tmp_path, 2, temperatures)
    assert first["doc_id"].is_unique and first["tag"].nunique() == 3
    again = Counting()
    pd.testing.assert_frame_equal(first, run(tmp_path, 2, temperatures, engine=again))
    assert not again.made


def test_a_finished_run_loads_no_engine(tmp_path):
    first = run(tmp_path)
    again = sample_run(lambda: pytest.fail("the engine was loaded"), ASKED, 100, (0.5, 1.0), 7, 16, tmp_path, "m")
    pd.testing.assert_frame_equal(first, again)


class ChatTokenizer:
    chat_template = "there is one"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_prompts_of_a_chat_model_and_of_a_plain_one():
    topics = pd.DataFrame({"query_id": ["a"], "query": ["How {many}?"]})
    assert (
        prompts(topics, ChatTokenizer(), "End with #### N.")[0].text
        == "<user>How {many}?\n\nEnd with #### N.<assistant>"
    )
    assert prompts(topics, object(), "ignored")[0].text == PLAIN_PROMPT.format(query="How {many}?")
    own = topics.assign(messages=[[{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]])
    assert prompts(own, ChatTokenizer())[0].text == "<system>S<user>U<assistant>"
