"""Loading a policy to train, whole or with LoRA adapters, and saving it as plain transformers loads it."""

import shutil
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.files import write_text


def load(policy: Path, lora_rank: int | None = None, quantize: str | None = None):
    """(model, tokenizer) in float32 (bf16 by autocast, not storage), or with adapters of `lora_rank` over frozen bf16.

    quantize: "4bit" (QLoRA, by bitsandbytes) with adapters. Raises UserError: weights that are not a causal language
    model's or incomplete, an extra that is not installed.
    """
    import torch

    from irlens.models import load as loader

    check_adapters(lora_rank, quantize)
    options: dict = {"dtype": torch.float32}
    if lora_rank:
        options["dtype"] = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if quantize:
        options["quantization_config"] = _four_bits()
    model = loader.causal_lm(policy, device="cpu", **options)  # the trainer places it
    return (_adapted(model, lora_rank) if lora_rank else model), loader.tokenizer(policy)


def check_adapters(lora_rank: int | None, quantize: str | None) -> None:
    """Raises UserError for a quantisation that is not known or comes without adapters, or an extra that is missing."""
    from importlib.util import find_spec

    if quantize not in (None, "4bit"):
        raise UserError(f"--quantize {quantize!r}: known: 4bit")
    if quantize and not lora_rank:
        raise UserError("--quantize 4bit trains adapters only: give --lora-rank, such as 16")
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


def _adapted(model, rank: int):
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def save(trainer, policy: Path, tokenizer, base: str, path: Path) -> None:
    """The trained model as plain transformers loads it, in one rename. Adapters are merged into the whole weights.

    Every process calls it: sharded weights are gathered by all and written by the first.
    """
    import json

    model = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.args.world_size > 1 else None
    if not trainer.is_world_process_zero():
        return
    temporary = path.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    if hasattr(model, "merge_and_unload"):
        model, state = _merged(model, state, policy, temporary), None
    model.save_pretrained(temporary, state_dict=state)
    tokenizer.save_pretrained(temporary)
    write_text(json.dumps({"base": base}) + "\n", temporary / "irlens.json")
    temporary.rename(path)


def _merged(model, state, policy: Path, temporary: Path):
    """The base weights, read anew in float32 so that no quantised ones are kept, plus the trained adapters."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapters = temporary.with_name(".adapters.tmp")
    model.save_pretrained(adapters, state_dict=state)
    base = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, adapters).merge_and_unload()
    shutil.rmtree(adapters)
    return merged
