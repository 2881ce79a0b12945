"""The families of the catalog's repositories: configuration, special tokens and chat template as published, no weights.

What is written here are facts (classes, sizes, roles, the order and names of special tokens); a test counts the parameters
that they make against the catalog's. A repository that is not here is read from its own config.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
GEMMA_TURN = (
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEMPLATES = {  # the structure of the published ones
    "gemma2": "{{ bos_token }}" + NO_SYSTEM + "{% for message in messages %}" + ALTERNATE + GEMMA_TURN,
    "llama": (
        "{% for message in messages %}{{ (bos_token if loop.index0 == 0 else '') + '<|start_header_id|>' + "
        "message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles!') }}"
        "{% endif %}{% endfor %}"
    ),
    "mistral-v3": (
        "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + '[/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles!') }}"
        "{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
}


@dataclass(frozen=True)
class Tokens:
    """A tokenizer's class and special tokens. kind: how texts are cut: sentencepiece, byte-level, unigram, wordpiece.

    first: the tokens with the lowest ids, in their order. control: those of them, or after them, that are special beside
    those with a `name` (bos, eos, pad, …). template: of TEMPLATES.
    """

    kind: str
    loader: str
    first: tuple[str, ...]
    names: dict[str, str]
    control: tuple[str, ...] = ()
    template: str | None = None
    arguments: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """What a repository's files say. stops: the tokens that generation_config.json ends at, where there are several."""

    config: str
    said: dict
    tokens: Tokens
    stops: tuple[str, ...] = ()


LLAMA = ("<unk>", "<s>", "</s>")
LLAMA_NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def _sentencepiece(template: str | None, first=LLAMA, control=(), **names: str) -> Tokens:
    how = {"add_bos_token": True}
    return Tokens("sentencepiece", "LlamaTokenizer", first, LLAMA_NAMES | names, control, template, how)


SEVEN_B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
MISTRAL_V1 = SEVEN_B | {"sliding_window": 4096, "rope_theta": 10_000.0}
MISTRAL_V2 = SEVEN_B | {"sliding_window": None, "rope_theta": 1_000_000.0}
GEMMA_2B = {
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "vocab_size": 256_000,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
}
LLAMA_8B = SEVEN_B | {
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "rope_theta": 500_000.0,
    "num_labels": 1,
}
INST = ("[INST]", "[/INST]")
TURNS = ("<start_of_turn>", "<end_of_turn>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA_TOKENS = Tokens(
    "sentencepiece",
    "GemmaTokenizer",
    ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    TURNS,
    "gemma2",
    {"add_bos_token": True},
)
LLAMA3_TOKENS = Tokens(
    "byte-level",
    "PreTrainedTokenizerFast",
    (),
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|end_of_text|>"},
    ("<|begin_of_text|>", "<|end_of_text|>", *HEADERS),
    "llama",
)
BRACKETS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BRACKET_NAMES = {f"{name.strip('[]').lower()}_token": name for name in BRACKETS}
WORDPIECE = Tokens("wordpiece", "BertTokenizer", BRACKETS, BRACKET_NAMES)
PAIRRM_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
DEBERTA_TOKENS = Tokens(
    "unigram", "DebertaV2Tokenizer", ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), BRACKET_NAMES, PAIRRM_MARKS
)


def _bert(hidden: int, layers: int, heads: int, **more) -> Family:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * hidden, "vocab_size": 30_522, "max_position_embeddings": 512}
    return Family("BertConfig", sizes | more, WORDPIECE)


FAMILIES = {
    "mistralai/Mistral-7B-v0.1": Family("MistralConfig", MISTRAL_V1, _sentencepiece(None)),
    "mistralai/Mistral-7B-Instruct-v0.2": Family("MistralConfig", MISTRAL_V2, _sentencepiece("mistral")),
    "alignment-handbook/zephyr-7b-sft-full": Family(
        "MistralConfig", MISTRAL_V1, _sentencepiece("zephyr", pad_token="</s>")
    ),
    "mistralai/Mathstral-7B-v0.1": Family(
        "MistralConfig",
        MISTRAL_V2 | {"vocab_size": 32_768},
        _sentencepiece("mistral-v3", (*LLAMA, *INST), INST),
    ),
    "google/gemma-2-2b-it": Family("Gemma2Config", GEMMA_2B, GEMMA_TOKENS, ("<eos>", "<end_of_turn>")),
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": Family("LlamaConfig", LLAMA_8B, LLAMA3_TOKENS),
    "llm-blender/PairRM": Family("DebertaV2Config", {"vocab_size": 128_005}, DEBERTA_TOKENS),
    "intfloat/e5-base-v2": _bert(768, 12, 12),
    "intfloat/e5-small-v2": _bert(384, 12, 12),
    "intfloat/e5-large-v2": _bert(1024, 24, 16),
    "cross-encoder/ms-marco-MiniLM-L6-v2": _bert(384, 6, 12, num_labels=1),
    "cross-encoder/ms-marco-MiniLM-L12-v2": _bert(384, 12, 12, num_labels=1),
}
