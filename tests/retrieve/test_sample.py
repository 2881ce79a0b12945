"""Draws as a run: shards that survive a kill, longer runs that continue shorter ones, prompts."""

import errno
import json
import threading
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irlens.base.files import write_parquet
from irlens.models.catalog import PLAIN_PROMPT
from irlens.models.chat import prompts
from irlens.retrieve.engines import Draw, Engine, Prompt
from irlens.retrieve.meter import read_account
from irlens.retrieve.sample import Draws, doc_id, sample_run
from irlens.tables import check

ASKED = [Prompt(f"q{i}", f"text {i}") for i in range(30)]


class Counting(Engine):
    """An engine whose draws are a function of their names; it dies after `lives` calls."""

    shard_least = Engine.shard_rows  # so that a shard is as large as it may be

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
    return sample_run(lambda: engine or Counting(), ASKED, Draws(n, temperatures, 7, 16), folder, "m", say)


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
    again = sample_run(
        lambda: pytest.fail("the engine was loaded"), ASKED, Draws(100, (0.5, 1.0), 7, 16), tmp_path, "m"
    )
    pd.testing.assert_frame_equal(first, again)


def other_run(folder, asked=ASKED, seed=7, max_tokens=16, source="", engine=None, say=str):
    return sample_run(lambda: engine or Counting(), asked, Draws(8, (0.5,), seed, max_tokens, source), folder, "m", say)


@pytest.mark.parametrize("change", [
    {"seed": 8},
    {"max_tokens": 17},
    {"source": "other weights"},
    {"asked": [Prompt(p.query_id, p.text + "!") for p in ASKED]},
    {"asked": [Prompt(p.query_id, p.text, ({"role": "user", "content": "!"},)) for p in ASKED]},
    {"asked": ASKED[::-1]},
    {"asked": ASKED[:20]},
])  # fmt: skip
def test_a_folder_of_other_draws_never_answers_for_these(tmp_path, change):
    first = other_run(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("T*")}
    engine, said = Counting(), []
    found = other_run(tmp_path / "a", **change, engine=engine, say=said.append)
    assert len(engine.made) == 8 * len(change.get("asked", ASKED)) and not any("reused" in line for line in said)
    assert (
        said[0]
        == f"{tmp_path / 'a'}: 1 shards are of other draws (another seed, prompt, model …): left there, not read"
    )
    pd.testing.assert_frame_equal(found, other_run(tmp_path / "b", **change))
    assert before.items() <= {path.name: path.read_bytes() for path in (tmp_path / "a").glob("T*")}.items()
    pd.testing.assert_frame_equal(first, other_run(tmp_path / "a", engine=Counting(lives=0)))  # nothing is drawn again


def test_a_shard_without_a_key_is_not_read(tmp_path):
    run(tmp_path / "a", 10)
    for path in (tmp_path / "a").glob("T*.parquet"):
        path.rename(path.with_name(path.name.rpartition("-")[0] + ".parquet"))  # as an older version named it
    engine, said = Counting(), []
    run(tmp_path / "a", 10, engine=engine, say=said.append)
    assert len(engine.made) == 600 and "2 shards are of other draws" in said[0]


def test_shards_that_know_no_ids_give_a_run_without(tmp_path):
    first = run(tmp_path, 10)
    for path in tmp_path.glob("T*.parquet"):
        write_parquet(pd.read_parquet(path).drop(columns="tokens"), path)
    again = run(tmp_path, 10, engine=Counting(lives=0))
    pd.testing.assert_frame_equal(again, first)
    assert again["tokens"].isna().all()


def test_the_ids_drawn_are_kept(tmp_path):
    class Telling(Counting):
        def sample(self, asked, draws, sampling, on_batch=None):
            found = super().sample(asked, draws, sampling)
            return [replace(d, tokens=(1, d.draw + 300) if d.draw else None) for d in found]

    for _ in range(2):  # as they were drawn, and as the shard has them
        drawn = check(run(tmp_path, 3, engine=Telling()), "run")
        kept = [None if ids is None else list(ids) for ids in drawn["tokens"][:3]]
        assert kept == [None, [1, 301], [1, 302]]
    write_parquet(drawn, tmp_path / "run.parquet")
    assert pq.read_schema(tmp_path / "run.parquet").field("tokens").type == pa.list_(pa.int32())


class AtOnce(Counting):
    """Counting, from threads: two calls of it must be under way before one returns."""

    at_once, gpus = 3, 2.0

    def __init__(self, dies_at=None):
        super().__init__()
        self.meet, self.dies_at, self.closed = threading.Barrier(2, timeout=20), dies_at, False

    def sample(self, asked, draws, sampling, on_batch=None):
        if draws.start == self.dies_at:
            raise RuntimeError("a worker died")
        if self.dies_at is None:
            self.meet.wait()
        drawn = super().sample(asked, draws, sampling)
        on_batch(len(drawn), 3 * len(drawn))
        return drawn

    def close(self):
        self.closed = True


def test_calls_at_once_give_the_rows_of_one_at_a_time(tmp_path):
    engine, said = AtOnce(), []
    many = run(tmp_path / "a", 200, engine=engine, say=said.append)
    pd.testing.assert_frame_equal(many, run(tmp_path / "b", 200))
    assert engine.closed and said[-1].startswith("m: made 12,000 draws, 36,000 tokens, ")
    account = json.loads((tmp_path / "a" / "sampled.json").read_text())
    assert account["draws"] == 12_000 and account["tokens"] == 36_000
    assert account["gpu_seconds"] == pytest.approx(2 * account["seconds"], abs=0.1)


def test_a_failure_among_calls_at_once_is_raised_and_continued(tmp_path):
    engine = AtOnce(dies_at=100)
    with pytest.raises(RuntimeError, match="a worker died"):
        run(tmp_path / "a", 200, engine=engine)
    assert engine.closed
    pd.testing.assert_frame_equal(run(tmp_path / "a", 200), run(tmp_path / "b", 200))


def test_the_account_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a" / "shards", engine=Counting(lives=3))
    assert 0 < read_account(tmp_path)["draws"] < 6000
    run(tmp_path / "a" / "shards")
    assert read_account(tmp_path)["draws"] == 6000


def test_a_full_disk_leaves_a_folder_that_continues(tmp_path, monkeypatch):
    written = []

    def full(frame, path):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write_parquet(frame, path)

    monkeypatch.setattr("irlens.retrieve.sample.write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "a")
    monkeypatch.undo()
    assert len(written) == 3 and all(len(pd.read_parquet(path)) for path in written)
    engine = Counting()
    pd.testing.assert_frame_equal(run(tmp_path / "a", engine=engine), run(tmp_path / "b"))
    assert len(engine.made) == 6000 - sum(len(pd.read_parquet(path)) for path in written)


def test_a_lost_shard_between_others_is_drawn_again_once(tmp_path):
    run(tmp_path / "a", 10)
    run(tmp_path / "a", 20)
    run(tmp_path / "a", 30)
    for path in (tmp_path / "a").glob("T*-d000010-000020-*.parquet"):
        path.unlink()
    pd.testing.assert_frame_equal(run(tmp_path / "a", 40), run(tmp_path / "b", 40))


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
    assert doc_id("q", 0.0, 3) == doc_id("q", -0.0, 3) == "q/T0/00003"
    own = topics.assign(messages=[[{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]])
    assert prompts(own, ChatTokenizer())[0].text == "<system>S<user>U<assistant>"


class Long(Counting):
    """Counting, of which a call may ask for 4,000 tokens."""

    shard_tokens = 4000

    def __init__(self, lives=10**9):
        super().__init__(lives)
        self.asked = []

    def sample(self, asked, draws, sampling, on_batch=None):
        self.asked.append(len(asked) * len(draws) * sampling.max_tokens)
        return super().sample(asked, draws, sampling)


def long_run(folder, n, max_tokens, engine):
    return sample_run(lambda: engine, ASKED, Draws(n, (1.0,), 7, max_tokens), folder, "m", str)


@pytest.mark.parametrize("n, max_tokens, most, shards", [
    (100, 2, 3000, 2),  # 30 prompts × 50 draws, as ever
    (60, 64, 3200, 60),  # a prompt × 50
    (50, 100, 4000, 60),  # a prompt × 40
    (2, 5000, 5000, 60),
])  # fmt: skip
def test_a_shard_is_a_bounded_number_of_tokens(tmp_path, n, max_tokens, most, shards):
    """Within a prompt too; a draw that is longer than a shard may be is one of its own."""
    engine = Long()
    drawn = long_run(tmp_path / "a", n, max_tokens, engine)
    assert len(drawn) == 30 * n == len(set(engine.made)) and len(engine.asked) == len(list((tmp_path / "a").glob("T*")))
    assert (max(engine.asked), len(engine.asked)) == (most, shards)
    pd.testing.assert_frame_equal(drawn, long_run(tmp_path / "b", n, max_tokens, Counting()))


def test_a_longer_run_of_long_draws_continues_a_shorter_one(tmp_path):
    long_run(tmp_path / "a", 44, 100, Long())
    engine = Long()
    more = long_run(tmp_path / "a", 56, 100, engine)
    assert len(engine.made) == 30 * 12 and max(engine.asked) <= 4000
    pd.testing.assert_frame_equal(more, long_run(tmp_path / "b", 56, 100, Counting()))


def test_long_draws_continue_shards_that_were_cut_by_their_number_alone(tmp_path):
    long_run(tmp_path / "a", 60, 100, Counting())  # two shards, of 30 prompts × 50 and × 10 draws
    engine = Long()
    long_run(tmp_path / "a", 60, 100, engine)
    assert not engine.made


def test_all_draws_are_divided_for_several_devices_but_not_into_crumbs(tmp_path):
    class Dividing(Counting):
        shard_least = 64

    for n, shards in ((2, 1), (20, 10), (200, 40)):  # of up to 64 draws; of 64, 3 prompts × 20; of 188, 3 prompts × 50
        long_run(tmp_path / str(n), n, 8, Dividing())
        assert len(list((tmp_path / str(n)).glob("T*"))) == shards
        pd.testing.assert_frame_equal(
            long_run(tmp_path / str(n), n, 8, Counting(lives=0)), long_run(tmp_path / f"whole {n}", n, 8, Counting())
        )


def test_short_draws_are_cut_as_ever(tmp_path):
    """2000 draws of a shard have at most 524 tokens each before their number falls."""
    for max_tokens, first in ((524, "q000000-000030-d000000-000050"), (2**18, "q000000-000001-d000000-000004")):
        long_run(tmp_path / str(max_tokens), 52 if max_tokens < 1000 else 4, max_tokens, Counting())
        assert min(path.name for path in (tmp_path / str(max_tokens)).glob("T*")).startswith(f"T1-{first}-")
