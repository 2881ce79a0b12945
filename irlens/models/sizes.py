"""What a model measures, from its configuration alone: parameters, layers, heads; nothing is downloaded but a config.json."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from irlens.base.errors import UserError

MISTRAL = {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32000,
           "max_position_embeddings": 32768, "tie_word_embeddings": False}  # fmt: skip
KNOWN = {  # catalog name → its config.json, in what counts here
    "mistral-7b": MISTRAL,
    "mistral-7b-it": MISTRAL,
    "mistral-7b-sft": MISTRAL,
    "mathstral": MISTRAL | {"vocab_size": 32768},
    "gemma2-2b-it": {"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                     "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000,
                     "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "pairrm": {"model_type": "deberta-v2", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
               "num_attention_heads": 16, "vocab_size": 128100, "max_position_embeddings": 2048},
    "fsfairx": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
                "max_position_embeddings": 8192, "tie_word_embeddings": False, "num_labels": 1},
}  # fmt: skip
CLASSIFIER, LANGUAGE, ENCODER = "sequence classifier", "language model", "encoder"
DEBERTA_LARGE = {  # DeBERTa-v3-large, which PairRM's published weights are; their config.json does not say it
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class Size:
    """A transformer: `width` numbers per token between its `layers`, `inner` within their feed-forward parts, `keys`
    numbers of keys (and of values) per token and layer."""

    parameters: int
    layers: int
    width: int
    inner: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    positions: int | None
    tied: bool
    scores: bool = False  # whether attention scores are held whole, as where they are soft-capped or relative

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding and the head."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def layer(self) -> float:
        """Parameters of a layer."""
        return (self.parameters - self.embeddings) / self.layers

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters of this rank on every linear layer but the head, where the feed-forward parts are
        gated (three matrices)."""
        width, inner = self.width, self.inner
        ends = 2 * (width + self.queries) + 2 * (width + self.keys) + 3 * (width + inner)
        return rank * ends * self.layers


def of_config(config: dict, parameters: int | None = None, kind: str = LANGUAGE) -> Size:
    """The size of what a config.json describes. `parameters`: where they are known; else they are counted."""
    text = config.get("text_config") or config
    width, heads = text["hidden_size"], text["num_attention_heads"]
    head = text.get("head_dim") or width // heads
    return Size(
        parameters=parameters or count(json.dumps(config, sort_keys=True), kind),
        layers=text["num_hidden_layers"],
        width=width,
        inner=text.get("intermediate_size") or 4 * width,
        heads=heads,
        queries=heads * head,
        keys=(text.get("num_key_value_heads") or heads) * head,
        vocabulary=text["vocab_size"],
        positions=text.get("max_position_embeddings"),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))),
        scores=text.get("model_type", "").startswith(("gemma2", "deberta")),
    )


@functools.cache
def count(config: str, kind: str = LANGUAGE) -> int:
    """Parameters of a model, built from its configuration (JSON) without weights.

    Raises UserError for an architecture that transformers does not know.
    """
    import transformers
    from accelerate import init_empty_weights

    auto = {LANGUAGE: "CausalLM", CLASSIFIER: "SequenceClassification"}
    factory = getattr(transformers, f"AutoModelFor{auto[kind]}" if kind in auto else "AutoModel")
    found = json.loads(config)
    try:
        made = transformers.AutoConfig.for_model(**found)
        with init_empty_weights():
            model = factory.from_config(made)
    except (ValueError, KeyError) as error:
        raise UserError(f"config.json: {error}") from error
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def read(name: str, repo: str, revision: str | None = None, parameters: int | None = None, kind: str = LANGUAGE,
         ask: bool = True) -> Size | None:  # fmt: skip
    """The size of a catalog's model, a folder's or a hub id's, of which a config.json is fetched if `ask`; None where it
    cannot be told: no network, or an architecture that is described otherwise."""
    from irlens.models import hub

    if name in KNOWN:
        return of_config(KNOWN[name], parameters, kind)
    folder = Path(repo)
    if not folder.is_dir():
        if not ask:
            return None
        try:
            folder = hub.snapshot(repo, "model", "", revision, allow_patterns=["config.json"])
        except UserError:
            return None  # what needs the model says why
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return of_config(config, parameters, kind)
    except (OSError, ValueError, KeyError, UserError):
        return None
