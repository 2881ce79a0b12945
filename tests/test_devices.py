"""A GPU that is not there: tensors that say that they are on `cuda`, and refuse to meet those of the CPU.

Each holds its values in a tensor of the CPU, so code that reads them (`.tolist()`, `nonzero`) runs. What a GPU refuses is
refused: an operation on both devices, `.numpy()`, a tensor of the CPU indexed by one of the GPU. Kernels, and what they
round, are not tested by this; `pytest -m gpu` does.
"""

import contextlib
import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForSequenceClassification

from irlens.models import block_mask, catalog
from irlens.models.likelihood import Likelihood
from irlens.models.logprobs import layout, pack, response_logprobs
from irlens.rerank.reward import RewardModel
from irlens.retrieve.engines import Sampling
from irlens.retrieve.engines.transformers import GPU_CACHE_SHARE, TransformersEngine
from irlens.retrieve.vectors import InMemory
from irlens.train import trainer
from irlens.train.data import Example
from irlens.train.options import TrainOptions

GPU = torch.device("cuda", 0)
COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}  # from one device to another
INDEXES = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class Pretended(torch.Tensor):
    """A tensor of the CPU, `held`, that says it is on the GPU."""

    @staticmethod
    def __new__(cls, held):
        like = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        self = torch.Tensor._make_subclass(cls, like, False, device_for_backend_keys=GPU)
        self.held = held
        return self

    @property
    def device(self):
        return GPU

    @property
    def is_cuda(self):
        return True

    def tolist(self):
        return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first")

    __array__ = numpy

    def __repr__(self, *args, **kwargs):
        return f"Pretended({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class PretendGPU(TorchDispatchMode):
    """While open, what is made on or moved to `cuda` is `Pretended`."""

    def __enter__(self):
        self.open = contextlib.ExitStack()
        self.open.enter_context(Numbered())
        patch = self.open.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)  # there is nothing to start
        for name in ("__enter__", "__exit__"):  # inference mode would hand over operations that consist of others
            patch.setattr(torch.inference_mode, name, getattr(torch.no_grad, name))
        torch.__future__.set_swap_module_params_on_conversion(True)  # `param.data = …` would lose the class
        self.open.callback(torch.__future__.set_swap_module_params_on_conversion, False)
        return super().__enter__()

    def __exit__(self, *args):
        super().__exit__(*args)
        self.open.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Numbered(TorchFunctionMode):
    """`cuda` is `cuda:0`, since there is no driver to ask; `torch.tensor` copies to it as `.to` does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = list(args), dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            del kwargs["device"]
            return func(*args, **kwargs).to(GPU)
        if func is torch.Tensor.__getitem__ and isinstance(args[0], Pretended):
            moved = lambda i: torch.tensor(i).to(GPU) if isinstance(i, list) else i  # noqa: E731
            args[1] = tuple(map(moved, args[1])) if isinstance(args[1], tuple) else moved(args[1])
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            named = lambda x: GPU if isinstance(x, (str, torch.device)) and str(x) == "cuda" else x  # noqa: E731
            args, kwargs = [named(x) for x in args], {name: named(x) for name, x in kwargs.items()}
            if func is torch.Tensor.cuda:
                return args[0].to(GPU)
        return func(*args, **kwargs)


def run(func, args, kwargs):
    """One operation, on the values. Raises RuntimeError where a GPU would."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [isinstance(x, Pretended) for x in tensors]
    assert not any(x.is_meta for x, known in zip(tensors, there) if not known), f"{func}: the pretence has a hole"
    if func not in COPIES and any(there):
        met = tensors[:1] if func in INDEXES else tensors  # the CPU's indices may choose from the GPU
        if not all(isinstance(x, Pretended) or not x.ndim for x in met) or (func in INDEXES and not there[0]):
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, Pretended) else x, (args, kwargs))
    lands = any(there)
    if kwargs.get("device") is not None:
        lands = torch.device(kwargs["device"]).type != "cpu"  # "meta" where C++ makes one like another
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"} | {"device": "cpu"}
    elif func is torch.ops.aten.copy_.default:
        lands = there[0]
    with _disable_current_modes():
        found = func(*args, **kwargs)
    known = {id(x.held): x for x in tensors if isinstance(x, Pretended)}  # what works in place gives back what it got

    def wrapped(x):
        if not isinstance(x, torch.Tensor) or not lands:
            return x
        return known[id(x)] if id(x) in known else Pretended(x)

    return tree_map(wrapped, found)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one GPU that is pretended: 1 GB of it is free, and 3 GB are kept by torch for reuse."""
    for name, value in {
        "mem_get_info": (10**9, 8 * 10**9),
        "memory_reserved": 5 * 10**9,
        "memory_allocated": 2 * 10**9,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *device, value=value: value)
    monkeypatch.setattr(block_mask, "objection", lambda model, device=None: "no kernels on a GPU that is pretended")
    with PretendGPU():
        yield GPU


def llama(**more):
    """A random Llama or its kin, on the CPU."""
    torch.manual_seed(0)
    shape = {"vocab_size": 640, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} | {
        "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 512, "head_dim": 16,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    kind = more.pop("model_type", "llama")
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(shape | more))).eval()


WINDOWED = {"model_type": "mistral", "sliding_window": 8}
CAPPED = {"model_type": "gemma2", "sliding_window": 8}
BY_LENGTH = {
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    "max_position_embeddings": 60,
}
KINDS = [pytest.param(kind, id=kind.get("model_type", "llama")) for kind in ({}, WINDOWED, CAPPED)]
KINDS += [pytest.param(BY_LENGTH, id="RoPE by length")]


def test_a_mistake_is_seen(gpu):
    there, here = torch.ones(3, device=gpu), torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        there + here
    with pytest.raises(RuntimeError, match="same device"):
        here[there.long()]
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(there)
    assert (there.cpu() + here).tolist() == [2.0, 2.0, 2.0] and there[here.long()].is_cuda


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pack_up_to", [10**9, 0], ids=["one row", "a row each"])
def test_gradients_are_those_of_the_cpu(gpu, kind, pack_up_to):
    here, lists = llama(**kind), ([[5, 6, 7], [5, 6]], [[[8, 9, 1], [10, 1]], [[4, 1], [3, 3, 1]]])
    there = copy.deepcopy(here).to(gpu)
    found = []
    for model in (here, there):
        values = response_logprobs(model, pack(*lists, layout(model, pack_up_to)).to(model.device))
        values.sum().backward()
        found.append((values.detach().cpu(), [p.grad.cpu() for p in model.parameters()]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_those_of_the_cpu(gpu, kind, tiny_engine, sums_prompts):
    here, sampling = llama(**kind), Sampling(1.0, seed=0, max_tokens=16)
    draws = []
    for model in (here, copy.deepcopy(here).to(gpu)):
        engine = TransformersEngine(model, tiny_engine.tokenizer)
        draws.append(engine.sample(sums_prompts[:3], range(4), sampling))
    assert [d.tokens for d in draws[0]] == [d.tokens for d in draws[1]] and engine.gpus == 1
    assert [d.logprob for d in draws[0]] == pytest.approx([d.logprob for d in draws[1]], rel=1e-5)


def test_memory_that_torch_keeps_for_reuse_is_free_for_a_batch(gpu, tiny_engine):
    engine = TransformersEngine(llama().to(gpu), tiny_engine.tokenizer)
    per_row = 2 * 2 * 16 * 4 * 50_000  # keys and values, layers, numbers of a head, bytes, tokens
    assert engine.rows(50_000) == int(GPU_CACHE_SHARE * 4e9 // per_row)


def test_likelihoods_are_those_of_the_cpu(gpu, tiny_engine):
    rows = pd.DataFrame({"query_id": ["a", "a", "b"], "doc_id": ["1", "2", "3"], "text": ["17", "8 + 9", "no"]})
    here, asked, found = llama(), {"a": [5, 6, 7], "b": [8, 9]}, []
    for model in (here, copy.deepcopy(here).to(gpu)):
        found.append(Likelihood(model, tiny_engine.tokenizer, asked)(rows)["score"].tolist())
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_rewards_are_those_of_the_cpu(gpu):
    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    here = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **shape)).eval()
    rows = pd.DataFrame({"query_id": ["a", "a", "b"], "text": ["one", "two or three", "four"]})
    asked = {name: [{"role": "user", "content": f"what of {name}?"}] for name in ("a", "b")}
    found = [RewardModel(m, tokenizer, asked)(rows)["score"].tolist() for m in (here, copy.deepcopy(here).to(gpu))]
    assert found[1] == pytest.approx(found[0], rel=1e-5) and len(set(found[0])) == 3


def test_exact_search_is_that_of_the_cpu(gpu, monkeypatch):
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (500, 4))
    held = InMemory(vectors, pd.DataFrame({"doc_id": [f"d{i}" for i in range(500)], "text": ""}))
    here = held.nearest(queries, 20, block=64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    there = held.nearest(queries, 20, block=64)
    assert (here[1] == there[1]).all() and np.allclose(here[0], there[0])


def test_a_training_on_the_gpu_is_that_of_the_cpu(gpu, tiny_engine, monkeypatch, tmp_path):
    from accelerate.state import PartialState

    options = TrainOptions.of(
        "kto", learning_rate=1e-3, beta=0.1, batch_lists=2, trainer_args={"save_strategy": "no", "optim": "adamw_torch"}
    )
    lists = [Example(f"q{i}, iteration 1, list 1", [5, 6, 7 + i], [[8, 9, 1], [4 + i, 1]], [1.0, 0.0], ["", ""], [0.0] * 2,
                     mismatched=[9, 9, 1]) for i in range(4)]  # fmt: skip
    weights, arguments = [], trainer.training_arguments

    def there(*args, **kwargs):
        made = arguments(*args, **kwargs)
        made.__dict__["_setup_devices"] = gpu
        monkeypatch.setitem(PartialState._shared_state, "device", gpu)
        return made

    for make, folder in ((arguments, "here"), (there, "there")):
        monkeypatch.setattr(trainer, "training_arguments", make)
        done = trainer.train(llama(), tiny_engine.tokenizer, lists, options, tmp_path / folder)
        weights.append([p.detach().cpu() for p in done.model.parameters()])
    assert done.model.device == gpu and "kl" in done.state.log_history[0]
    torch.testing.assert_close(*weights)
    assert any((now - before).abs().max() > 1e-4 for now, before in zip(weights[0], llama().parameters()))
