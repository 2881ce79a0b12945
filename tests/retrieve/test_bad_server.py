"""The openai engine against a server that breaks the protocol: no draw lost or doubled, or one line and a folder that
continues. One server does it all; a request tells it how to fail."""

import json

import pandas as pd
import pytest
from asking import ASKED, SAMPLING, drawn, engine, expected, prepared
from bad_server import BROKEN, KINDS, ODD, OTHER, REFUSED

from irlens.base.errors import UserError
from irlens.rerank.by_name import reranker
from irlens.retrieve.engines import openai
from irlens.retrieve.sample import Draws, sample_run

MIXED = [kind for kind in BROKEN if kind not in ("hang", "slow drip")]  # these take a timeout each
MOST = 300 - len("irlens: ")  # letters of a message


@pytest.fixture(scope="module")
def url(serve_all):
    return serve_all("retrieve/bad_server.py")


def failing(url, faults, kinds, **more):
    told = {"body": {"stub": {"faults": faults, "kinds": list(kinds)}}, "timeout": 0.4, "tries": 60, "pause": 0.005}
    return engine(url, **told | more)


def sampled(one, *args):
    try:
        return one.sample(*args)
    finally:
        one.close()


def refusal(url, kind, **more):
    with pytest.raises(UserError) as told:
        sampled(failing(url, 1.0, [kind], tries=2, **more), ASKED[:2], range(2), SAMPLING)
    line = str(told.value)
    assert len(line) <= MOST and line.isprintable() and line.endswith("the same command continues them")
    return line


@pytest.mark.parametrize("kind", BROKEN)
def test_of_each_fault_now_and_then_nothing_is_lost_or_doubled(url, kind):
    found = sampled(failing(url, 0.5, [kind], chat=len(kind) % 2 == 0), ASKED[:4], range(3), SAMPLING)
    assert drawn(found) == expected(ASKED[:4], range(3))


@pytest.mark.parametrize("kind", BROKEN)
def test_each_fault_for_ever_is_that_requests_own_error(url, kind):
    assert "gave up after 2 tries for q" in refusal(url, kind, chat=len(kind) % 2 == 1)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_asking_again_cannot_help_ends_at_once(url, kind):
    assert kind in refusal(url, kind) or "302 it points to /v1/completions" in refusal(url, kind)


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_and_no_fault_is_taken(url, kind):
    found = sampled(failing(url, 1.0, [kind], tries=2), ASKED[:4], range(3), SAMPLING)
    assert drawn(found) == expected(ASKED[:4], range(3))
    assert {draw.n_tokens for draw in found} == {2} and {draw.tokens for draw in found} == {None}


@pytest.mark.parametrize("chat", [False, True])
def test_all_faults_at_once(url, chat):
    counted = []
    one = failing(url, 0.6, [*MIXED, *ODD], chat=chat, concurrency=16)
    found = sampled(one, ASKED, range(6), SAMPLING, lambda draws, _: counted.append(draws))
    assert drawn(found) == expected(draws=range(6)) and sum(counted) == 240


@pytest.mark.parametrize("kind", ["401", "HTML", "answered twice", "reset"])
def test_a_folder_continues_whatever_ended_it(url, tmp_path, kind):
    def run(folder, faults, *temperatures):
        def load():
            return failing(url, faults, [kind], tries=2)

        return sample_run(load, ASKED[:5], Draws(8, temperatures, 7, 16), folder, "m", lambda line: None)

    run(tmp_path / "a", 0.0, 0.5)
    with pytest.raises(UserError, match="same command continues"):
        run(tmp_path / "a", 1.0, 0.5, 1.0)
    whole = run(tmp_path / "b", 0.0, 0.5, 1.0)
    pd.testing.assert_frame_equal(run(tmp_path / "a", 0.0, 0.5, 1.0), whole)
    assert len(whole) == 80 and whole["doc_id"].is_unique


def test_long_names_make_no_long_line(url):
    far = url.removesuffix("/v1") + "/" + "x" * 300
    with pytest.raises(UserError) as told:
        sampled(engine(far, tries=2), [ASKED[0].__class__("q" * 500, "x")], range(1), SAMPLING)
    assert len(str(told.value)) <= MOST


def test_a_judge_at_such_a_server_says_what_it_says_at_a_good_one(url):
    texts = ["short", "rather longer", "the longest of them all"]
    run = pd.DataFrame({"query_id": "a", "doc_id": list("xyz"), "text": texts, "query": "?", "score": [3.0, 2.0, 1.0]})
    run["rank"] = range(3)

    def judged(**settings):
        told = json.dumps({"stub": {"reply": "longer", **settings}})
        found = reranker("judge", base_url=url, engine_args=told, concurrency=4)(run)
        return found.sort_values("doc_id")["reward"].tolist()

    assert judged(faults=0.4, kinds=[*MIXED, *ODD]) == judged() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("kind", ["deep JSON", "false encoding", "HTML", "huge body", "a list", "choices words", "500"])
def test_a_list_of_models_that_is_none_is_no_list(serve, kind):
    assert prepared(serve("retrieve/bad_server.py", models=kind), served_model="stub").served_model == "stub"


def test_a_server_that_drops_every_connection_is_no_server(serve):
    with pytest.raises(UserError, match="no server answers there"):
        prepared(serve("retrieve/bad_server.py", models="reset"))


def test_empty_answers_are_kept_counted_and_shown(url, tmp_path):
    said = []
    run = sample_run(
        lambda: failing(url, 1.0, ["empty"]), ASKED[:3], Draws(4, (0.7,), 3, 16), tmp_path, "m", said.append
    )
    assert run["text"].eq("").all()
    assert "m: 12 of 12 draws are empty; they are kept, and are no answer" in said


def test_an_end_that_nobody_knows_is_no_end(url):
    found = sampled(failing(url, 1.0, ["unknown end"]), ASKED[:1], range(2), SAMPLING)
    assert {draw.finish_reason for draw in found} == {"length"}


@pytest.mark.parametrize("kind", ["logprob NaN", "lone surrogate", "401"])
def test_a_command_ends_in_one_line(url, refused, monkeypatch, tmp_path, kind):
    monkeypatch.setitem(openai.OpenAIEngine.__init__.__kwdefaults__, "tries", 2)
    told = json.dumps({"stub": {"faults": 1, "kinds": [kind]}})
    asked = ("passk", "--limit", "6", "-n", "4", "--temperature", "0.5", "--base-url", url, "--engine-args", told)
    line = refused(*asked, "--out", tmp_path / "out")
    assert len(line.strip()) <= 300 and "the same command continues" in line


def test_there_are_25_kinds_and_more():
    assert len(KINDS) >= 25 and len(KINDS) == len(BROKEN) + len(ODD) + len(REFUSED) + len(OTHER)
