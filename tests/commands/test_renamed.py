"""Old names: one line that names the new one, and folders of before that still continue."""

import json

import pytest

from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.commands import renamed
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import STAGES, Mine, PassK, Train
from irlens.reproduce import recipe

OLD = [(command, one) for command, some in renamed.RENAMED.items() for one in some]
OLD_IDS = [f"{command} {one.old}" for command, one in OLD]


def options_of(command):
    from typer.main import get_command

    from irlens.cli.app import app

    return {name for option in get_command(app).commands[command].params for name in option.opts}


@pytest.mark.parametrize("command, one", OLD, ids=OLD_IDS)
def test_an_old_option_is_one_line_that_names_the_new_one(command, one, irlens):
    done = irlens(command, one.old, "x", code=2)
    assert done.stderr.count("\n") == 1 and f"{command}: {one.old} is now called {one.new}" in done.stderr
    assert one.new in options_of(command) and one.old not in options_of(command)


@pytest.mark.parametrize(
    "command, one", [(c, o) for c, o in OLD if o.key], ids=[i for i, (_, o) in zip(OLD_IDS, OLD) if o.key]
)
def test_an_old_key_of_a_recipe_is_one_line_too(command, one, tmp_path):
    (tmp_path / "r.toml").write_text(f'[[preset.tiny]]\nstage = "{command}"\n{one.key} = "x"\n')
    new = one.new.lstrip("-").replace("-", "_")
    with pytest.raises(UserError, match=f"stage 1: {command}: {one.key} is now called {new}"):
        recipe.load(str(tmp_path / "r.toml"), "tiny")
    assert new in STAGES[command].__dataclass_fields__


@pytest.mark.parametrize(
    "args", [("passk", "--tiers", "x"), ("train", "--positive", "1"), ("verify", "--rerankers", "x")]
)
def test_what_a_command_never_had_is_no_such_option(args, irlens):
    assert f"No such option: {args[1]}" in irlens(*args, code=2).stderr


def continues(path, command, before, now):
    """Whether a folder with the settings `before` in its manifest is continued by the settings `now`."""
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({"command": command, "settings": before}))
    try:
        OutputFolder(path, command, now).check()
    except UserError as error:
        return str(error)
    return True


def test_a_mined_folder_of_before_continues(tmp_path):
    before = identity(Mine()) | {"tiers": "easy,hard", "positives": "correct", "hard_temperature": 1.0}
    before |= {"hardest_temperature": 0.7}
    for new in ("tier", "positives_from", "temperature", "messages_as"):
        del before[new]
    now = identity(Mine(tier="easy,hard", positives_from="own"))
    assert continues(tmp_path / "a", "mine-negatives", before, now) is True
    assert "temperature[1] = 0.7, now 0.5" in continues(
        tmp_path / "b", "mine-negatives", before, now | {"temperature": (1.0, 0.5)}
    )
    assert "tier = 'easy,hard', now 'hard'" in continues(
        tmp_path / "c", "mine-negatives", before, now | {"tier": "hard"}
    )
    assert "positives_from = 'own', now 'gold'" in continues(
        tmp_path / "d", "mine-negatives", before, now | {"positives_from": "gold"}
    )


def test_what_changes_no_result_and_was_kept_before_is_no_difference(tmp_path):
    before = identity(Train()) | {"report_to": "wandb"}
    assert continues(tmp_path / "a", "train", before, identity(Train())) is True
    assert "epochs = 2, now 3" in continues(tmp_path / "b", "train", before, identity(Train(epochs=3)))
    step = {"stage": "train", "name": "a", "report_to": "wandb", "out": None}
    steps = {
        "steps": [
            step | identity(Train(n=4)),
            {"stage": "passk", "name": "b", "tensor_parallel": 2} | identity(PassK()),
        ]
    }
    now = [{"stage": "train", "name": "a"} | identity(Train(n=4)), {"stage": "passk", "name": "b"} | identity(PassK())]
    assert continues(tmp_path / "c", "reproduce", steps, {"steps": now}) is True
    now[0]["n"] = 5
    assert "steps[0].n = 4, now 5" in continues(tmp_path / "d", "reproduce", steps, {"steps": now})
    assert "steps = " in continues(tmp_path / "e", "reproduce", steps, {"steps": now[:1]})


@pytest.mark.parametrize(
    "command, before, now",
    [
        ("recall", {"rerank": "x", "at": [1]}, {"reranker": "x", "at": [1]}),
        ("rerank", {"judge_model": "m", "scoring_batch": 4}, {"served_model": "m"}),
        (
            "best-of-n",
            {"judge_model": None, "rerankers": {"length": {}}},
            {"served_model": None, "rerankers": {"length": {}}},
        ),
    ],
)
def test_other_folders_of_before_continue(command, before, now, tmp_path):
    assert continues(tmp_path / "a", command, before, now) is True
    changed = dict.fromkeys(now, "other")
    assert "was made with" in continues(tmp_path / "b", command, before, changed)


def test_policies_of_before_were_float32(tmp_path):
    """A folder whose policies would now be saved in another dtype is another run; a recipe's own folders decide for it."""
    now = json.loads(json.dumps(identity(Train())))
    before = {name: value for name, value in now.items() if name != "save_dtype"}
    assert continues(tmp_path / "a", "train", before, now | {"save_dtype": "float32"}) is True
    assert "save_dtype = 'float32', now 'bfloat16'" in continues(
        tmp_path / "b", "train", before, now | {"save_dtype": "bfloat16"}
    )
    steps = [[{"stage": "train", "name": "x", **some}] for some in (before, now)]
    assert continues(tmp_path / "c", "reproduce", *({"steps": some} for some in steps)) is True
