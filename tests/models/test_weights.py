"""What is stored of a model, and in which dtype a policy is saved that is trained from it."""

import pytest
import torch
from safetensors.torch import save_file

from irlens.models import catalog
from irlens.models.weights import SMALL, saved_as, stored


def files(folder, **tensors):
    folder.mkdir(exist_ok=True)
    for name, tensor in tensors.items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    return folder


def test_what_is_stored_is_read_from_the_heads_of_the_files(tmp_path):
    folder = files(tmp_path, a=torch.zeros(3, 5, dtype=torch.bfloat16), b=torch.zeros(7), c=torch.tensor(1))
    assert stored(folder) == (15 + 7 + 1, "BF16")
    assert stored(tmp_path / "none") == (0, None)
    tiny = catalog.model("tiny")
    assert stored(catalog.fetch(tiny)) == (tiny.parameters, "F32")


@pytest.mark.parametrize("dtype, size, expected", [
    (torch.float32, 8, "float32"),
    (torch.bfloat16, 8, "bfloat16"),
    (torch.float16, 8, "bfloat16"),
    (torch.float32, SMALL, "bfloat16"),
])  # fmt: skip
def test_auto_is_the_dtype_of_the_start_and_bfloat16_for_what_is_large(tmp_path, dtype, size, expected):
    folder = files(tmp_path, w=torch.empty(1, 1, dtype=dtype).expand(1, 8).clone())
    if size > 8:  # the head alone says it
        head = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,0]}}' % size
        (folder / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert saved_as("auto", folder) == expected
    assert saved_as("float32", folder) == "float32" and saved_as("bfloat16", folder) == "bfloat16"


def test_of_a_model_in_this_process():
    from irlens.models import load

    model = load.causal_lm(catalog.fetch(catalog.model("tiny")))
    assert saved_as("auto", None, model) == "float32"
    assert saved_as("auto", None, model.to(torch.bfloat16)) == "bfloat16"
