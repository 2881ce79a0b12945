"""Rehearsals: every shipped recipe runs through with stand-ins; what is cut, what the page says, and what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from transformers import Gemma2Config

from irlens.base.errors import UserError
from irlens.commands.settings import Mine, PassK, Recall, Rerank, Train
from irlens.models import stand_ins
from irlens.models.stand_in_families import FAMILIES
from irlens.reproduce import recipe, rehearsal
from irlens.reproduce.costs import Cost
from irlens.reproduce.records import Step
from irlens.reproduce.rehearsal import cut, furnish, page, steps

SHIPPED = [(name, preset) for name in recipe.names() for preset in recipe.presets(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name, preset", SHIPPED)
def test_every_recipe_rehearses(name, preset, tmp_path):
    """Offline, with nothing in a cache: what the steps load lies in the rehearsal's own."""
    loaded, said = recipe.load(name, preset), []
    out = rehearsal.rehearse(loaded, tmp_path / "out", None, "H100-80GB", said.append)
    text = (out / "rehearsal.md").read_text()
    assert len(said) == 1 + len(loaded.steps)
    assert f"All {len(loaded.steps)} steps, the figures and the verdicts ran" in text
    assert "**no number under `run/` means anything.**" in text
    for number, step in enumerate(loaded.steps, 1):
        made = out / "run" / step.folder(number)
        manifest = json.loads((made / "manifest.json").read_text())
        assert manifest["status"] == "complete" and f"| {step.name} | yes |" in text
        if step.stage == "train":
            check_training(made, step.settings)
        elif step.stage == "passk":
            run = pd.read_parquet(made / "run.parquet")
            assert (run.groupby(["query_id", "temperature"]).size() == step.settings.n).all()


def check_training(made, settings):
    """The real number of draws, lists of the real shape, and weights that are not the start's."""
    run = pd.read_parquet(made / "iteration-1" / "run.parquet")
    assert (run.groupby(["query_id", "temperature"]).size() == settings.n).all()
    lists = pd.read_parquet(made / "iteration-1" / "lists.parquet")
    sizes = lists.groupby(["query_id", "list"]).size() if "list" in lists.columns else lists.groupby("query_id").size()
    assert 1 + settings.loss.needs_negative <= sizes.max() <= max(settings.size, 2)
    assert (made / f"iteration-{min(settings.iterations, 2)}" / "model" / "model.safetensors").is_file()


OWN = """
title = "My own"
[[preset.mine]]
stage = "train"
name = "larpo"
model = "{folder}"
dataset = "{data}"
reward = "fsfairx"
eval_reward = "pairrm"
objective = "lambdarank"
iterations = 5
prompts = 30
n = 5
engine = "vllm"
eval_limit = 10
eval_n = 1
test_limit = 0
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """(recipe file, model folder): a Gemma 2 without weights, and problems of one's own."""
    here = tmp_path_factory.mktemp("own")
    stand_ins.tokenizer_of(FAMILIES["google/gemma-2-2b-it"].tokens).save_pretrained(here / "my-gemma")
    said = FAMILIES["google/gemma-2-2b-it"].said | {"vocab_size": 640}
    Gemma2Config(**said, eos_token_id=[1, 6], pad_token_id=0).save_pretrained(here / "my-gemma")
    (here / "data").mkdir()
    for split, start in (("train", 0), ("validation", 60), ("test", 120)):
        rows = [
            {
                "question": f"A shop has {i} pears and gets {i % 7}. How many?",
                "answer": f"{i}+{i % 7}\n#### {i + i % 7}",
            }
            for i in range(start, start + 60)
        ]
        (here / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "own.toml").write_text(OWN.format(folder=here / "my-gemma", data=here / "data"))
    return here / "own.toml", here / "my-gemma"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [0, 2])
def test_ones_own_model_and_data_rehearse_and_the_page_says_what_was_not(devices, own, tmp_path, irlens):
    """With workers too: processes that draw, score and train."""
    command = (
        "reproduce",
        own[0],
        "--preset",
        "mine",
        "--rehearse",
        "--devices",
        devices,
        "--device-kind",
        "A100-40GB",
    )
    told = irlens(*command, "--out", tmp_path / "out").stdout
    log = (tmp_path / "out" / ".rehearsal" / "log.txt").read_text()
    assert ("engine: transformers, on 2 processes" in log) == (devices == 2)
    text = (tmp_path / "out" / "rehearsal.md").read_text()
    assert "stage 1 of 1: larpo" in told and "rehearsal.md" in told
    assert "| larpo | yes |" in text and "prompts 30 → 6; iterations 5 → 2; epochs 2 → 1; eval_limit 10 → 4" in text
    assert f"- {own[1]}: from its own config.json (policy), " in text and "(pairrm), " in text
    assert "vLLM: it is not installed here; transformers draws in its place" in text
    needed = int(re.search(r"(\d+) GiB: one has it", text)[1])
    assert 34 < needed < 40  # 18 bytes of each of its 2.0 billion parameters, and some of its activations
    assert f"{max(devices, 1)} A100-40GB" in text
    lists = pd.read_parquet(tmp_path / "out" / "run" / "1-larpo" / "iteration-2" / "lists.parquet")
    assert set(lists.groupby("query_id").size()) == {4}
    assert not list(own[1].glob("*.safetensors"))  # the user's folder is as it was
    mine = json.loads((tmp_path / "out" / "run" / "1-larpo" / "manifest.json").read_text())
    assert mine["settings"]["model"] == "my-gemma"


@pytest.mark.slow
def test_a_step_that_fails_is_named_with_its_cause_and_a_new_rehearsal_begins_anew(own, tmp_path):
    text = own[0].read_text().replace('objective = "lambdarank"', 'objective = "lambdarank"\npositives_from = "gold"')
    (tmp_path / "own.toml").write_text(text.replace('dataset = "', 'split = "nowhere"\ndataset = "'))
    loaded, out = recipe.load(str(tmp_path / "own.toml"), "mine"), tmp_path / "out"
    (out / ".rehearsal").mkdir(parents=True)
    (out / ".rehearsal" / "stale").touch()
    with pytest.raises(UserError, match=r"^rehearsal: stand-ins: .*no split 'nowhere'.*rehearsal\.md") as error:
        rehearsal.rehearse(loaded, out, None, "H100-80GB", str)
    assert "\n" not in str(error.value) and not (out / ".rehearsal" / "stale").exists()
    page_text = (out / "rehearsal.md").read_text()
    assert "**Failed at stand-ins: " in page_text and "| larpo | no |" in page_text


def test_the_step_that_raises_is_known(tmp_path, monkeypatch):
    from irlens.reproduce import run

    def broken(settings, say):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setitem(run.COMMANDS, "recall", broken)
    with pytest.raises(ZeroDivisionError) as error:
        run.run(recipe.load("fig2a", "tiny"), tmp_path / "out", str, jobs=1)
    assert error.value.__notes__ == ["recall"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "spec.json").write_text(steps.as_json(recipe.load("fig2a", "tiny"), [], tmp_path / "again"))
    assert steps.main(home) == 1
    failed = json.loads((home / "report.json").read_text())["failed"]
    assert failed == {"step": "recall", "why": "ZeroDivisionError: nothing to divide by", "user": False}


# -- what is cut ---------------------------------------------------------------------------------------------------


def step(settings, name="s"):
    return Step(type(settings).__name__.lower(), name, settings)


def test_what_is_cut_and_what_is_not():
    real = Train(
        model="mathstral",
        prompts=20_000,
        iterations=3,
        n=10,
        epochs=2,
        eval_split="test",
        eval_limit=800,
        max_length=2048,
    )
    found = cut.step(step(real))
    small = found.step.settings
    assert (small.prompts, small.iterations, small.epochs, small.eval_limit, small.max_tokens) == (6, 2, 1, 4, 48)
    assert replace(small, prompts=20_000, iterations=3, epochs=2, eval_limit=800, max_tokens=None) == real
    assert found.changed["prompts"] == (20_000, 6) and "test_limit" not in found.changed
    assert (
        cut.step(step(Train(prompts=4, iterations=1, epochs=1, max_tokens=9, eval_limit=1, test_limit=0))).changed == {}
    )
    assert cut.step(step(PassK(model="mathstral", n=100))).changed == {
        "limit": ("all", 4),
        "max_tokens": ("the model's", 48),
    }


def test_what_needs_more_than_a_cpu_is_replaced_and_told():
    arguments = json.dumps({"fsdp": "full_shard", "warmup_steps": 1})
    asked = Train(engine="vllm", tensor_parallel=4, devices="ray", quantize="4bit", lora_rank=8, trainer_args=arguments)
    found = cut.step(step(asked))
    small = found.step.settings
    assert (small.engine, small.tensor_parallel, small.devices) == ("transformers", 1, None)
    assert (small.quantize, small.lora_rank) == (None, 8)
    assert json.loads(small.trainer_args) == {"warmup_steps": 1}
    told = "; ".join(found.not_rehearsed)  # neither vLLM nor Ray is among the tests' packages
    assert all(
        word in told
        for word in ("vLLM: it is not installed", "Ray: it is not installed", "4-bit", "--trainer-args fsdp")
    )
    served = cut.step(
        step(PassK(engine="openai", base_url="http://x/v1", chat=True, served_model="m", engine_args="{}"))
    )
    assert served.step.settings.engine == "transformers" and served.step.settings.base_url is None
    indexed = cut.step(step(Recall(index="IVF4096,PQ64", nprobe=9)))
    assert indexed.step.settings.index is None and indexed.step.settings.nprobe is None
    assert "IVF4096,PQ64" in indexed.not_rehearsed[0]
    with pytest.raises(UserError, match="s: reranker judge: a judge at a server has no stand-in"):
        cut.step(step(Rerank(reranker="judge", base_url="http://x/v1")))


def test_the_models_of_a_step_and_their_places():
    some = [
        step(Train(model="mathstral", reward="pairrm", eval_reward="a/b")),
        step(Mine(model="@x", encoder="e5", related="bm25")),
        Step("rerank", "r", Rerank(reranker="vote:reward:c/d")),
        Step("recall", "q", Recall(retriever="bm25,e5-small", reranker="e/f")),
    ]
    named = [pair for one in some for pair in furnish.named(one) if pair[0] and pair[0] not in furnish.EMBEDDED]
    assert named == [
        ("mathstral", "policy"), ("pairrm", "reward"), ("a/b", "reward"), ("e5", "encoder"), ("c/d", "reward"),
        ("e5-small", "encoder"), ("e/f", "cross-encoder"),
    ]  # fmt: skip
    there = furnish.replaced(some[2], {"c/d": "/there"}).settings
    assert there.reranker == "vote:reward:/there"
    assert furnish.replaced(some[3], {"e5-small": "/s", "e/f": "/f"}).settings.retriever == "bm25,/s"


def test_a_recipe_survives_the_way_to_the_other_process():
    for name, preset in SHIPPED:
        loaded = replace(recipe.load(name, preset), tune=None)  # which no rehearsal has
        again, needed = steps._read(json.loads(steps.as_json(loaded, furnish.models(loaded.steps), "out")))
        assert again == loaded and needed == furnish.models(loaded.steps)


# -- the page ------------------------------------------------------------------------------------------------------


def test_estimates_scale_with_the_devices():
    hours = page._estimate(Cost(gpu_hours=32.0, gpu_gib=100.0, generated=5, trained=7), 3.25, 8, 312e12, 40)
    assert hours == (f"{32 * 989 / 312 / 8:,.1f}", "100 GiB: 8 sharded have it", "3.2 GiB", "5", "7")
    assert (
        page._memory(100.0, 2, 40) == "100 GiB: 2 do not have it" and page._memory(40.0, 1, 40) == "40 GiB: one has it"
    )
    unknown = page._estimate(Cost(gpu_hours=None, gpu_gib=None), None, 1, 989e12, 80)
    assert unknown[:3] == ("not known", "not known", "not known")
    assert page._hours(Cost(cpu_minutes=3.0), 1.0) == "3.0 min on a CPU core"


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content, message", [
    (None, "larpo: .*no config.json"),
    ('{"model_type": "my-own"}', "larpo: .*model_type 'my-own' is no architecture of transformers"),
])  # fmt: skip
def test_a_model_that_has_no_stand_in_is_refused_before_work(own, tmp_path, refused, content, message):
    import re

    (tmp_path / "m").mkdir()
    if content is not None:
        (tmp_path / "m" / "config.json").write_text(content)
    (tmp_path / "own.toml").write_text(own[0].read_text().replace(str(own[1]), str(tmp_path / "m")))
    line = refused("reproduce", tmp_path / "own.toml", "--preset", "mine", "--rehearse", "--out", tmp_path / "out")
    assert re.search(message, line) and not (tmp_path / "out").exists()


def test_bad_input_is_a_line(own, tmp_path, refused):
    start = ("reproduce", own[0], "--preset", "mine", "--rehearse")
    assert "known: A100-40GB" in refused(*start, "--device-kind", "H100") and "did you mean" in refused(
        *start, "--device-kind", "H100"
    )
    assert "--devices many: with --rehearse give a number" in refused(*start, "--devices", "many")
    assert "no such file" in refused("reproduce", tmp_path / "none.toml", "--rehearse")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "holds no rehearsal" in refused(*start, "--out", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").exists()
    text = own[0].read_text()
    (tmp_path / "gone.toml").write_text(text.replace(str(own[1]), str(tmp_path / "gone")))
    assert "larpo: --model" in refused("reproduce", tmp_path / "gone.toml", "--preset", "mine", "--rehearse")
    (tmp_path / "data.toml").write_text(text.replace("/data", "/data-gone"))
    assert "no such file or folder" in refused("reproduce", tmp_path / "data.toml", "--preset", "mine", "--rehearse")


def test_a_hub_id_of_which_nothing_is_known_is_refused_offline(own, tmp_path, refused):
    text = own[0].read_text().replace(str(own[1]), "some/model")
    (tmp_path / "own.toml").write_text(text)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    line = refused("reproduce", tmp_path / "own.toml", "--preset", "mine", "--rehearse")
    assert "larpo: some/model" in line and "not in the local cache" in line


ASLEEP = """
import os, pathlib, sys, time
from irlens.base import interrupts
from irlens.base.worker import end_with_the_pipe
home = pathlib.Path(sys.argv[1])
end_with_the_pipe()
interrupts.hear()
(home / "pid").write_text(str(os.getpid()))
try:
    time.sleep(60)
except interrupts.Interrupted:
    (home / "tidied").touch()
"""
WAITS = """
import pathlib, sys, types
from irlens.base import interrupts
from irlens.reproduce import rehearsal
interrupts.hear()
rehearsal.steps = types.SimpleNamespace(__name__="asleep")
rehearsal._run(pathlib.Path(sys.argv[1]), print)
"""


def test_a_rehearsal_that_was_killed_while_it_cleared_its_folder_begins_anew(tmp_path, monkeypatch):
    remove, out = shutil.rmtree, tmp_path / "out"
    for calls in (1, 2, 3):
        left = iter(range(calls))

        def removes(path, **how):
            remove(path, **how)
            if next(left, None) == calls - 1:
                raise KeyboardInterrupt

        for made in (".rehearsal/store", ".rehearsal/ir_datasets", "run/1-arm"):
            (out / made).mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(shutil, "rmtree", removes)
            rehearsal._emptied(out)
        assert not any(rehearsal._emptied(out).iterdir()) and not (out / "run").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_of_the_steps_ends_with_the_one_that_started_it(tmp_path, sent):
    (tmp_path / "asleep.py").write_text(ASLEEP)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    parent = subprocess.Popen([sys.executable, "-c", WAITS, tmp_path], env=env, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert parent.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    parent.send_signal(sent)
    parent.wait(timeout=30)
    pid = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until, "it runs on"
        time.sleep(0.05)
    assert (tmp_path / "tidied").exists() == (sent == signal.SIGTERM)
