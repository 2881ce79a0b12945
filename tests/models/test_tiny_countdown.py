"""What comes with the package for `countdown`: a model that is right now and then, small, with heads that vLLM takes on a CPU."""

import json

import pytest

from irlens import tasks
from irlens.measure import measures
from irlens.models import catalog, load
from irlens.models.chat import prompts
from irlens.rerank.verify import verify
from irlens.retrieve.sample import Draws, sample_run
from irlens.tasks import countdown

FOLDER = catalog.fetch(catalog.model("tiny-countdown"))


def test_it_is_small_and_its_heads_are_of_32():
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["head_dim"] == 32 == config["hidden_size"] // config["num_attention_heads"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 1_500_000
    model = load.causal_lm(FOLDER)
    assert model.num_parameters() == catalog.MODELS["tiny-countdown"].parameters
    assert catalog.model("tiny-countdown").dataset == "countdown"


@pytest.mark.slow
def test_it_is_right_between_a_quarter_and_two_thirds_of_the_time(tmp_path):
    from irlens.retrieve.engines.transformers import TransformersEngine

    task = tasks.load("countdown", "test", 200)
    engine = TransformersEngine.load(FOLDER)
    asked = prompts(task.topics, engine.tokenizer)
    run = sample_run(lambda: engine, asked, Draws(8, [0.7], 0, 48), tmp_path, "tiny-countdown")
    results, _ = measures.evaluate(run, verify(run, task.topics, task.verifier), "Pass@1 Pass@8")
    values = dict(zip(results["measure"], results["value"]))
    assert 0.25 <= values["Pass@1"] <= 0.65 and values["Pass@8"] > values["Pass@1"] + 0.1
    right = {countdown.extract(text) for text in run["text"]} - {None}
    assert len(right) > 100


def test_the_reranker_is_small_and_has_one_score():
    from irlens.rerank import reward

    folder = catalog.fetch(catalog.reward("tiny-rm"))
    reward.check(folder, "tiny-rm")
    model, absent = load.classifier(folder)
    assert absent == [] and model.num_parameters() == catalog.REWARDS["tiny-rm"].parameters
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_500_000


@pytest.mark.slow
def test_the_reranker_tells_right_from_wrong_within_a_prompt(tmp_path):
    import irlens
    from irlens.measure.learned import held_out

    task = tasks.load("countdown", "test", 150)
    run = irlens.Policy("tiny-countdown")(task.topics, 16)
    qrels = irlens.verify(run, task)
    found = irlens.reranker("tiny-rm", task=task)(run)
    lists = found.merge(qrels, on=["query_id", "doc_id"]).rename(columns={"relevance": "grade"}).assign(list=0)
    results, _ = held_out(lists.drop(columns="score").rename(columns={"reward": "score"}), "tiny-rm", calibrated=False)
    assert results.set_index("measure").loc["AUC", "value"] > 0.58  # of .62, an interval's half below
