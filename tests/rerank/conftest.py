"""Shared by the rerankers' tests: a random reward model."""

import pytest


@pytest.fixture(scope="session")
def save_classifier():
    """`save_classifier(folder, positions)`: random weights with one score, and the embedded encoder's tokenizer, which has
    no chat template; returns the folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from irlens.models import catalog

    def save(folder, positions=64):
        tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=positions, num_labels=1, initializer_range=0.5)  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def classifier(save_classifier, tmp_path_factory):
    """The folder of a random reward model that reads up to 64 tokens."""
    return save_classifier(tmp_path_factory.mktemp("classifier"))
