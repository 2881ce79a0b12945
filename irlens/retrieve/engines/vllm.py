"""The vllm engine: vLLM in this process, all draws of a prompt in one request, prefixes cached."""

import contextlib
import gc
from collections.abc import Sequence
from pathlib import Path

from irlens.base.errors import UserError
from irlens.retrieve.engines import (
    Draw,
    Engine,
    OnBatch,
    Prompt,
    Sampling,
    check_lengths,
    engine_args,
    greedy_once,
    request_seed,
    token_ids,
)
from irlens.retrieve.options import EngineOptions

GUARANTEE = (
    "the same for the same seed on the same device and vLLM version, whatever else is in the batch, but for rounding at "
    "near-ties; draw d of a prompt always has the same seed"
)


class VllmEngine(Engine):
    """An `LLM` of vLLM that was made with `logprobs_mode="raw_logprobs"`: the policy's own, not scaled by temperature."""

    shard_rows = 8192  # a call ends with its longest response, so many rows keep the device full
    shard_tokens = 2**22  # 8192 draws of up to 512; a quarter of an hour at 5,000 tokens a second

    def __init__(self, llm, gpus: int = 0):
        self.llm, self.gpus, self.tokenizer = llm, gpus, llm.get_tokenizer()

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """See `engines.Engine`. The prompts go in as token ids, so nothing is put before them."""
        if sampling.temperature == 0 and len(draws) > 1:  # vLLM refuses n > 1 there
            return greedy_once(lambda one, seen: self.sample(prompts, one, sampling, seen), draws, on_batch)
        from vllm import SamplingParams

        encoded = token_ids(self.tokenizer, prompts)
        check_lengths(prompts, encoded, sampling.max_tokens, self.llm.model_config.max_model_len)
        asked = [
            SamplingParams(
                n=len(draws),
                temperature=sampling.temperature,
                seed=request_seed(sampling.seed, prompt.query_id, sampling.temperature, draws.start),
                max_tokens=sampling.max_tokens,
                logprobs=0,  # of the sampled token only
            )
            for prompt in prompts
        ]
        inputs = [{"prompt_token_ids": ids} for ids in encoded]
        with _last_words("stopped while drawing"), _told(self.llm.llm_engine, on_batch):
            answers = self.llm.generate(inputs, asked, use_tqdm=False)
        out = []
        for prompt, ids, request in zip(prompts, encoded, answers):
            assert list(request.prompt_token_ids) == ids, "vLLM read another prompt than it was given"
            children = sorted(request.outputs, key=lambda child: child.index)
            assert len(children) == len(draws), "vLLM made another number of draws than it was asked for"
            out += [_draw(prompt.query_id, number, child) for number, child in zip(draws, children)]
        return out

    def close(self) -> None:
        """Frees the device for what comes after sampling, such as training."""
        import torch

        engine = getattr(self.llm, "llm_engine", None)
        core = getattr(engine, "engine_core", None)
        if core is not None and hasattr(core, "shutdown"):
            core.shutdown()
        self.llm = None
        del engine, core
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _last_words(what: str):
    """One line with what vLLM said last, where it ends here: such as a size of heads that its kernels do not know."""
    try:
        yield
    except Exception as error:  # of whatever kind: its own, CUDA's, one of a pydantic model
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else type(error).__name__
        raise UserError(f"--engine vllm: vLLM {what}: {said} (or use --engine transformers)") from error


@contextlib.contextmanager
def _told(engine, on_batch: OnBatch | None):
    """While open, `on_batch` hears of every request as vLLM's engine finishes it: all draws of one prompt."""
    step, replaced = engine.step, engine.__dict__.get("step")

    def told():
        outputs = step()
        for request in outputs:
            if request.finished:
                on_batch(len(request.outputs), sum(len(child.token_ids) for child in request.outputs))
        return outputs

    if on_batch:
        engine.step = told
    try:
        yield
    finally:
        if on_batch and replaced is None:
            del engine.step
        elif on_batch:
            engine.step = replaced


def _draw(query_id: str, number: int, child) -> Draw:
    if child.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"{query_id}: vLLM ended draw {number} with {child.finish_reason!r}")
    ids = tuple(child.token_ids)  # with the stop token, which the text leaves out
    return Draw(query_id, number, child.text, len(ids), child.cumulative_logprob, child.finish_reason, ids)


def prepare(options: EngineOptions, model) -> EngineOptions:
    """Raises UserError where vLLM is absent or the model is in more parts than there are devices here."""
    import importlib.util

    if engine_args(options).get("trust_remote_code"):
        raise UserError("--engine-args trust_remote_code: a model's own code is never run")
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "--engine vllm: vllm is not installed; pip install 'irlens[vllm]', or use --engine transformers"
        )
    import torch

    if options.tensor_parallel > max(1, torch.cuda.device_count()):
        raise UserError(f"--tensor-parallel {options.tensor_parallel}: here are {torch.cuda.device_count()} GPUs")
    return options


def load(options: EngineOptions, weights: Path) -> VllmEngine:
    """Starts vLLM on a folder with a model: its own dtype on a GPU, float32 elsewhere."""
    import torch
    from vllm import LLM

    cuda = torch.cuda.is_available()
    given = {
        "tensor_parallel_size": options.tensor_parallel,
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "dtype": "auto" if cuda else "float32",
        "generation_config": "vllm",  # no sampling habits of the model's own
        "disable_log_stats": True,
    }
    if not cuda:
        given["enable_chunked_prefill"] = False  # vLLM 0.32 cannot rewind a CPU's seeded generator after half a prompt
    if options.batch_size:
        given["max_num_seqs"] = options.batch_size
    with _last_words("could not start"):
        llm = LLM(model=str(weights), **(given | engine_args(options) | {"trust_remote_code": False}))
    return VllmEngine(llm, options.tensor_parallel if cuda else 0)
