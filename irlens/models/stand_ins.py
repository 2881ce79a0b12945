"""Stand-ins of models for a rehearsal: the real architecture with random weights of a few hundred thousand parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from irlens.base.errors import UserError
from irlens.models.stand_in_families import FAMILIES, Family, Tokens
from irlens.models.stand_in_sizes import shrunk

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model",
)  # fmt: skip
KEPT = (*TOKENIZER_FILES, "generation_config.json", "irlens.json")  # of a folder that is stood in for
COMMON = """the of and to in is that it for was on are as with they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them these so
some her would make like him into time has look two more write go see number no way could people my than first water"""
WORDS = COMMON.split()
PIECES = 420  # pieces of a tokenizer learnt here, beside its special tokens and bytes
BATCH, RATE = 8, 4e-3  # of `teach`


# -- where a model comes from --------------------------------------------------------------------------------------


def config_of(source: Path | str):
    """The real configuration: of a folder's config.json, or of a repository in FAMILIES.

    Raises UserError: no config.json, one that cannot be read, an architecture that transformers does not know.
    """
    if isinstance(source, str):
        import transformers

        family = FAMILIES[source]
        return getattr(transformers, family.config)(**_said(source, family))
    file = source / "config.json"
    if not file.is_file():
        raise UserError(f"{source}: the folder has no config.json, so its architecture is not known")
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: not readable as a JSON object ({error})") from error
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        raise UserError(f"{file}: model_type {kind!r} is no architecture of transformers, so it has no stand-in")
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a configuration checks what it likes
        raise UserError(f"{file}: not a usable configuration ({' '.join(str(error).split())[:200]})") from error


def parameters(config, role: str = "policy") -> int:
    """How many parameters a model of this configuration has; none is allocated."""
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in _built(config, role).parameters())


def _said(repo: str, family: Family) -> dict:
    """PairRM's files say nothing of its encoder: what its loader takes in their place."""
    from irlens.models.sizes import DEBERTA_LARGE

    return (DEBERTA_LARGE if family.config == "DebertaV2Config" else {}) | family.said


def _built(config, role: str):
    """A random model for a role: policy, reward, cross-encoder or encoder."""
    import transformers

    auto = {"policy": "AutoModelForCausalLM", "encoder": "AutoModel"}.get(role, "AutoModelForSequenceClassification")
    return getattr(transformers, auto).from_config(config)


# -- making it -----------------------------------------------------------------------------------------------------


def write(source: Path | str, role: str, to: Path):
    """A stand-in of the model in a folder, or of a repository of FAMILIES, saved in `to` as the real one is.

    role: policy, reward, pairrm, cross-encoder or encoder. A folder's own tokenizer files are kept, and with them the size
    of its vocabulary. Returns (model, tokenizer). Raises UserError: an architecture that this role or these small sizes
    do not fit.
    """
    import torch

    torch.manual_seed(0)
    to.mkdir(parents=True, exist_ok=True)
    tokenizer, own = _tokenizer(source, to)
    real = config_of(source)
    config = shrunk(real, len(tokenizer) if not own else None)
    if not own:
        _name_tokens(config, tokenizer)
    if role == "pairrm":
        return _write_pairrm(config, tokenizer, to), tokenizer
    try:
        model = _built(config, role)
    except Exception as error:  # a model's constructor raises what it likes
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{source}: {real.model_type} cannot be made small as a {role} ({why})") from error
    if role == "policy":
        _stop(model, tokenizer, FAMILIES[source].stops if isinstance(source, str) else (), to)
    model.save_pretrained(to)
    if role == "encoder":
        _write_encoder(source, to)
    return model, tokenizer


def _tokenizer(source: Path | str, to: Path):
    """(the tokenizer, now in `to`; whether it is the folder's own)."""
    from irlens.models import load

    if isinstance(source, Path):
        for name in KEPT:
            if (source / name).is_file():
                shutil.copyfile(source / name, to / name)
        if any((source / name).is_file() for name in TOKENIZER_FILES[:1] + TOKENIZER_FILES[5:]):
            return load.tokenizer(to), True
    learnt = tokenizer_of(FAMILIES[source].tokens if isinstance(source, str) else _plain())
    learnt.save_pretrained(to)
    return load.tokenizer(to), False  # as it is loaded: what a save loses is lost here too


def _plain() -> Tokens:
    """For a folder without tokenizer files: Llama's, without a chat template."""
    return FAMILIES["mistralai/Mistral-7B-v0.1"].tokens


def _name_tokens(config, tokenizer) -> None:
    """The ids that a configuration names, as a tokenizer learnt here has them."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(part, name, getattr(tokenizer, name))


def _stop(model, tokenizer, stops: Sequence[str], to: Path) -> None:
    """generation_config.json's end tokens: the family's, or the folder's own file."""
    from transformers import GenerationConfig

    if (to / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(to)
    elif stops:
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(stops))


def _write_pairrm(config, tokenizer, to: Path):
    """Random weights in PairRM's layout: an encoder, and a head on two states; returns the encoder."""
    from safetensors.torch import save_file
    from torch import nn
    from transformers import DebertaV2Model

    hidden = config.hidden_size
    encoder = DebertaV2Model(config)
    head = nn.Sequential(nn.Dropout(), nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Dropout(), nn.Linear(hidden, 1))
    weights = {f"pretrained_model.{k}": v for k, v in encoder.state_dict().items()}
    weights |= {f"head_layer.{k}": v for k, v in head.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, to / "model.safetensors")
    said = config.to_diff_dict() | {"source_maxlength": 1224, "candidate_maxlength": 412}
    (to / "config.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return encoder


def _write_encoder(source: Path | str, to: Path) -> None:
    """The sentence-transformers modules round an encoder: a folder's own pooling, else the mean; normalised."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    mode = "mean"
    if isinstance(source, Path) and (source / "1_Pooling" / "config.json").is_file():
        said = json.loads((source / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
        on = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
        names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "lasttoken"}
        mode = said.get("pooling_mode") or next((names.get(n.removeprefix("pooling_mode_"), "mean") for n in on), mode)
    first = Transformer(str(to))
    SentenceTransformer(modules=[first, Pooling(first.get_embedding_dimension(), mode), Normalize()]).save(str(to))


# -- tokenizers learnt on the spot ---------------------------------------------------------------------------------


def tokenizer_of(tokens: Tokens):
    """A tokenizer of this class and structure, whose pieces are learnt from WORDS, digits and signs."""
    import transformers
    from tokenizers import Tokenizer

    special = [*tokens.first, *(t for t in tokens.control if t not in tokens.first)]
    names = tokens.names | {"extra_special_tokens": list(tokens.control)} | tokens.arguments
    made = getattr(transformers, tokens.loader)
    if tokens.kind == "byte-level":
        out = made(tokenizer_object=Tokenizer.from_str(json.dumps(_byte_level(special, tokens))), **names)
    elif tokens.kind == "sentencepiece":
        vocabulary, merges = _sentencepiece(special)
        out = made(vocab=vocabulary, merges=merges, **names)
    elif tokens.kind == "unigram":
        pieces = [(t, 0.0) for t in tokens.first] + [(p, -float(i)) for i, p in enumerate(_whole("▁"), 3)]
        out = made(vocab=pieces, unk_id=tokens.first.index("[UNK]"), **names)
    else:
        pieces = [*_whole(""), *(f"##{letter}" for letter in _letters())]
        out = made(vocab={piece: i for i, piece in enumerate(dict.fromkeys([*special, *pieces]))}, **names)
    if tokens.template:
        from irlens.models.stand_in_families import TEMPLATES

        out.chat_template = TEMPLATES[tokens.template]
    return out


def _letters() -> list[str]:
    """What any English text and formula is spelt with."""
    return [chr(i) for i in range(33, 127)]


def _whole(mark: str) -> list[str]:
    """Words with the mark of a beginning, and single letters with and without it."""
    letters = _letters()
    return list(dict.fromkeys([*(mark + word for word in WORDS), *letters, *([mark] if mark else [])]))


def _learnt(inner, alphabet: Sequence[str]) -> tuple[dict[str, int], list]:
    """(vocabulary, merges) of byte-pair encoding over the words."""
    from tokenizers import trainers

    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(8)] + ["#### 1 #### 2 #### 3 \\boxed{1} \\boxed{2}\n"] * 4
    inner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=list(alphabet)))
    found = json.loads(inner.to_str())["model"]
    return found["vocab"], [tuple(pair) for pair in found["merges"]]


def _sentencepiece(special: Sequence[str]) -> tuple[dict[str, int], list]:
    """(vocabulary, merges) as SentencePiece's byte-pair models have them: special tokens, 256 bytes, pieces."""
    from tokenizers import Tokenizer, models, normalizers

    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Replace(" ", "▁")
    pieces, merges = _learnt(inner, [*_letters(), "▁", "\n"])
    order = [*special, *(f"<0x{i:02X}>" for i in range(256)), *sorted(pieces, key=pieces.get)]
    return {piece: i for i, piece in enumerate(dict.fromkeys(order))}, merges


def _byte_level(special: Sequence[str], tokens: Tokens) -> dict:
    """tokenizer.json as Llama 3 has it: byte-level pieces first, special tokens after them, BOS before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    _learnt(inner, pre_tokenizers.ByteLevel.alphabet())
    inner.add_special_tokens(list(special))
    bos = tokens.names["bos_token"]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
    )
    return json.loads(inner.to_str())


# -- what a policy is taught ---------------------------------------------------------------------------------------


def teach(model, pairs: Sequence[tuple[list[int], list[int]]], steps: int) -> float:
    """Trains random weights for seconds to answer in a format and to end: pairs of (prompt ids, response ids).

    Without this no draw of a random model ends, none is right, and a rehearsal would cut no list. Returns the last loss,
    nats per token of the responses.
    """
    import random

    import torch

    chooses, device = random.Random(0), model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    model.train()
    loss = torch.tensor(float("nan"))
    for step in range(steps):
        some = chooses.sample(list(pairs), min(BATCH, len(pairs)))
        width = max(len(a) + len(b) for a, b in some)
        ids = torch.tensor([[*a, *b] + [0] * (width - len(a) - len(b)) for a, b in some], device=device)
        mask = torch.tensor([[1] * (len(a) + len(b)) + [0] * (width - len(a) - len(b)) for a, b in some], device=device)
        wanted = [[-100] * len(a) + b + [-100] * (width - len(a) - len(b)) for a, b in some]
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 10)
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(wanted, device=device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return float(loss.detach())
