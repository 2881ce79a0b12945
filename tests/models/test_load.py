"""The one loader: what cannot be loaded is one line, and half a model is never filled up with new weights."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from irlens.base.errors import UserError
from irlens.models import catalog, hub, load


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded model."""
    shutil.copytree(catalog.fetch(catalog.model("tiny")), tmp_path / "copy")
    return tmp_path / "copy"


def test_a_model_comes_on_its_device_in_its_precision(folder):
    model = load.causal_lm(folder)
    device, dtype = load.device_and_dtype()
    assert model.device.type == device and model.dtype == dtype
    assert load.causal_lm(folder, device="cpu", dtype=torch.float16).dtype == torch.float16
    assert load.positions(folder) == load.positions(model.config) == 1024


def test_half_a_model_is_refused(folder):
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    gone = next(name for name in weights if "mlp" in name)
    save_file({name: value for name, value in weights.items() if name != gone}, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"not the weights of a LlamaForCausalLM: {gone} is missing"):
        load.causal_lm(folder)
    from irlens.retrieve.engines.transformers import TransformersEngine

    with pytest.raises(UserError, match="is missing"):  # it would draw noise
        TransformersEngine.load(folder)


@pytest.mark.parametrize("read, message", [
    (load.tokenizer, "no usable tokenizer"),
    (load.causal_lm, "cannot be loaded as a causal language model"),
    (load.classifier, "not a usable reward model"),
    (load.config, "not a saved model"),
])  # fmt: skip
def test_an_empty_folder_is_one_line(tmp_path, read, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ") and "\n" not in str(error.value)


def test_what_cannot_be_downloaded_is_one_line_and_names_what_works(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not hub.online()  # HF_HUB_OFFLINE is obeyed without asking for a name
    with pytest.raises(UserError) as error:
        catalog.fetch(catalog.model("mathstral"))
    assert str(error.value) == (
        "mistralai/Mathstral-7B-v0.1 (model on the Hugging Face hub): no network, and it is not in the local cache; "
        "--model tiny needs no download"
    )
