"""Draws in the store: any command finds what another drew, no other content is answered, two processes share the work."""

import json
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irlens.base import store as stores
from irlens.base.errors import UserError
from irlens.retrieve.engines import Draw, Engine, Prompt
from irlens.retrieve.policy import Policy
from irlens.retrieve.sample import Asked, Block, Draws, sample_run
from irlens.retrieve.stored import Stored, rectangles

ASKED = [Prompt(f"q{i}", f"text {i}", ({"role": "user", "content": f"text {i}"},)) for i in range(30)]
DRAWS = Draws(8, (0.5, 1.0), 7, 16, source="weights", made_with="engine", called="m")
ONE = replace(DRAWS, n=2, temperatures=(0.5,))


class Counting(Engine):
    """An engine whose draws are a function of what names them."""

    def __init__(self):
        self.made = []

    def sample(self, asked, draws, sampling, on_batch=None):
        names = [(p, sampling.temperature, d) for p in asked for d in draws]
        self.made += [(p.query_id, t, d) for p, t, d in names]
        return [
            Draw(p.query_id, d, f"{p.text} {t} {d} {sampling.seed}", 3, -1.5, "stop", (1, d + 2)) for p, t, d in names
        ]


@pytest.fixture
def draw(tmp_path):
    """Draws into a folder, with the store of all these folders or without, and says how many were made."""
    number = iter(range(10**6))

    def run(asked=ASKED, draws=DRAWS, store=True, say=str, engine=None):
        engine = engine or Counting()
        folder = tmp_path / f"out-{next(number)}"
        with stores.use(tmp_path / "store" if store else None, say):
            found = sample_run(lambda: engine, asked, draws, folder, "m", say)
        return found, engine.made, folder

    return run


def test_the_same_draws_in_another_folder_load_no_engine_and_are_the_same_to_the_byte(draw, tmp_path):
    alone, made, folder = draw(store=False)
    assert len(made) == 30 * 8 * 2
    _, made, first = draw()
    assert len(made) == 30 * 8 * 2
    said = []
    again, made, second = draw(engine=None, say=said.append)
    assert made == [] and said == [f"m: 480 of 480 draws were in the store {tmp_path / 'store'}"]
    assert again.equals(alone)
    for found in (first, second):
        assert {p.name: p.read_bytes() for p in found.glob("T*")} == {p.name: p.read_bytes() for p in folder.glob("T*")}
    for path in second.glob("T*"):
        assert path.samefile(first / path.name)


@pytest.mark.parametrize("first, then, made", [
    ({"n": 100}, {"n": 200}, 30 * 100 * 2),
    ({"n": 200}, {"n": 100}, 0),
    ({"n": 8}, {"n": 16}, 30 * 8 * 2),
    ({"n": 16}, {"n": 3}, 0),
    ({"temperatures": (0.5,)}, {"temperatures": (1.0, 0.5)}, 30 * 8),
])  # fmt: skip
def test_more_or_fewer_draws_make_only_what_is_missing(draw, first, then, made):
    draw(draws=replace(DRAWS, **first))
    found, drawn, _ = draw(draws=replace(DRAWS, **then))
    assert len(drawn) == made
    alone, _, _ = draw(draws=replace(DRAWS, **then), store=False)
    pd.testing.assert_frame_equal(found, alone)


@pytest.mark.parametrize("some", [ASKED[:20], ASKED[::-1], ASKED[5:25:3], [*ASKED[:3], Prompt("new", "text")]])
def test_other_prompts_around_them_change_nothing(draw, some):
    draw()
    found, made, _ = draw(some)
    assert {name for name, _, _ in made} == {p.query_id for p in some} - {p.query_id for p in ASKED}
    pd.testing.assert_frame_equal(found, draw(some, store=False)[0])


def test_draws_without_a_name_for_their_maker_are_not_kept(draw, tmp_path):
    unnamed = replace(DRAWS, made_with=None)
    draw(draws=unnamed)
    assert len(draw(draws=unnamed)[1]) == 480 and not list((tmp_path / "store").glob("??/*"))


def test_a_changed_file_in_the_store_is_drawn_again(draw, tmp_path):
    first, _, folder = draw()
    said = []
    for path in (tmp_path / "store").glob("??/*"):
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole.replace(b"text", b"test"))
    again, made, _ = draw(say=said.append)
    assert len(made) == 480 and sum("dropped" in line for line in said) == len(list(folder.glob("T*")))
    pd.testing.assert_frame_equal(again, first)


def test_an_index_that_points_to_other_rows_is_not_believed(draw, tmp_path):
    import sqlite3

    first, _, _ = draw()
    with sqlite3.connect(tmp_path / "store" / "index.sqlite") as db:
        db.execute("UPDATE items SET row = 0")
    db.close()
    said = []
    again, made, _ = draw(say=said.append)
    assert len(made) == 480 and len(said) == 1 and "index.sqlite cannot be used (malformed entry)" in said[0]
    pd.testing.assert_frame_equal(again, first)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_changes_in_the_index_the_draws_are_right(data, counted):
    """Draws of three seeds, which differ in nothing that the rows tell; then a byte of the index is another one."""
    folder = next(counted)
    with stores.use(folder / "store", str):
        for seed in range(3):
            sample_run(Counting, ASKED[:2], replace(ONE, seed=seed), folder / f"out-{seed}", "m", str)
    path = folder / "store" / "index.sqlite"
    whole = path.read_bytes()
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=20))
    path.write_bytes(bytes(byte ^ (1 if i in places else 0) for i, byte in enumerate(whole)))
    with stores.use(folder / "store", str):
        found = sample_run(Counting, ASKED[:2], replace(ONE, seed=1), folder / "again", "m", str)
    assert found["text"].tolist() == [f"{p.text} 0.5 {d} 1" for p in ASKED[:2] for d in range(2)]


@pytest.fixture
def counted(tmp_path):
    return (tmp_path / f"example-{i}" for i in range(10**6))


def changed(text, place):
    """`text` with one byte changed."""
    raw = text.encode()
    place %= len(raw)
    return (raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]).decode("latin-1")


@pytest.fixture
def kept(draw, tmp_path):
    """A store that holds two draws of the first prompt."""
    draw(ASKED[:1], ONE)
    with stores.Store(tmp_path / "store") as store:
        yield store


CHANGES = {
    "text": lambda p, d, at: (replace(p, text=changed(p.text, at)), d),
    "query_id": lambda p, d, at: (replace(p, query_id=changed(p.query_id, at)), d),
    "role": lambda p, d, at: (replace(p, messages=({**p.messages[0], "role": changed("user", at)},)), d),
    "message": lambda p, d, at: (replace(p, messages=({**p.messages[0], "content": changed("text 0", at)},)), d),
    "messages": lambda p, d, at: (replace(p, messages=(*p.messages, p.messages[0])), d),
    "source": lambda p, d, at: (p, replace(d, source=changed(d.source, at))),
    "made_with": lambda p, d, at: (p, replace(d, made_with=changed(d.made_with, at))),
    "seed": lambda p, d, at: (p, replace(d, seed=d.seed ^ (1 << at % 30))),
    "max_tokens": lambda p, d, at: (p, replace(d, max_tokens=d.max_tokens ^ (1 << at % 12))),
    "temperature": lambda p, d, at: (p, replace(d, temperatures=(0.5 + 2.0 ** -(at % 50 + 1),))),
}


def answered(store, prompt, draws, folder):
    """How many draws of a prompt the store has."""
    whole = Asked([prompt], draws)
    return Stored(store, whole, folder).take([Block(float(draws.temperatures[0]), 0, 1, 0, draws.n)])


@given(what=st.sampled_from(sorted(CHANGES)), at=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_byte_anywhere_misses(kept, tmp_path, what, at):
    assert answered(kept, ASKED[0], ONE, tmp_path / "same") == 2
    prompt, draws = CHANGES[what](ASKED[0], ONE, at)
    assert answered(kept, prompt, draws, tmp_path / "other") == 0
    assert answered(kept, ASKED[0], replace(ONE, n=3), tmp_path / "longer") == 2  # the third was never drawn


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A copy of the embedded model that may be changed."""
    import shutil

    from irlens.models import catalog

    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(catalog.fetch(catalog.model("tiny")), folder)
    return folder


def name_of(folder):
    """What names its draws; None of a folder that is refused."""
    try:
        policy = Policy(str(folder), engine="transformers")
        return policy._source(), policy._made_with()
    except UserError:
        return None


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_one_changed_byte_in_any_file_of_the_model_is_another_model(model, data):
    names = sorted(path.name for path in model.iterdir() if path.is_file())
    path = model / data.draw(st.sampled_from(names))
    whole, before = path.read_bytes(), name_of(model)
    place = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert name_of(model) != before
    finally:
        path.write_bytes(whole)
    assert name_of(model) == before


def test_a_server_and_ones_own_engine_have_no_content_to_be_named_by(tmp_path):
    (tmp_path / "mine.py").write_text("def load(options, weights):\n    return None\n")
    assert Policy("tiny", engine="transformers")._made_with() is not None
    assert Policy("tiny", engine="openai", base_url="http://localhost:1/v1")._made_with() is None


def test_rectangles_of_what_is_there():
    there = [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    found = list(rectangles(Block(1.0, 10, 14, 20, 24), pd.DataFrame(there).to_numpy(dtype=bool)))
    assert found == [
        Block(1.0, 10, 12, 20, 22),
        Block(1.0, 10, 12, 23, 24),
        Block(1.0, 13, 14, 20, 24),
    ]


# -- two processes -------------------------------------------------------------------------------------------------

RACE = """
import json, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_stored import ASKED, DRAWS, Counting, replace, sample_run, stores

place, me, other = Path(sys.argv[2]), sys.argv[3], sys.argv[4]


class Meeting(Counting):
    shard_rows = 24

    def sample(self, *args):
        if not self.made:  # both are at work before one has made anything
            (place / f"{me} began").touch()
            while not (place / f"{other} began").exists():
                time.sleep(0.01)
        return super().sample(*args)


engine = Meeting()
with stores.use(place / "store"):
    run = sample_run(lambda: engine, ASKED, replace(DRAWS, n=int(sys.argv[5])), place / me, "m", str)
run.to_parquet(place / f"{me}.parquet")
print(json.dumps(engine.made))
"""


def race(tmp_path, first, second):
    """What two processes made that began together, each asked for so many draws a prompt."""
    commands = [
        [sys.executable, "-c", RACE, __file__, str(tmp_path), *names, str(n)]
        for names, n in ((("a", "b"), first), (("b", "a"), second))
    ]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    made = []
    for process in running:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        made.append([tuple(one) for one in json.loads(out.splitlines()[-1])])
    return made


def test_two_processes_divide_what_both_need(tmp_path, draw):
    a, b = race(tmp_path, 8, 8)
    assert a and b and not set(a) & set(b) and len(a) + len(b) == 480
    alone, _, _ = draw(store=False)
    for name in "ab":
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), alone, check_dtype=False)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


KILLED = RACE.replace("        return super().sample(*args)", "        import os\n        os.kill(os.getpid(), 9)")


def test_what_a_killed_process_had_begun_another_makes(tmp_path, draw):
    (tmp_path / "b began").touch()
    command = [sys.executable, "-c", KILLED, __file__, str(tmp_path), "a", "b", "8"]
    assert subprocess.run(command, capture_output=True).returncode == -9
    found, made, _ = draw()
    assert len(made) == 480
    pd.testing.assert_frame_equal(found, draw(store=False)[0])
