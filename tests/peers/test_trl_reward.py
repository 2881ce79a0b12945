"""Our Bradley–Terry training beside TRL's RewardTrainer, step by step: the same texts in the same order, the same optimiser.

Needs the extra `bench`; written for TRL 1.16.
"""

import os

import pytest
import torch
from torch.utils.data import SequentialSampler

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", minversion="1.16")

from irlens.train.reranker import trainer as ours
from irlens.train.reranker.options import RerankerOptions
from irlens.train.reranker.texts import Texts

LISTS, BATCH, EPOCHS, PAD, WORDS = 24, 4, 2, 0, 40
SHARED = {
    "lr_scheduler_type": "linear",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "logging_steps": 1,
    "max_grad_norm": 1.0,
}


@pytest.fixture
def model():
    """A random classifier, the same at every call."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def make():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=WORDS,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            num_labels=1,
            pad_token_id=PAD,
            eos_token_id=1,
            initializer_range=0.3,
        )
        return LlamaForSequenceClassification(config)

    return make


def pairs() -> list[Texts]:
    """Random pairs of 3 to 12 tokens, each with its margin."""
    rng = torch.Generator().manual_seed(1)

    def text():
        length = int(torch.randint(3, 12, (), generator=rng))
        return {"input_ids": [*torch.randint(2, WORDS, (length,), generator=rng).tolist(), 1]}

    margins = torch.rand(LISTS, generator=rng).tolist()
    return [Texts(f"{i}", f"q{i}", [text(), text()], [1.0, 0.0], ["positive", "own"], m) for i, m in enumerate(margins)]


def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<end>": 1} | {f"w{i}": i for i in range(2, WORDS)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="<end>"
    )


def recorded(kind, losses: list, **methods):
    """A trainer of this kind, with these methods, that keeps its losses, which logs round."""

    def compute_loss(self, *args, **kwargs):
        loss = kind.compute_loss(self, *args, **kwargs)
        losses.append(loss.item())
        return loss

    return type("Recorded", (kind,), {"compute_loss": compute_loss, **methods})


def order(lists: list[Texts], seed: int) -> list[Texts]:
    """The lists of all epochs as our trainer deals them out."""
    epochs = [
        list(ours.policies.Steps(LISTS, BATCH, BATCH, 1, seed, lambda epoch=epoch: epoch)) for epoch in range(EPOCHS)
    ]
    return [lists[i] for epoch in epochs for i in epoch]


@pytest.mark.parametrize("with_margin", [False, True])
def test_every_step_has_the_loss_of_trls_reward_trainer(with_margin, model, tmp_path, monkeypatch):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    lists = (
        pairs() if with_margin else [Texts(one.name, one.query_id, one.texts, one.grades, one.tiers) for one in pairs()]
    )
    options = RerankerOptions(learning_rate=1e-2, epochs=EPOCHS, batch_lists=BATCH, lists_at_once=BATCH,
                              trainer_args=SHARED | {"save_strategy": "no"}).training()  # fmt: skip
    own: list[float] = []
    monkeypatch.setattr(ours, "RerankerTrainer", recorded(ours.RerankerTrainer, own))
    done = ours.train(model(), PAD, lists, options, tmp_path / "ours")
    dealt = order(lists, done.args.data_seed)
    rows = [{"chosen_ids": one.texts[0]["input_ids"], "rejected_ids": one.texts[1]["input_ids"], "margin": one.margin} for one in dealt]  # fmt: skip
    data = Dataset.from_list(rows) if with_margin else Dataset.from_list(rows).remove_columns("margin")
    theirs: list[float] = []
    arguments = RewardConfig(str(tmp_path / "trl"), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=1e-2,
                             save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
                             **SHARED)  # fmt: skip
    trl = recorded(
        RewardTrainer, theirs, _get_train_sampler=lambda self, data=None: SequentialSampler(self.train_dataset)
    )(model(), arguments, train_dataset=data, processing_class=tokenizer())
    trl.train()
    assert len(own) == len(theirs) == EPOCHS * LISTS // BATCH
    assert own == pytest.approx(theirs, abs=1e-4) and max(own) - min(own) > 0.05
    ends = [torch.cat([p.detach().flatten() for p in some.parameters()]) for some in (done.model, trl.model)]
    assert torch.allclose(*ends, atol=1e-4)
