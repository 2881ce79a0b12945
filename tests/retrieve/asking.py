"""What the tests of the openai engine share: prompts, an engine that soon gives up, and what the stub answers."""

from irlens.models.catalog import Model
from irlens.retrieve.engines import Prompt, Sampling, choose, openai, request_seed
from irlens.retrieve.engines.openai import OpenAIEngine
from irlens.retrieve.options import EngineOptions

ASKED = [Prompt(f"q{i}", "x" * (i + 1), ({"role": "user", "content": "y" * (i + 1)},)) for i in range(40)]
SAMPLING = Sampling(0.7, seed=3, max_tokens=16)


def engine(*urls, **more):
    return OpenAIEngine(urls, "stub", **({"concurrency": 16, "timeout": 1.0, "pause": 0.01} | more))


def expected(asked=ASKED, draws=range(10), sampling=SAMPLING, length=len):
    """What the stub answers to a draw's own seed."""
    return [
        (
            p.query_id,
            d,
            f"{length(p.text)} {request_seed(sampling.seed, p.query_id, sampling.temperature, d)} "
            f"{sampling.temperature}\n#### 5",
        )
        for p in asked
        for d in draws
    ]


def drawn(found):
    return [(d.query_id, d.draw, d.text) for d in found]


def prepared(url, **more):
    options, _ = choose(EngineOptions(base_url=url, **more))
    return openai.prepare(options, Model("tiny", "/models/tiny"))
