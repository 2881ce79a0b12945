"""Shared by all tests: one thread, no network, the embedded model, and where real data may lie."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data beside the checkout; `real_data("gsm8k")` skips, naming it, where it is absent."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"real data {DATA / name} is absent")
        return DATA / name

    return find


@pytest.fixture(scope="session")
def tiny_engine():
    import torch

    from irlens import catalog
    from irlens.retrieve.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    return TransformersEngine.load(catalog.fetch(catalog.model("tiny")))


@pytest.fixture(scope="session")
def sums_prompts(tiny_engine):
    from irlens import tasks
    from irlens.retrieve.sample import prompts

    return prompts(tasks.load("sums", "test", 40).topics, tiny_engine.tokenizer)
