"""The one loader: tokenizers and models out of a folder, with one clear line where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.secrets import redact

PLAIN = {"trust_remote_code": False}  # a model's own code is never run, and nobody is asked whether it may
WEIGHTS = PLAIN | {"use_safetensors": True}  # never a pickle, which can hold code


def tokenizer(folder: Path):
    """The tokenizer in `folder`. Raises UserError if there is none that can be used."""
    from transformers import AutoTokenizer

    return _loaded(lambda: AutoTokenizer.from_pretrained(folder, **PLAIN), folder, "no usable tokenizer")


def causal_lm(folder: Path, device: str | None = None, **options):
    """The language model in `folder`: in `device_and_dtype`'s precision on that device, or as `options` say.

    Raises UserError if it cannot be loaded, or if the folder does not hold all of its weights.
    """
    from transformers import AutoModelForCausalLM

    here, dtype = device_and_dtype()
    options = {"dtype": dtype} | WEIGHTS | options
    read = lambda: AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)  # noqa: E731
    model, found = _loaded(read, folder, "cannot be loaded as a causal language model")
    absent = [*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])]
    if absent:
        name = type(model).__name__
        raise UserError(f"{folder}: not the weights of a {name}: {sorted(absent)[0]} is missing or of another size")
    if "quantization_config" in options:  # it lies where it was quantised
        return model
    return model.to(device or here)


def classifier(folder: Path, what: str = "not a usable reward model", to: str | None = None, **more):
    """(sequence classifier in `folder`, on its device or `to`, read with `more` options; the names of the weights that the
    folder lacks).

    Raises UserError, with `what` is wrong, if it cannot be loaded.
    """
    from transformers import AutoModelForSequenceClassification

    device, dtype = device_and_dtype()
    options = {"dtype": dtype, "output_loading_info": True, "local_files_only": True} | WEIGHTS | more
    read = lambda: AutoModelForSequenceClassification.from_pretrained(folder, **options)  # noqa: E731
    model, found = _loaded(read, folder, what)
    return model.to(to or device), list(found["missing_keys"])


def config(folder: Path):
    """The configuration in `folder`. Raises UserError if it holds no saved model."""
    from transformers import AutoConfig

    return _loaded(lambda: AutoConfig.from_pretrained(folder, **PLAIN), folder, "not a saved model")


def positions(folder_or_config) -> int | None:
    """Tokens that a model has positions for; None where its configuration does not say."""
    found = config(folder_or_config) if isinstance(folder_or_config, Path) else folder_or_config
    return getattr(found.get_text_config(), "max_position_embeddings", None)


def device_and_dtype():
    """Where a model is run, and how precisely: on a GPU bfloat16, or float16 where it has none; else float32."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", torch.float32
    exact = torch.cuda.is_bf16_supported(including_emulation=False)
    return "cuda", torch.bfloat16 if exact else torch.float16


def quiet_if_small(folder: Path) -> None:
    """No progress bars for loading and saving weights that take no time."""
    from transformers.utils import logging

    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 1e9:
        logging.disable_progress_bar()


def _loaded(read: Callable, folder: Path, what: str):
    try:
        return read()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = " ".join(redact(str(error)).split())[:200]
        raise UserError(f"{folder}: {what} ({why})") from error
