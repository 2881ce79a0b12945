"""Recipes: every one that ships is valid in every preset, and a damaged one is named."""

import pytest

from irlens import recipe
from irlens.errors import UserError
from irlens.settings import PassK, cutoffs, settings_from


def test_every_shipped_recipe_is_valid_in_both_presets():
    found = recipe.names()
    assert "fig2b" in found
    for name in found:
        for preset in ("tiny", "paper"):
            assert recipe.load(name, preset).steps


def test_fig2b_has_the_papers_settings():
    (step,) = recipe.load("fig2b", "paper").steps
    settings = step.settings
    assert step.stage == "passk" and settings.model == "mathstral" and settings.dataset == "gsm8k"
    assert settings.temperature == (0.1, 0.2, 0.5, 0.7, 1.0) and settings.at == (1, 3, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("text, message", [
    ("[[preset.tiny]]\nstage = 'pask'", "stage 1: unknown stage 'pask'; did you mean 'passk'"),
    ("[[preset.tiny]]\nstage = 'passk'\nmodle = 'tiny'", "unknown setting 'modle'; did you mean 'model'"),
    ("[[preset.tiny]]\nstage = 'passk'\nn = 'ten'", "n = 'ten' is not of type int"),
    ("[[preset.tiny]]\nstage = 'passk'\ntemperature = 1.0", "temperature = 1.0 is not of type tuple"),
    ("[[preset.tiny]]\nstage = 'passk'\nout = 'x'", "`out` is given by the command"),
    ("titel = 'x'", "unknown key 'titel'; did you mean 'title'"),
    ("title = 'x'", "no preset 'tiny'"),
    ("[[preset.tiny", "malformed TOML"),
])  # fmt: skip
def test_a_damaged_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        recipe.load(str(path), "tiny")
    assert str(path) in str(error.value)


def test_settings_from_plain_values():
    made = settings_from(PassK, {"n": 5, "temperature": [1, 0.5]}, "here")
    assert made == PassK(n=5, temperature=(1, 0.5))
    with pytest.raises(UserError, match="n = True"):
        settings_from(PassK, {"n": True}, "here")


def test_cutoffs():
    assert cutoffs(100, None) == [1, 3, 5, 10, 20, 50, 100]
    assert cutoffs(7, None) == [1, 3, 5, 7]
    assert cutoffs(7, (5, 1, 5)) == [1, 5]
    with pytest.raises(UserError, match="smaller than the largest N asked for, 8"):
        cutoffs(7, (1, 8))
