"""Names, folders and hub ids."""

import json
from pathlib import Path

import pytest

from irlens.base.errors import UserError
from irlens.models import catalog


def test_the_embedded_model_is_small_and_plain():
    folder = catalog.fetch(catalog.model("tiny"))
    assert sum(p.stat().st_size for p in folder.iterdir()) < 5e6
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {p.name for p in folder.iterdir()}
    assert not list(folder.glob("*.py")) and "auto_map" not in json.loads((folder / "config.json").read_text())


def test_mathstral_means_the_hub_model_and_gsm8k():
    found = catalog.model("mathstral")
    assert (found.repo, found.dataset) == ("mistralai/Mathstral-7B-v0.1", "gsm8k")


def test_hub_ids_and_folders_pass_through(tmp_path):
    assert catalog.model("owner/name").repo == "owner/name"
    (tmp_path / "config.json").write_text("{}")
    assert catalog.model(str(tmp_path)).repo == str(tmp_path.resolve())
    assert catalog.model(str(tmp_path)).max_tokens == catalog.Model("", "").max_tokens
    (tmp_path / "irlens.json").write_text('{"base": "tiny"}')
    assert catalog.model(str(tmp_path)).max_tokens == catalog.MODELS["tiny"].max_tokens


@pytest.mark.parametrize("name, message", [
    ("mathstrl", "did you mean 'mathstral'"), ("no/such/folder", "no such folder"), ("./nowhere", "no such folder"),
])  # fmt: skip
def test_unknown_models(name, message):
    with pytest.raises(UserError, match=message):
        catalog.model(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        catalog.model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "irlens.json").write_text("[")
    with pytest.raises(UserError, match=r"irlens\.json: not readable"):
        catalog.model(str(tmp_path))


def test_every_repo_of_the_catalog_is_a_hub_id():
    for name, found in catalog.MODELS.items():
        assert name == found.name
        assert name in catalog.EMBEDDED or len(Path(found.repo).parts) == 2
