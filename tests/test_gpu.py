"""On a GPU: the same draws and the same log-probabilities as on the CPU, in float32."""

import copy

import pytest
import torch

from irlens.models.logprobs import layout, pack, response_logprobs
from irlens.retrieve.engines import Sampling
from irlens.retrieve.engines.transformers import TransformersEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_draws_are_those_of_the_cpu(tiny_engine, sums_prompts):
    sampling = Sampling(1.0, seed=0, max_tokens=96)
    cpu = tiny_engine.sample(sums_prompts, range(20), sampling)
    gpu = TransformersEngine(copy.deepcopy(tiny_engine.model).cuda(), tiny_engine.tokenizer)
    same = [a.text == b.text for a, b in zip(cpu, gpu.sample(sums_prompts, range(20), sampling))]
    assert sum(same) / len(same) >= 0.99


def test_packed_logprobs_are_those_of_the_cpu(tiny_engine):
    packed = pack([[5, 6, 7]], [[[8, 9, 1], [10, 1]]], layout(tiny_engine.model))
    with torch.no_grad():
        cpu = response_logprobs(tiny_engine.model, packed)
        gpu = response_logprobs(copy.deepcopy(tiny_engine.model).cuda(), packed.to("cuda"))
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-3, rtol=1e-4)
