"""On a GPU: draws, log-probabilities, training, rewards and retrieval as on the CPU, up to what the formats round."""

import copy
import importlib.util
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from irlens.models.chat import Prompt, token_ids
from irlens.models.logprobs import layout, pack, response_logprobs
from irlens.retrieve.engines import Sampling
from irlens.retrieve.engines.transformers import TransformersEngine

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def gpu_engine(tiny_engine):
    return TransformersEngine(copy.deepcopy(tiny_engine.model).to(DEVICE), tiny_engine.tokenizer)


def llama(dtype=torch.float32, **more):
    """A random Llama on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 4096, "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
             "num_key_value_heads": 4, "intermediate_size": 1024, "max_position_embeddings": 32_768,
             "initializer_range": 0.06, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(shape | more))).to(device=DEVICE, dtype=dtype).eval()


# -- draws ---------------------------------------------------------------------------------------------------------


def test_draws_are_those_of_the_cpu(tiny_engine, gpu_engine, sums_prompts):
    sampling = Sampling(1.0, seed=0, max_tokens=96)
    cpu, gpu = (engine.sample(sums_prompts, range(20), sampling) for engine in (tiny_engine, gpu_engine))
    assert sum(a.tokens == b.tokens for a, b in zip(cpu, gpu)) / len(cpu) >= 0.99


def test_draws_depend_on_the_seed_and_not_on_the_batch(gpu_engine, sums_prompts):
    sampling = Sampling(1.0, seed=0, max_tokens=96)
    drawn = gpu_engine.sample(sums_prompts, range(8), sampling)
    assert gpu_engine.sample(sums_prompts, range(8), sampling) == drawn
    narrow = TransformersEngine(gpu_engine.model, gpu_engine.tokenizer, batch_size=5)
    few = narrow.sample(sums_prompts, range(8), sampling)
    assert sum(a.tokens == b.tokens for a, b in zip(few, drawn)) / len(drawn) >= 0.99
    other = gpu_engine.sample(sums_prompts, range(8), Sampling(1.0, seed=1, max_tokens=96))
    assert sum(a.tokens == b.tokens for a, b in zip(other, drawn)) / len(drawn) < 0.5


@torch.no_grad()
def test_greedy_draws_are_those_of_the_cpu_but_at_near_ties(tiny_engine, gpu_engine, sums_prompts):
    sampling = Sampling(0.0, seed=0, max_tokens=96)
    cpu, gpu = (engine.sample(sums_prompts, range(1), sampling) for engine in (tiny_engine, gpu_engine))
    for prompt, a, b in zip(token_ids(tiny_engine.tokenizer, sums_prompts), cpu, gpu):
        if a.tokens != b.tokens:
            same = next(i for i, (x, y) in enumerate(zip(a.tokens, b.tokens)) if x != y)
            logits = tiny_engine.model(torch.tensor([prompt + list(a.tokens[:same])])).logits[0, -1]
            assert abs(logits[a.tokens[same]] - logits[b.tokens[same]]) < 1e-3, prompt
    assert sum(a.tokens == b.tokens for a, b in zip(cpu, gpu)) / len(cpu) >= 0.95


@torch.no_grad()
def test_draws_are_distributed_as_the_cpu_has_it(tiny_engine, gpu_engine, sums_prompts):
    count = 8000
    drawn = gpu_engine.sample(sums_prompts[:1], range(count), Sampling(1.0, seed=3, max_tokens=1))
    ids = token_ids(tiny_engine.tokenizer, sums_prompts[:1])
    expected = count * tiny_engine.model(torch.tensor(ids)).logits[0, -1].double().softmax(-1)
    seen = torch.bincount(torch.tensor([d.tokens[0] for d in drawn]), minlength=len(expected)).double()
    rare = expected < 5  # one cell
    cells = [(s, e) for s, e in zip(seen[~rare], expected[~rare])] + [(seen[rare].sum(), expected[rare].sum())]
    statistic = sum(((s - e) ** 2 / max(e, 1e-9)).item() for s, e in cells)
    degrees = max(1, len(cells) - 1)
    assert statistic < degrees + 5 * math.sqrt(2 * degrees)  # five standard deviations of chi-squared


def test_half_precision_draws_have_the_logprobs_that_a_pass_over_them_gives(sums_prompts, tiny_engine):
    model = llama(torch.bfloat16, vocab_size=640)
    engine = TransformersEngine(model, tiny_engine.tokenizer)
    asked = [Prompt(str(i), (sums_prompts[i].text + " ") * (1 + i % 5)) for i in range(20)]  # padded on the left
    drawn = engine.sample(asked, range(4), Sampling(1.0, seed=0, max_tokens=64))
    ids = dict(zip((p.query_id for p in asked), token_ids(tiny_engine.tokenizer, asked)))
    prompts, responses = [ids[d.query_id] for d in drawn], [[list(d.tokens)] for d in drawn]
    with torch.inference_mode():
        values = response_logprobs(model, pack(prompts, responses, layout(model, 0)).to(DEVICE))[:, 0].tolist()
    off = [abs(d.logprob - value) / d.n_tokens for d, value in zip(drawn, values)]
    assert all(math.isfinite(d.logprob) for d in drawn) and np.mean(off) < 0.02 and max(off) < 0.1


# -- log-probabilities and training ----------------------------------------------------------------------------------


def test_packed_logprobs_are_those_of_the_cpu(tiny_engine):
    packed = pack([[5, 6, 7]], [[[8, 9, 1], [10, 1]]], layout(tiny_engine.model))
    with torch.no_grad():
        cpu = response_logprobs(tiny_engine.model, packed)
        gpu = response_logprobs(copy.deepcopy(tiny_engine.model).to(DEVICE), packed.to(DEVICE))
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("tokens, needed", [(1024, 4e9), (4096, 8e9), (16_384, 40e9)])
@pytest.mark.parametrize("how", ["weights in bfloat16", "autocast"])
def test_packed_logprobs_and_gradients_are_those_of_plain_rows(tokens, needed, how):
    """In half precision one row of so many tokens is as near to float32 as a row per response is."""
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of free memory")
    generator = torch.Generator().manual_seed(0)
    part = tokens // 4  # a prompt and three responses of about equal length
    prompt, *responses = (
        torch.randint(2, 4096, (n,), generator=generator).tolist() for n in (part, part, part - 7, part - 31)
    )
    exact, half = llama(), llama(torch.float32 if how == "autocast" else torch.bfloat16)
    length = torch.tensor([[len(r) for r in responses]], device=DEVICE)

    def run(model, pack_up_to, autocast=False):
        model.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            values = response_logprobs(model, pack([prompt], [responses], layout(model, pack_up_to)).to(DEVICE))
        (values.float() / length).sum().backward()
        return values.detach().float() / length, torch.cat([p.grad.float().flatten() for p in model.parameters()])

    truth, slope = run(exact, 0)
    in_one_row, packed_slope = run(half, 10**9, how == "autocast")
    plain, plain_slope = run(half, 0, how == "autocast")
    torch.testing.assert_close(run(exact, 10**9)[0], truth, atol=1e-4, rtol=1e-4)
    assert (in_one_row - truth).abs().max() < 0.02  # nats per token
    error, usual = ((some - slope).norm() / slope.norm() for some in (packed_slope, plain_slope))
    assert (in_one_row - plain).abs().max() < 0.02 and error < max(1.5 * usual, 0.02)


def test_fitting_on_the_gpu_lowers_the_loss_and_leaves_a_policy_there(tiny_engine):
    import irlens

    rows = [
        {"prompt": f"{i} + 1 =", "completions": [f" {i + 1}", f" {i}", " 0"], "scores": [2.0, 1.0, 0.0]}
        for i in range(16)
    ]
    model = copy.deepcopy(tiny_engine.model)
    before = [p.detach().clone() for p in model.parameters()]
    policy = irlens.train.fit(
        model, tiny_engine.tokenizer, rows, "listmle", beta=1.0, epochs=3, batch_lists=8, learning_rate=1e-3
    )
    after = [p.detach().cpu() for p in policy.model.parameters()]
    assert policy.model.device.type == DEVICE
    assert all(torch.isfinite(p).all() for p in after) and any((a != b).any() for a, b in zip(after, before))
    start = copy.deepcopy(tiny_engine.model).to(DEVICE)
    (batch,) = irlens.train.batches(policy.model, tiny_engine.tokenizer, rows, 16, reference=start)
    with torch.no_grad():
        ratio = irlens.train.scores(policy.model, batch).log_ratio
    assert (ratio[:, 0] - ratio[:, 2]).mean() > 0  # what is best gains on what is worst


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_two_iterations_with_a_reward_model_on_one_device(engine, irlens, tmp_path):
    """Drawing, judging and training take turns on the GPU: what one holds, the next does not find taken."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from irlens.models import catalog

    if importlib.util.find_spec("vllm") is None and engine == "vllm":
        pytest.skip("vllm is not installed")
    words = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=512, num_labels=1, initializer_range=0.5)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    words.save_pretrained(tmp_path / "judge")
    asked = ("--prompts", 32, "-n", 4, "--iterations", 2, "--epochs", 1, "--engine", engine)
    judged = ("--model", "tiny", "--reward", tmp_path / "judge", "--objective", "contrastive")
    held_out = ("--eval-limit", 16, "--eval-n", 2, "--test-limit", 16, "--out", tmp_path / "out")
    irlens("train", *judged, *asked, *held_out, apart=True)
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert {0, 1, 2} <= set(results["x"]) and results["value"].notna().all()
    for s in (1, 2):
        run = pd.read_parquet(tmp_path / "out" / f"iteration-{s}" / "run.parquet")
        assert len(run) == 32 * 4 and np.isfinite(run["reward"]).all()
        assert (tmp_path / "out" / f"iteration-{s}" / "model" / "model.safetensors").is_file()


# -- rewards and retrieval -------------------------------------------------------------------------------------------


def test_a_second_batch_is_as_large_as_the_first(gpu_engine, sums_prompts):
    """What torch keeps for reuse counts as free."""
    rows = TransformersEngine.rows
    gpu_engine.model.float()
    first = rows(gpu_engine, 10_000)
    kept = torch.empty(int(0.5 * torch.cuda.mem_get_info()[0]), dtype=torch.uint8, device=DEVICE)
    del kept
    assert rows(gpu_engine, 10_000) >= 0.95 * first


def test_exact_search_is_that_of_numpy():
    from irlens.retrieve.index import Index
    from irlens.retrieve.vectors import InMemory

    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 64)).astype(np.float32) for n in (20_000, 16))
    corpus = pd.DataFrame({"doc_id": [f"d{i}" for i in range(len(vectors))], "text": ""})
    scores, rows = Index(InMemory(vectors, corpus), "Flat").search(queries, 50)
    truth = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :50]
    assert (rows[:, :50] == truth).mean() > 0.999
    np.testing.assert_allclose(scores[:, 0], (queries * vectors[truth[:, 0]]).sum(1), rtol=1e-5)


def test_vectors_are_those_of_the_cpu():
    from irlens.models import catalog
    from irlens.retrieve.encoder import DenseEncoder

    chosen = catalog.encoder("tiny-e5")
    folder, texts = catalog.fetch(chosen), [f"the capital of country {i}" * (1 + i % 4) for i in range(50)]
    found = [DenseEncoder.load(chosen, folder, device=device).encode(texts) for device in ("cpu", DEVICE)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_faiss_on_the_gpu_finds_what_it_finds_on_the_cpu(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    if not getattr(faiss, "get_num_gpus", int)():
        pytest.skip("the installed FAISS knows no GPU: faiss-gpu is not installed")
    from irlens.base import files
    from irlens.retrieve.corpus import write_vectors
    from irlens.retrieve.index import Index, Search
    from irlens.retrieve.vectors import Vectors

    vectors = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    ids = [f"d{i}" for i in range(len(vectors))]
    files.write_parquet(pd.DataFrame({"doc_id": ids, "text": ""}), tmp_path / "v" / "000000.parquet")
    write_vectors(vectors, tmp_path / "v" / "000000.npy")
    index = Index(Vectors(tmp_path / "v"), "IVF64,Flat", Search(nprobe=16)).open()
    for k in (10, 3000):  # more than a GPU's index gives
        there = index.search(vectors[:8], k)[1][:, :10]
        with monkeypatch.context() as patch:
            patch.setattr(faiss, "get_num_gpus", lambda: 0)
            here = Index(index.vectors, "IVF64,Flat", Search(nprobe=16)).open().search(vectors[:8], k)[1][:, :10]
        assert Counter(there.ravel().tolist()) == Counter(here.ravel().tolist())
