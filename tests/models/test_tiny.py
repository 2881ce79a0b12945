"""The embedded model keeps what it promises: half right, much more often right in many draws."""

import pytest

from irlens import tasks
from irlens.measure import measures
from irlens.models.chat import prompts
from irlens.rerank.verify import verify
from irlens.retrieve.sample import Draws, sample_run


@pytest.fixture(scope="module")
def pass_at(tiny_engine, tmp_path_factory):
    task = tasks.load("sums", "test", 120)
    asked = prompts(task.topics, tiny_engine.tokenizer)

    def measure(temperature, n, names):
        folder = tmp_path_factory.mktemp("draws")
        run = sample_run(lambda: tiny_engine, asked, Draws(n, [temperature], 0, 96), folder, "tiny")
        results, _ = measures.evaluate(run, verify(run, task.topics, task.verifier), names)
        return dict(zip(results["measure"], results["value"]))

    return measure


@pytest.mark.slow
def test_targets_and_the_crossing_of_figure_2b(pass_at):
    low, middle, high = (
        pass_at(0.1, 16, "Pass@1 Pass@16"),
        pass_at(0.7, 16, "Pass@1"),
        pass_at(1.0, 64, "Pass@1 Pass@16 Pass@64"),
    )
    assert 0.35 <= middle["Pass@1"] <= 0.6
    assert high["Pass@64"] >= 0.9
    assert low["Pass@1"] > middle["Pass@1"] > high["Pass@1"]
    assert high["Pass@16"] > low["Pass@16"] + 0.1
