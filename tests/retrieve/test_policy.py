"""`irlens.Policy` as a notebook uses it: by name or as a pair in this process, a run in memory or kept in a folder."""

import subprocess
import sys

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import irlens
from irlens.base.errors import UserError
from irlens.base.protocols import Retriever
from irlens.commands.passk import passk as run_passk
from irlens.commands.settings import PassK
from irlens.models import catalog


@pytest.fixture(scope="module")
def task():
    return irlens.load("sums", split="test", limit=4)


@pytest.fixture
def pair():
    folder = catalog.fetch(catalog.model("tiny"))
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def run(task):
    return irlens.Policy("tiny").sample(task.topics, n=4, seed=3)


def own(run):
    return run.drop(columns="query")


def test_importing_irlens_loads_nothing_heavy_and_sets_nothing():
    code = (
        "import os, sys; before = dict(os.environ); import irlens\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy and dict(os.environ) == before and 'Policy' in dir(irlens), heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_retrievers_are_one_kind(task):
    corpus = irlens.load("facts", limit=2).corpus.head(20)
    for retriever in (irlens.Policy("tiny"), irlens.BM25(corpus), irlens.Dense("tiny-e5", corpus)):
        assert isinstance(retriever, Retriever)


def test_a_policy_is_called_like_any_retriever(task, run):
    found = irlens.Policy("tiny")(task.topics, 2)
    assert found["query_id"].value_counts().tolist() == [2] * 4 and (found["temperature"] == 1.0).all()


def test_draws_are_those_of_the_command(task, run, tmp_path):
    settings = PassK(limit=4, n=4, temperature=(0.5, 1.0), seed=3, at=(1,), out=str(tmp_path / "out"))
    folder, _ = run_passk(settings, lambda line: None)
    command = pd.read_parquet(folder / "run.parquet").astype({"query_id": object})
    both = irlens.Policy("tiny").sample(task, n=4, temperature=(0.5, 1.0), seed=3)
    pd.testing.assert_frame_equal(own(both), command)
    one = command[command["temperature"] == 1.0].reset_index(drop=True)
    pd.testing.assert_frame_equal(own(run), one)


def test_a_pair_in_this_process_draws_what_its_files_draw(task, run, pair):
    policy = irlens.Policy(pair)
    pd.testing.assert_frame_equal(policy.sample(task.topics, n=4, seed=3), run)
    assert policy.model is pair[0] and policy.tokenizer is pair[1] and policy.max_tokens == 96
    policy.close()
    assert policy.model is pair[0]


def test_nothing_is_written_without_a_folder(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    irlens.Policy("tiny").sample(task.topics, n=2)
    assert not list(tmp_path.iterdir())


def test_a_folder_keeps_draws_and_more_of_them_continue(task, run, tmp_path, monkeypatch):
    policy = irlens.Policy("tiny")
    fewer = policy.sample(task.topics, n=2, seed=3, out=tmp_path)
    pd.testing.assert_frame_equal(fewer, run[run["draw"] < 2].reset_index(drop=True))
    pd.testing.assert_frame_equal(policy.sample(task.topics, n=4, seed=3, out=tmp_path), run)
    monkeypatch.setattr(policy, "_open", lambda: pytest.fail("an engine was started"))
    pd.testing.assert_frame_equal(policy.sample(task.topics, n=4, seed=3, out=tmp_path), run)


def test_a_folder_never_gives_the_draws_of_other_weights(task, pair, tmp_path):
    import torch

    policy = irlens.Policy(pair)
    first = policy.sample(task.topics, n=2, out=tmp_path)
    with torch.no_grad():
        for weights in pair[0].parameters():
            weights.mul_(0.5)
    second = policy.sample(task.topics, n=2, out=tmp_path)
    assert (first["text"] != second["text"]).any()
    pd.testing.assert_frame_equal(policy.sample(task.topics, n=2), second)


def test_a_model_in_training_stays_in_training_and_draws_as_it_is(task, pair):
    model = pair[0].train()
    irlens.Policy(pair).sample(task.topics, n=1)
    assert model.training
    policy = irlens.Policy("tiny")
    before = policy.sample(task.topics, n=2)
    policy.model.lm_head.weight.data.mul_(0.1)  # trained in place: what is scored is what draws
    after = policy.sample(task.topics, n=2)
    assert (before["text"] != after["text"]).any()
    assert policy.logprobs(after)["logprob"].to_numpy() == pytest.approx(after["logprob"].to_numpy(), abs=1e-3)


def test_within_a_with_statement_the_engine_is_started_once(task, run, monkeypatch):
    from irlens.retrieve.engines import transformers

    started, real = [], transformers.load
    monkeypatch.setattr(transformers, "load", lambda *args: started.append(args) or real(*args))
    with irlens.Policy("tiny") as policy:
        for _ in range(2):
            pd.testing.assert_frame_equal(policy.sample(task.topics, n=4, seed=3), run)
        assert policy.model is policy._engine.engine.model and len(started) == 1
    policy.sample(task.topics, n=1)  # after its end it can be used again
    assert len(started) == 2


def test_logprobs_are_those_of_the_draws_and_the_run_stays_as_it_is(run):
    before = run.copy()
    found = irlens.Policy("tiny").logprobs(run.assign(logprob=0.0))
    assert found["logprob"].to_numpy() == pytest.approx(run["logprob"].to_numpy(), abs=1e-3)
    assert found["n_tokens"].tolist() == run["n_tokens"].tolist()
    pd.testing.assert_frame_equal(run, before)


def test_logprobs_of_ones_own_draws(pair):
    import torch

    question, right, wrong = "Tom has 3 apples and gets 4 more. How many?", "He has 3+4=7.\n#### 7", "#### 8"
    found = irlens.Policy(pair).logprobs(irlens.run([(question, right), (question, wrong)]))
    model, tokenizer = pair
    for text, value in zip(found["text"], found["logprob"]):
        prompt = tokenizer(catalog.PLAIN_PROMPT.format(query=question))["input_ids"]
        response = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        assert value == pytest.approx(float(logits[range(len(response)), response].sum()), abs=1e-3)


def test_prompts_that_a_run_does_not_keep_are_handed_over(task, run):
    bare, policy = own(run), irlens.Policy("tiny")
    with pytest.raises(UserError, match="no column query.*hand over the topics"):
        policy.logprobs(bare)
    assert policy.logprobs(bare, task)["logprob"].to_numpy() == pytest.approx(run["logprob"].to_numpy(), abs=1e-3)
    with pytest.raises(UserError, match=r"the topics have no query_id=sums-test-00003 \(1 such prompts\)"):
        policy.logprobs(bare, task.topics.head(3))


def chat_pair(pair):
    tokenizer = pair[1]
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    return pair[0], tokenizer


def test_a_task_tells_a_chat_model_what_its_topics_do_not(pair):
    from dataclasses import replace

    task = replace(irlens.load("sums", split="test", limit=2), instruction="End with #### and a number.")
    policy = irlens.Policy(chat_pair(pair), max_tokens=8)
    found = policy.sample(task, n=1)
    assert found["messages"].iloc[0][0]["content"].endswith("End with #### and a number.")
    assert "messages" not in policy.sample(task.topics, n=1).columns
    again = policy.logprobs(found)  # the run keeps what was asked
    assert again["logprob"].to_numpy() == pytest.approx(found["logprob"].to_numpy(), abs=1e-3)


def test_an_unclosed_thought_is_unfinished(task, run):
    policy = irlens.Policy("tiny", thought="^<<,#### 0000")
    assert set(policy.marked(run.assign(text="<<never closed"))["finish_reason"]) == {"length"}


@pytest.mark.parametrize("make, message", [
    (lambda: irlens.Policy("tny"), "unknown model 'tny'; did you mean 'tiny'"),
    (lambda: irlens.Policy("tiny", engine="vlm"), "unknown engine 'vlm'; did you mean 'vllm'"),
    (lambda: irlens.Policy("tiny", batchsize=4), "unknown option 'batchsize'; did you mean 'batch_size'"),
    (lambda: irlens.Policy("tiny", max_tokens=0), "max-tokens must be at least 1"),
    (lambda: irlens.Policy((None, None), engine="vllm"), "by the engine transformers, not by vllm"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["a?"]), n=0), "n must be at least 1"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["a?"]), temperature=-1), "0 .greedy. or above, each once, got -1"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["a?"]), temperature=(1.0, 1.0)), "each once"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["a?"]), seed=-1), "seed must be a whole number from 0"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["so " * 2000])), "exceeds the model's 1024 positions"),
    (lambda: irlens.Policy("tiny").sample(pd.DataFrame({"query": ["a?"]})), "missing: query_id"),
    (lambda: irlens.Policy("tiny").sample(irlens.topics(["a?"]).head(0)), "no prompt to draw for"),
])  # fmt: skip
def test_a_mistake_is_told_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_settings_of_the_engine_go_by_keyword(task, run):
    policy = irlens.Policy("tiny", engine="transformers", batch_size=3, max_tokens=5)
    assert policy.options.batch_size == 3
    assert policy.sample(task.topics, n=2)["n_tokens"].max() <= 5
