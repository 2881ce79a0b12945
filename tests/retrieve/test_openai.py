"""The openai engine against a server of its own on loopback: a good one, a bad one, a dying one."""

import json
import os
import subprocess
import sys
import threading

import pandas as pd
import pytest
from asking import ASKED, SAMPLING, drawn, engine, expected, prepared

from irlens.base.errors import UserError
from irlens.retrieve.engines import Prompt, Sampling, http, openai, request_seed
from irlens.retrieve.engines.answers import Answer
from irlens.retrieve.sample import Draws, sample_run


def test_draws_are_in_order_with_seeds_of_their_own(serve):
    calls = []
    found = engine(serve()).sample(ASKED, range(4, 14), SAMPLING, lambda *made: calls.append(made))
    assert drawn(found) == expected(draws=range(4, 14))
    assert {(d.n_tokens, d.logprob, d.finish_reason) for d in found} == {(2, -0.75, "stop")}
    assert len(calls) == 40 and sum(draws for draws, _ in calls) == 400


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("told, body, tokens", [
    ("when asked", {"return_token_ids": True}, [(11, 0), (11, 1), (11, 2)]),
    ("named", {}, [(11, 0), (11, 1), (11, 2)]),
    ("when asked", {}, [None] * 3),
    ("short", {"return_token_ids": True}, [None] * 3),
])  # fmt: skip
def test_the_ids_drawn_are_those_that_the_server_tells(serve, tmp_path, chat, told, body, tokens):
    url = serve(token_ids=told)
    found = engine(url, chat=chat, body=body).sample(ASKED[:2], range(3), SAMPLING)
    assert [draw.tokens for draw in found] == tokens * 2
    run = sample_run(lambda: engine(url, chat=chat, body=body), ASKED[:2], Draws(3, (0.7,), 3, 16), tmp_path, "m", str)
    kept = pd.read_parquet(next(tmp_path.glob("T*.parquet")))
    for frame in (run, kept):
        assert [ids if ids is None else tuple(ids) for ids in frame["tokens"]] == tokens * 2


def test_vllm_is_asked_for_ids_and_no_other_server(serve):
    loaded = [openai.load(prepared(serve(owned_by=owner)), None) for owner in ("vllm", "sglang", "llamacpp", "someone")]
    assert [one.body.get("return_token_ids") for one in loaded] == [True, None, None, None]
    for one in loaded:
        one.close()


def test_greedy_draws_are_asked_for_once(serve):
    calls = []
    cold = Sampling(0.0, seed=3, max_tokens=16)
    found = engine(serve()).sample(ASKED[:5], range(4, 14), cold, lambda *made: calls.append(made))
    assert [(d.query_id, d.draw) for d in found] == [(p.query_id, d) for p in ASKED[:5] for d in range(4, 14)]
    assert all(len({d.text for d in found[i : i + 10]}) == 1 for i in range(0, 50, 10))
    assert len(calls) == 5 and sum(draws for draws, _ in calls) == 50


def test_chat_sends_the_messages(serve):
    found = engine(serve(), chat=True).sample(ASKED[:3], range(2), SAMPLING)
    assert drawn(found) == expected(ASKED[:3], range(2)) and found[0].logprob == -0.75


def test_a_server_that_ignores_n_is_asked_again_for_the_same_draws(serve):
    one = engine(serve(ignore_n=True))
    assert drawn(one.sample(ASKED[:10], range(7), SAMPLING)) == expected(ASKED[:10], range(7))
    assert one.per_request == 1


def test_without_logprobs_they_are_unknown_and_tokens_are_estimated(serve):
    found = engine(serve(logprobs=False)).sample(ASKED[:2], range(4), SAMPLING)
    assert all(d.logprob != d.logprob for d in found) and {d.n_tokens for d in found} == {2}


@pytest.mark.parametrize("ignore_n", [False, True])
def test_faults_lose_and_double_nothing(serve, ignore_n):
    urls = [serve(faults=0.4, ignore_n=ignore_n), serve(faults=0.4, ignore_n=ignore_n)]
    counted = []
    found = engine(*urls, tries=30).sample(ASKED, range(5), SAMPLING, lambda draws, _: counted.append(draws))
    assert drawn(found) == expected(draws=range(5))
    assert sum(counted) == 200


@pytest.mark.parametrize("kind", ["429", "500", "truncated", "cut", "dropped", "slow", "empty"])
def test_each_fault_alone(serve, kind):
    one = engine(serve(faults=0.5, kinds=[kind]), tries=30)
    assert drawn(one.sample(ASKED[:4], range(2), SAMPLING)) == expected(ASKED[:4], range(2))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"key": "right"}, "refused the key"),
        ({"status": 404}, "not found"),
        ({"status": 400}, "refused the request for q"),
    ],
)
def test_a_refusal_ends_it_at_once(serve, settings, message):
    with pytest.raises(UserError, match=message):
        engine(serve(**settings), tries=10**6).sample(ASKED, range(2), SAMPLING)


def test_the_servers_dead_one_is_passed_over(serve):
    dead = serve(die_after=5)
    found = engine(dead, serve(), tries=5).sample(ASKED, range(3), SAMPLING)
    assert drawn(found) == expected(draws=range(3))


def run(url, folder, **more):
    return sample_run(lambda: engine(url, **more), ASKED, Draws(60, (0.5, 1.0), 7, 16), folder, "m", lambda line: None)


def test_a_dying_server_leaves_a_folder_that_another_continues(serve, tmp_path):
    with pytest.raises(UserError, match="gave up after 3 tries for q.*same command continues"):
        run(serve(die_after=90), tmp_path / "a", tries=3)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "a").glob("T*.parquet")}
    assert kept
    pd.testing.assert_frame_equal(run(serve(), tmp_path / "a"), run(serve(), tmp_path / "b"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").glob("T*.parquet") if p.name in kept} == kept


def test_closing_ends_requests_that_wait(serve):
    waiting = engine(serve(delay=30), timeout=60)
    threading.Timer(0.5, waiting.close).start()
    with pytest.raises(UserError):
        waiting.sample(ASKED[:1], range(1), SAMPLING)


def test_a_hint_of_when_to_come_back_is_read():
    told = [
        http.retry_after({} if t is None else {"retry-after": t}) for t in ("1.5", "-3", "99999", "soon", None, "nan")
    ]
    assert told == [1.5, 0.0, http.LONGEST_TOLD, None, None, None]
    assert http.retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_prepare_finds_the_protocol_and_the_model(serve):
    url = serve()
    options = prepared(f"{url.removesuffix('/v1')}/, {url}")
    assert options.base_url == f"{url},{url}" and options.served_model == "stub"


def test_prepare_refuses_what_cannot_work(serve, monkeypatch):
    with pytest.raises(UserError, match="no server answers"):
        prepared("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="no server answers"):
        prepared("localhost:8000")
    with pytest.raises(UserError, match="does not serve 'other'; it serves: stub"):
        prepared(serve(), served_model="other")
    with pytest.raises(UserError, match="malformed JSON"):
        prepared(serve(), engine_args="{")
    closed = serve(key="right")
    with pytest.raises(UserError, match="refused the key .401.*set MY_KEY"):
        prepared(closed, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "right")
    assert prepared(closed, api_key_env="MY_KEY").served_model == "stub"
    with pytest.raises(UserError, match="needs --base-url"):
        prepared(None, engine="openai")


def test_sampling_habits_of_a_server_are_switched_off(serve, tmp_path):
    options = prepared(serve(owned_by="llamacpp"), engine_args='{"logprobs": null}')
    loaded = openai.load(options, None)
    assert loaded.body == {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "logprobs": None}
    loaded.close()


class Tokenizer:
    bos_token, bos_token_id = "<s>", 1

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [1] * (add_special_tokens + text.count("<s>")) + [5] * len(text.replace("<s>", ""))}


def test_bos_is_left_to_a_server_that_writes_it_and_two_are_refused():
    one = engine("http://127.0.0.1:9", tokenizer=Tokenizer())
    prompt = Prompt("q", "<s>abc")
    assert one._text(prompt) == "abc"
    one._check_bos(prompt, Answer([], 4, None))
    with pytest.raises(UserError, match="a second <s>"):
        one._check_bos(prompt, Answer([], 5, None))


@pytest.mark.slow
def test_passk_through_a_server(serve, tmp_path):
    url = serve()
    args = ("passk", "--limit", "20", "-n", "8", "--temperature", "0.5", "--base-url", url, "--out", tmp_path / "a")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "irlens", *map(str, args)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert shown.returncode == 0, shown.stderr
    assert f"engine: openai (stub at {url})" in shown.stdout and "160 draws, 320 tokens" in shown.stdout
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["engine"] == "openai" and "server's own" in manifest["draws_are"]
    assert manifest["sampling"]["draws"] == 160 and manifest["gpu_seconds"] is None
    assert len(pd.read_parquet(tmp_path / "a" / "run.parquet")) == 160


def test_seeds_of_requests_never_meet():
    starts = {request_seed(0, f"q{i}", t, 0) for i in range(1319) for t in (0.1, 0.2, 0.5, 0.7, 1.0)}
    assert len(starts) == 1319 * 5 and all(s % 2**16 == 0 and s < 2**53 for s in starts)
    assert request_seed(0, "q", 1, 7) == request_seed(0, "q", 1.0, 0) + 7
    with pytest.raises(UserError, match="seeds for 65,536 draws"):
        request_seed(0, "q", 1.0, 2**16)
