"""Every option of `train` arrives: a run with another value for it differs at the end, where what it says is done.

The draws, the model and its saving are stand-ins; all that hands a setting on, from the command's settings to the loss and
to the arguments of the transformers trainer, is real.
"""

import copy
import importlib
import json
import re
import shutil
from dataclasses import asdict, fields
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from irlens.base import seeds
from irlens.commands import learning
from irlens.commands import train as training
from irlens.commands.settings import Train
from irlens.commands.train import train as run_train
from irlens.models import catalog, thoughts
from irlens.negatives import mine
from irlens.rerank import judges as judging
from irlens.retrieve import policy as common
from irlens.train import adapters, course, iterations, larpo, trainer
from irlens.train.losses import Objective
from irlens.train.reranker import in_folder

BASE = {"prompts": 4, "n": 6, "iterations": 1, "epochs": 1, "batch_lists": 4, "eval_limit": 6, "eval_n": 2}
BASE |= {"test_limit": 0, "objective": "pairwise"}

ELSEWHERE = {  # options that have no end in a training run, and why
    **dict.fromkeys(("base_url", "api_key_env", "concurrency", "timeout", "chat", "served_model"), "a server's engine, refused"),
    "device_memory": "what is planned for, and changes nothing; tests/commands/test_memory.py",
    "store": "where draws are kept for the next, and changes nothing; tests/commands/test_store.py",
    "list_file": "what is trained on in the place of draws; tests/commands/test_off_policy.py",
    "export": "what is written beside, and changes nothing; tests/commands/test_off_policy.py",
    "out": "where it goes, not what it is; tests/commands/test_train.py",
}  # fmt: skip


class Seen:
    """What the ends of a training run got."""

    def __init__(self):
        self.draws, self.cut, self.mined, self.loaded, self.losses, self.arguments, self.judged = ([] for _ in range(7))
        self.saved: list[str] = []
        self.shuffled, self.states, self.rates, self.rewards = [], [], [], []

    def drawn(self, kind: str) -> list[dict]:
        """The draws of iterations (`iteration`), of held-out problems (`held-out`) or of the test."""
        return [one for one in self.draws if one["label"].startswith(kind)]


def write_data(folder, plus: int):
    """A data set of sums i + plus, with solutions, in the splits train and test."""
    folder.mkdir()
    rows = [
        {"question": f"What is {i}+{plus}?", "answer": f"It is <<{i}+{plus}={i + plus}>>{i + plus}.\n#### {i + plus}"}
        for i in range(40)
    ]
    rows = [row | {"again": f"{row['question']} Again."} for row in rows]
    for split, part in (("train", rows[:26]), ("test", rows[26:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return folder


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Two data sets, and another folder of the embedded model."""
    root = tmp_path_factory.mktemp("material")
    shutil.copytree(catalog.fetch(catalog.model("tiny")), root / "other")
    return SimpleNamespace(data=write_data(root / "a", 1), more=write_data(root / "b", 2), model=root / "other")


@pytest.fixture
def run(monkeypatch, tmp_path, material):
    """`run(option=value, …)` → what was seen. Every second draw is right; longer ones come later."""

    def go(**given) -> Seen:
        seen = Seen()

        def draw(self, asked, draws, shards, say, name=None):
            n, temperatures, seed = draws.n, draws.temperatures, draws.seed
            engine = asdict(self.options)
            seen.draws.append(
                {"label": name, "ids": [p.query_id for p in asked], "n": n, "temperatures": tuple(temperatures)}
                | {"texts": [p.text for p in asked], "seed": seed, "tokens": self.max_tokens, "engine": engine}
                | {"thought": thoughts.record(self.thought)}
            )
            rows = []
            for prompt in asked:
                a, b = map(int, re.search(r"What is (\d+)\+(\d+)\?", prompt.text).groups())
                for t in temperatures:
                    for d in range(n):
                        text = "so " * d + f"it is\n#### {a + b + d % 2 * d}"
                        rows.append((prompt.query_id, f"{prompt.query_id}/T{t:g}/{d}", -d, d + 1, text, t, d))
            columns = ["query_id", "doc_id", "score", "rank", "text", "temperature", "draw"]
            found = pd.DataFrame(rows, columns=columns)
            tags = [f"tiny T={t:g}" for t in found["temperature"]]
            return found.assign(tag=tags, n_tokens=4, finish_reason="stop")

        def load(policy, lora_rank=None, quantize=None, shard=False):
            seen.loaded.append({"policy": str(policy), "lora_rank": lora_rank, "quantize": quantize, "shard": shard})
            torch.manual_seed(0)
            tokenizer = AutoTokenizer.from_pretrained(material.model)
            config = LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
            config.vocab_size, config.pad_token_id, config.max_position_embeddings = len(tokenizer), 0, 512
            return LlamaForCausalLM(config), tokenizer

        def save(trainer, policy, tokenizer, base, path, dtype):
            seen.saved.append(dtype)
            path.mkdir()

        def loss(self, scores, **kwargs):
            seen.losses.append({"name": self.name, "shape": tuple(scores.mask.shape), **kwargs})
            return real_loss(self, scores, **kwargs)

        def arguments(folder, options, count, parameters, iteration):
            made = real_arguments(folder, options, count, parameters, iteration)
            seen.arguments.append((made, options, count))
            return quiet(made)

        def spied(name, of, into):
            real = getattr(of, name)
            monkeypatch.setattr(of, name, lambda *a, **k: (into.append((a, k)), real(*a, **k))[1])

        def of_reward(name, instruction, option="--reward", say=print, devices=None):
            def grade(some, topics, folder):
                seen.judged.append((option, folder.parent.name))
                found = some[["query_id", "doc_id"]].assign(relevance=some["text"].str.len() / 7 - 2)
                return found.assign(truncated=False)

            return judging.Judge(name, grade, is_reward=True)

        real_loss, real_arguments = Objective.__call__, trainer.training_arguments
        monkeypatch.setattr(common.Policy, "draw", draw)
        monkeypatch.setattr(common.Policy, "facts", lambda self, out: {})
        monkeypatch.setattr(adapters, "load", load)
        monkeypatch.setattr(adapters, "save", save)
        monkeypatch.setattr(adapters, "check_adapters", lambda rank, quantize, shard: None)
        monkeypatch.setattr(Objective, "__call__", loss)
        monkeypatch.setattr(trainer, "training_arguments", arguments)
        monkeypatch.setattr(judging, "of_reward", of_reward)
        monkeypatch.setattr(training, "plot_iterations", lambda *a, **k: None)
        monkeypatch.setattr(training, "plot_diagnostics", lambda *a, **k: None)
        engines = importlib.import_module("irlens.retrieve.engines")
        real_module = engines.module
        absent = SimpleNamespace(prepare=lambda options, model: options, GUARANTEE="")
        monkeypatch.setattr(engines, "module", lambda name: absent if name in ("vllm", "ray") else real_module(name))

        def shuffled(examples, seed):
            seen.shuffled.append(len(examples))
            return real_shuffled(examples, seed)

        class State(course.State):
            def take(self, optimiser):
                seen.states.append((self.before is not None, self.after is not None))
                super().take(optimiser)

        def log(self, logs, *args, **kwargs):
            seen.rates.extend([logs["learning_rate"]] if "learning_rate" in logs else [])
            real_log(self, logs, *args, **kwargs)

        def learned(phase, devices, say):
            seen.rewards.append(phase)
            (phase.out / "account.json").write_text('{"lists": 1, "responses": 2, "tokens_trained": 1, "too_long": 0}')
            return phase.out / "model"

        def logprobs(policy, out):
            return lambda task, run: np.full(len(run), 3.0 if out.name == "likelihood-now" else 1.0)

        monkeypatch.setattr(in_folder, "fit", learned)
        monkeypatch.setattr(learning, "_logprobs", logprobs)
        real_shuffled, real_log = trainer.shuffled, trainer.RankingTrainer.log
        monkeypatch.setattr(trainer, "shuffled", shuffled)
        monkeypatch.setattr(iterations, "State", State)
        monkeypatch.setattr(trainer.RankingTrainer, "log", log)
        spied("cut_lists", larpo, seen.cut)
        spied("mine_negatives", mine, seen.mined)
        run_train(
            Train(**{"dataset": str(material.data), **BASE, **given, "out": str(tmp_path / "out")}), lambda _: None
        )
        return seen

    return go


def quiet(arguments):
    """The same arguments for a trainer that looks for no reporter and saves nothing."""
    found = copy.copy(arguments)
    found.report_to, found.save_strategy = [], "no"
    return found


def first_loss(seen: Seen) -> dict:
    return seen.losses[0]


def plan(seen: Seen):
    return seen.arguments[0][1]


def hugging(seen: Seen):
    """transformers.TrainingArguments."""
    return seen.arguments[0][0]


def cut(seen: Seen) -> dict:
    """Which lists `cut_lists` was asked for."""
    return asdict(seen.cut[0][0][3])


def rewarded(seen: Seen) -> dict:
    """Whether a response ends in an even digit → the rewards of such."""
    pool = seen.cut[0][0][0]
    return pool.groupby(pool["text"].str.contains("[02468]$"))["reward"].agg(set).to_dict()


def penalty(seen: Seen) -> set[float]:
    """What is taken off the learned rewards of the second iteration, whose draws all have the log-ratio 2."""
    pool = seen.cut[1][0][0]
    return set((pool["learned_reward"] - pool["reward"]).round(6))


def engine(name: str):
    return lambda seen: seen.draws[0]["engine"][name]


# option → (value, more options, what is looked at, what is seen there)
CASES = {
    "engine": ("vllm", {}, engine("engine"), "vllm"),
    "batch_size": (7, {"engine": "transformers"}, engine("batch_size"), 7),
    "devices": ("0", {}, engine("devices"), "0"),
    "tensor_parallel": (2, {"engine": "vllm"}, engine("tensor_parallel"), 2),
    "messages_as": ("text", {}, engine("messages_as"), "text"),
    "engine_args": ('{"seed": 1}', {"engine": "vllm"}, engine("engine_args"), '{"seed": 1}'),
    "objective": ("listmle", {}, lambda s: first_loss(s)["name"], "listmle"),
    "model": ("MODEL", {}, lambda s: s.loaded[0]["policy"], "MODEL"),
    "dataset": ("MORE", {}, lambda s: "+2?" in s.drawn("iteration")[0]["texts"][0], True),
    "columns": ("question=again", {}, lambda s: "? Again." in s.drawn("iteration")[0]["texts"][0], True),
    "verifier": ("regex:[02468]$", {}, lambda s: rewarded(s) == {True: {1.0}, False: {0.0}}, True),
    "split": ("test", {"eval_split": "train"}, lambda s: "What is 26+1?" in s.drawn("iteration")[0]["texts"][0], True),
    "iterations": (2, {}, lambda s: len(s.loaded), 2),
    "prompts": (5, {}, lambda s: len(s.drawn("iteration")[0]["ids"]), 5),
    "same_prompts": (True, {"iterations": 2}, lambda s: len({tuple(d["ids"]) for d in s.drawn("iteration")}), 1),
    "n": (4, {}, lambda s: s.drawn("iteration")[0]["n"], 4),
    "temperature": ((0.5, 0.9), {}, lambda s: s.drawn("iteration")[0]["temperatures"], (0.5, 0.9)),
    "memory": ("all", {"iterations": 2, "same_prompts": True}, lambda s: len(s.cut[1][0][0]), 2 * 4 * 6),
    "reward": ("R", {}, lambda s: set(s.judged), {("--reward", "iteration-1"), ("--reward", "0"), ("--reward", "1")}),
    "eval_reward": ("R", {}, lambda s: set(s.judged), {("--eval-reward", "0"), ("--eval-reward", "1")}),
    "tier": ("easy", {}, lambda s: list(s.mined[0][0][1]), ["easy"]),
    "positives_from": ("gold", {}, lambda s: cut(s)["positives_from"], "gold"),
    "positives": (2, {}, lambda s: (cut(s)["positives"], first_loss(s)["shape"][1]), (2, 3)),
    "negatives": (3, {}, lambda s: (cut(s)["negatives"], first_loss(s)["shape"][1]), (3, 4)),
    "list_size": (3, {}, lambda s: (cut(s)["negatives"], first_loss(s)["shape"][1]), (2, 3)),
    "lists": (2, {}, lambda s: (cut(s)["lists"], s.arguments[0][2]), (2, 8)),
    "beta": (0.1, {}, lambda s: first_loss(s)["beta"], 0.1),  # the model's own is 1, the objective's 0.1
    "nll": (0.3, {}, lambda s: first_loss(s)["nll"], 0.3),
    "length_normalised": (True, {}, lambda s: first_loss(s)["length_normalised"], True),
    "wpo": (True, {}, lambda s: first_loss(s)["wpo"], True),
    "shuffle_grades": (True, {"negatives": 3}, lambda s: s.shuffled, [4]),
    "schedule": ("constant", {"batch_lists": 1}, lambda s: s.rates[-1] == s.rates[1] > 0, True),
    "keep_optimiser": (True, {"iterations": 2}, lambda s: s.states, [(False, True), (True, False)]),
    "all_draws": (True, {}, lambda s: (cut(s)["all_draws"], first_loss(s)["shape"][1]), (True, 6)),
    "reward_args": (
        '{"model": "tiny-rm", "learning_rate": 0.02, "epochs": 3, "kl_coef": 0.25, "pad_token": "+"}',
        {"objective": "rft", "iterations": 2},
        lambda s: {(p.base, p.options.learning_rate, p.options.epochs, p.pad_token, *penalty(s)) for p in s.rewards},
        {("tiny-rm", 0.02, 3, "+", 0.5)},
    ),
    "objective_args": ('{"alpha": 0.7}', {"objective": "r-dpo"}, lambda s: first_loss(s)["alpha"], 0.7),
    "learning_rate": (0.017, {}, lambda s: hugging(s).learning_rate, 0.017),
    "epochs": (3, {}, lambda s: (hugging(s).num_train_epochs, len(s.losses)), (3, 3)),
    "batch_lists": (2, {}, lambda s: (plan(s).batch_lists, len(s.losses), first_loss(s)["shape"][0]), (2, 2, 2)),
    "lists_at_once": (1, {}, lambda s: (hugging(s).gradient_accumulation_steps, first_loss(s)["shape"][0]), (4, 1)),
    "max_length": (27, {"lists": 2}, lambda s: 0 < s.arguments[0][2] < 8, True),
    "lora_rank": (4, {}, lambda s: s.loaded[0]["lora_rank"], 4),
    "quantize": ("4bit", {"lora_rank": 4}, lambda s: s.loaded[0]["quantize"], "4bit"),
    "shard": (True, {}, lambda seen: seen.loaded[0]["shard"], True),
    "save_dtype": ("bfloat16", {}, lambda seen: seen.saved[0], "bfloat16"),
    "report_to": ("tensorboard", {}, lambda s: hugging(s).report_to, ["tensorboard"]),
    "trainer_args": ('{"weight_decay": 0.25}', {}, lambda s: hugging(s).weight_decay, 0.25),
    "patience": (0, {"iterations": 3}, lambda s: len(s.loaded), 1),
    "eval_split": ("test", {}, lambda s: "What is 26+1?" in s.drawn("held-out")[0]["texts"][0], True),
    "eval_limit": (3, {}, lambda s: len(s.drawn("held-out")[0]["ids"]), 3),
    "eval_n": (3, {}, lambda s: s.drawn("held-out")[0]["n"], 3),
    "eval_every": (2, {"iterations": 3}, lambda s: [d["label"][-1] for d in s.drawn("held-out")], ["0", "2", "3"]),
    "eval_temperature": ((0.3,), {}, lambda s: s.drawn("held-out")[0]["temperatures"], (0.3,)),
    "test_limit": (2, {}, lambda s: len(s.drawn("test")[0]["ids"]), 2),
    "pack_up_to": (9, {}, lambda s: plan(s).pack_up_to, 9),
    "thought": ("<a>,</a>", {}, lambda s: s.draws[0]["thought"], ["<a>", "</a>", False]),
    "max_prompt_length": (13, {}, lambda s: "What is 9+1?" in s.drawn("held-out")[0]["texts"][-1], True),  # one digit
    "max_tokens": (33, {}, lambda s: s.draws[0]["tokens"], 33),
    "seed": (
        1,
        {},
        lambda s: (s.drawn("iteration")[0]["seed"], s.drawn("held-out")[0]["seed"], cut(s)["seed"], hugging(s).data_seed),
        (*(seeds.derive(1, *at) for at in ((1, "draws"), (0, "evaluation"), (1, "lists"), (1, "training"))),),
    ),
}  # fmt: skip


def test_every_option_has_a_case_or_a_reason():
    assert set(CASES) | set(ELSEWHERE) == {f.name for f in fields(Train)} and not set(CASES) & set(ELSEWHERE)


@pytest.mark.parametrize(  # each trains: by default one in six
    "option", [pytest.param(name, marks=() if i % 6 == 0 else pytest.mark.slow) for i, name in enumerate(CASES)]
)
def test_an_option_arrives(run, material, option):
    value, more, look, expected = CASES[option]
    paths = {"MODEL": str(material.model), "MORE": str(material.more)}
    value, expected = (paths.get(x, x) if isinstance(x, str) else x for x in (value, expected))
    default = {**{f.name: f.default for f in fields(Train)}, **BASE, "dataset": str(material.data)}[option]
    assert value != default
    assert look(run(**more, **{option: value})) == expected


def test_without_options_there_is_something_else_at_every_end(run):
    """So that no case above is one that a default would pass."""
    seen = run()
    same = [name for name, (_, more, look, expected) in CASES.items() if not more and _looked(look, seen) == expected]
    assert same == []


def _looked(look, seen):
    try:
        return look(seen)
    except (IndexError, KeyError):  # nothing of the kind was done
        return None


@pytest.mark.parametrize(
    "objective, more, beta",
    [
        ("pairwise", {}, 1.0),  # the embedded model's
        ("pairwise", {"beta": 0.1}, 0.1),  # which is the objective's default too
        ("pairwise", {"objective_args": '{"beta": 0.1}'}, 0.1),
        ("simpo", {}, 2.0),  # another scale: its own
        ("own_hinge:hinge", {}, 0.1),  # a function's default is its author's
    ],
)
def test_beta_is_the_models_only_where_none_is_given(run, monkeypatch, tmp_path, objective, more, beta):
    (tmp_path / "own_hinge.py").write_text("def hinge(scores, beta=0.1):\n    return (beta * scores.log_ratio).sum()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert first_loss(run(objective=objective, **more))["beta"] == beta
