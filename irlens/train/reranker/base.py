"""What a reranker starts from: a language model, an encoder or a classifier, with a head of one score and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.models import load
from irlens.rerank.reward import Reader

# What a language model without a chat template reads: the form of `catalog.PLAIN_PROMPT`, the response and its end.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}"
    "{{ 'Question: ' + CONTENT + '\\nAnswer:\\n' }}{% endif %}{% endfor %}"
)
HEADS = ("score", "classifier", "pre_classifier")  # what models call the part that is new
POOLER = "pooler"
NO_CLASSIFIER = "cannot be loaded as a sequence classifier"


def is_causal(folder: Path) -> bool:
    """Whether a classifier made of the model in `folder` reads its score at a text's end, as language models do.

    Raises UserError: no model of which one can be made, or one that has a head of other than one score.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForSequenceClassification

    config = load.config(folder)
    kinds = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    if "Classification" in kinds[0] and config.num_labels != 1:
        raise UserError(
            f"{folder}: has a head of {config.num_labels} labels, and a reranker gives one score; start from the model "
            "without that head, or from a classifier of one label"
        )
    try:
        with init_empty_weights():
            return hasattr(AutoModelForSequenceClassification.from_config(config), "score")
    except ValueError as error:
        raise UserError(f"{folder}: {NO_CLASSIFIER} ({type(config).__name__} has none)") from error


def tokenizer(folder: Path, pad_token: str | None = None, instruction: str = ""):
    """The tokenizer of a base, with a token that pads and, of a language model without a chat template, `template`.

    pad_token: one of its tokens, where it names none that will do. instruction: what a data set adds to its questions.
    Raises UserError: no token that pads at all, one that it does not know or that ends every text.
    """
    causal, found = is_causal(folder), load.tokenizer(folder)
    if pad_token is not None:
        if pad_token not in found.get_vocab():
            raise UserError(f"--pad-token {pad_token!r}: no token of the tokenizer in {folder}")
        found.pad_token = pad_token
    if found.pad_token_id is None:
        raise UserError(
            f"{folder}: its tokenizer has no pad token, by which a classifier finds where a text ends; name one that no "
            "text ends with: --pad-token TOKEN"
        )
    if causal and found.pad_token_id == found.eos_token_id:
        raise UserError(
            f"{folder}: its tokenizer pads with {found.pad_token}, which also ends texts, so that a text's end cannot be "
            "found; name another one: --pad-token TOKEN"
        )
    if causal and not found.chat_template:
        if found.eos_token_id is None:
            raise UserError(f"{folder}: its tokenizer has neither a chat template nor a token that ends a text")
        found.chat_template = template(instruction)
    return found


def reader(folder: Path, found, conversations: dict[str, list[dict]]) -> Reader:
    """How the reranker that is made of a base reads; `found`: its tokenizer. conversations: query_id → messages."""
    config = load.config(folder)
    config.get_text_config().pad_token_id = found.pad_token_id
    return Reader(config, found, conversations, is_causal(folder))


def template(instruction: str = "") -> str:
    """The chat template that a language model without one is given: it takes a data set's `instruction` off the end of a
    question, for such a model has never been told it (`models.chat.prompts`), and its folder then says so itself."""
    told = "message['content']"
    if instruction:
        told += f".removesuffix({json.dumps(chr(10) * 2 + instruction)})"
    return TEMPLATE.replace("CONTENT", told)


def unread(folder: Path, instruction: str) -> str:
    """What a reranker made of the model in `folder` does not read of a data set's instruction: all of it, or nothing."""
    return instruction if is_causal(folder) and not load.tokenizer(folder).chat_template else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's report that the head is new, which is meant."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def model(folder: Path, found, seed: int, lora_rank: int | None = None):
    """The classifier of one score on a base, on the CPU in float32 (with adapters of `lora_rank` and a GPU: bfloat16),
    without dropout, as TRL trains it. What is new of it begins with the random numbers of `seed`.

    Raises UserError for a base of which no classifier can be made, or whose weights are not whole.
    """
    import torch

    from irlens.train import adapters

    dtype = torch.bfloat16 if lora_rank and torch.cuda.is_available() else torch.float32
    torch.manual_seed(seeds.folded(seeds.derive(seed, 0, "weights")))
    with _quiet():
        made, absent = load.classifier(folder, NO_CLASSIFIER, "cpu", dtype=dtype, num_labels=1)
    wrong = [key for key in absent if not key.startswith(HEADS) and POOLER not in key]
    if wrong:
        raise UserError(f"{folder}: not the weights of a {type(made).__name__}: {sorted(wrong)[0]} is missing")
    made.config.pad_token_id = made.config.get_text_config().pad_token_id = found.pad_token_id
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return adapters.adapted(made, lora_rank, adapters.CLASSIFIER) if lora_rank else made
