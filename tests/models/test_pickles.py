"""No code that lies in a folder is run: planted pickles, code of a model's own, everywhere that a folder is read."""

import json
import pickle
import shutil

import numpy as np
import pytest

from irlens.base.errors import UserError
from irlens.models import catalog, load

WEIGHTS = ("pytorch_model.bin", "model.bin", "adapter_model.bin", "consolidated.00.pth", "tokenizer.pkl")


class Trap:
    """What runs where it is unpickled."""

    def __init__(self, to):
        self.to = str(to)

    def __reduce__(self):
        return open, (self.to, "w")


@pytest.fixture
def trap(tmp_path):
    """Plants a pickle under names; afterwards none of them may have run."""
    sprung = tmp_path / "sprung"

    def plant(folder, *names):
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Trap(sprung)))

    yield plant
    assert not sprung.exists()


@pytest.fixture
def copied(tmp_path):
    """A copy of an embedded model, without its weights if asked."""

    def copy(name, weights=True):
        source = catalog.fetch(catalog.encoder(name) if name == "tiny-e5" else catalog.model(name))
        folder = shutil.copytree(source, tmp_path / name)
        for path in [] if weights else folder.rglob("*.safetensors"):
            path.unlink()
        return folder

    return copy


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "it")))
    assert (tmp_path / "it").exists()


@pytest.mark.parametrize("read", [load.causal_lm, load.classifier])
def test_weights_are_never_a_pickle(read, copied, trap):
    folder = copied("tiny", weights=False)
    trap(folder, *WEIGHTS)
    with pytest.raises(UserError, match="safetensors"):
        read(folder)


def test_an_encoder_and_a_cross_encoder_neither(copied, trap):
    from irlens.rerank import cross_encoder
    from irlens.retrieve.encoder import DenseEncoder

    folder = copied("tiny-e5", weights=False)
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        trap(place, *WEIGHTS)
    with pytest.raises(UserError, match="not a usable sentence encoder"):
        DenseEncoder.load(catalog.encoder(str(folder)), folder)
    with pytest.raises(UserError, match="not a usable cross-encoder"):
        cross_encoder.load(folder)


@pytest.mark.parametrize("read", [load.tokenizer, load.config, load.causal_lm, load.classifier])
def test_a_models_own_code_is_not_run_and_nobody_is_asked(read, copied, tmp_path, monkeypatch):
    folder = copied("tiny")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Own: pass\n")
    names = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification"), "own.Own")
    for file, more in (("config.json", {"model_type": "own", "auto_map": names}),
                       ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})):  # fmt: skip
        told = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(told | more))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError):
        read(folder)
    assert not (tmp_path / "sprung").exists()


def test_the_index_of_a_divided_checkpoint_holds_names_and_numbers(tmp_path, trap):
    import torch
    from torch.distributed import checkpoint

    from irlens.train.parts import Reader

    some = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    checkpoint.save(some, checkpoint_id=tmp_path / "parts", no_dist=True)
    found = {name: torch.zeros_like(value) for name, value in some.items()}
    checkpoint.load(found, storage_reader=Reader(tmp_path / "parts"), no_dist=True)
    assert all(torch.equal(found[name], some[name]) for name in some)
    trap(tmp_path / "parts", ".metadata")
    with pytest.raises(UserError, match="it names io.open, which no checkpoint does"):
        Reader(tmp_path / "parts").read_metadata()


def test_vectors_of_an_index_and_a_handed_over_training_neither(tmp_path, trap):
    from irlens.train.launch import Phase

    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "a.npy", allow_pickle=False)
    trap(tmp_path, "phase.json")
    with pytest.raises(ValueError):
        Phase.of_json((tmp_path / "phase.json").read_text(encoding="latin-1"))
