"""Loading a policy to train, whole or with LoRA adapters, and saving it as plain transformers loads it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.base.files import write_text

CLASSIFIER = "SEQ_CLS"  # peft's name


def load(policy: Path, lora_rank: int | None = None, quantize: str | None = None, shard: bool = False):
    """(model, tokenizer) in float32 (bf16 by autocast, not storage), or with adapters of `lora_rank` over frozen bf16.

    quantize: "4bit" (QLoRA, by bitsandbytes) with adapters. shard: the model is to be divided over the processes of a
    launcher (`sharding.divide`): the first reads the weights, as they are stored, and the others get a model without any.
    Raises UserError: weights that are not a causal language model's or incomplete, an extra that is not installed.
    """
    import torch

    from irlens.base.devices import first
    from irlens.models import load as loader
    from irlens.models import weights
    from irlens.train import sharding

    check_adapters(lora_rank, quantize, shard)
    dtype = torch.bfloat16 if lora_rank and torch.cuda.is_available() else torch.float32
    divided = shard and sharding.several()
    if divided and not first():
        model = sharding.empty(policy, dtype)
    else:
        if divided and not lora_rank and weights.stored(policy)[1] == "BF16":
            dtype = torch.bfloat16  # each part becomes float32 where it goes
        options = {"quantization_config": _four_bits()} if quantize else {}
        model = loader.causal_lm(policy, device="cpu", dtype=dtype, **options)  # the trainer places it
    return (adapted(model, lora_rank) if lora_rank else model), loader.tokenizer(policy)


def check_adapters(lora_rank: int | None, quantize: str | None, shard: bool = False) -> None:
    """Raises UserError for a quantisation that is not known, comes without adapters or cannot be divided, or an extra that
    is missing."""
    from importlib.util import find_spec

    if quantize not in (None, "4bit"):
        raise UserError(f"--quantize {quantize!r}: known: 4bit")
    if quantize and not lora_rank:
        raise UserError("--quantize 4bit trains adapters only: give --lora-rank, such as 16")
    if quantize and shard:
        raise UserError("--quantize 4bit: weights of 4 bits are not divided; leave --shard out, or --quantize")
    for option, module in (("--lora-rank", lora_rank and "peft"), ("--quantize", quantize and "bitsandbytes")):
        if module and find_spec(module) is None:
            raise UserError(f"{option} needs {module}: pip install 'irlens[lora]'")


def _four_bits():
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def adapted(model, rank: int, kind: str = "CAUSAL_LM"):
    """The model with new LoRA adapters of this rank over frozen weights. kind: peft's name of what it is; the head of a
    CLASSIFIER is trained whole."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=kind)
    return get_peft_model(model, config)


def save(trainer, policy: Path, tokenizer, base: str, path: Path, dtype: str = "float32") -> None:
    """The trained model as plain transformers loads it, in `dtype` and one rename. Adapters are merged into the whole
    weights.

    Every process calls it: sharded weights are gathered by all and written by the first.
    """
    import json

    state = _state(trainer, dtype)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    with written_whole(path) as temporary:
        if hasattr(model, "merge_and_unload"):
            model = _merged(model, state, policy, temporary)
            state = in_dtype(model, dtype)
        write(model, state, dtype, temporary)
        tokenizer.save_pretrained(temporary)
        write_text(json.dumps({"base": base}) + "\n", temporary / "irlens.json")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A folder to write a model into; renamed to `path`, with a list of checksums, if that did not fail."""
    temporary = path.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        checksums.keep_whole(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk is to have its room back
        raise


def write(model, state: dict, dtype: str, folder: Path) -> None:
    """A model's files with the weights `state`, of which its config.json says that they are in `dtype`."""
    import json

    model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_text(json.dumps(config | {"dtype": dtype}, indent=2, sort_keys=True) + "\n", folder / "config.json")


def in_dtype(model, dtype: str) -> dict:
    """A model's weights in `dtype`, on the host."""
    import torch

    from irlens.train import sharding

    return sharding.whole(model, getattr(torch, dtype))


def _state(trainer, dtype: str) -> dict:
    """What is saved of a trainer's model: its weights in `dtype`, or its adapters, whose merging is to be exact."""
    import torch

    from irlens.train import sharding

    model, several = trainer.accelerator.unwrap_model(trainer.model), trainer.args.world_size > 1
    if hasattr(model, "merge_and_unload"):
        return sharding.whole(model, torch.float32, trainable=True)
    if several and trainer.is_deepspeed_enabled:
        found = trainer.accelerator.get_state_dict(trainer.model) or {}
        return {k: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for k, v in found.items()}
    return in_dtype(model, dtype)


def _merged(model, state, policy: Path, temporary: Path):
    """The base weights, read anew in float32 so that no quantised ones are kept, plus the trained adapters."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from irlens.models.load import WEIGHTS

    adapters = temporary.with_name(".adapters.tmp")
    try:
        model.save_pretrained(adapters, state_dict=state)
        read: dict = {"dtype": torch.float32, **WEIGHTS}
        if model.active_peft_config.task_type == CLASSIFIER:  # its head is among what was trained
            read |= {"num_labels": model.config.num_labels, "pad_token_id": model.config.pad_token_id}
            base = AutoModelForSequenceClassification.from_pretrained(policy, **read)
        else:
            base = AutoModelForCausalLM.from_pretrained(policy, **read)
        return PeftModel.from_pretrained(base, adapters).merge_and_unload()
    finally:
        shutil.rmtree(adapters, ignore_errors=True)
