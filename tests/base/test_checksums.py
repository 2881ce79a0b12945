"""What an output folder holds is known by its checksum: damaged, swapped, half-written, of an older version, or moved."""

import json
import shutil
import subprocess

import pandas as pd
import pytest

from irlens import tables
from irlens.base import checksums, files
from irlens.base.errors import UserError
from irlens.commands.folder import OutputFolder
from irlens.models import catalog


@pytest.fixture
def folder(tmp_path):
    """An output folder with two shards and a text."""
    with OutputFolder(tmp_path / "out", "passk", {}):
        for name, value in (("a", 1), ("b", 2)):
            files.write_parquet(pd.DataFrame({"x": [value]}), tmp_path / "out" / "shards" / f"{name}.parquet")
        files.write_text("one\n", tmp_path / "out" / "text.txt")
    return tmp_path / "out"


def checked(folder):
    said = []
    return said, checksums.check(folder, said.append)


def test_the_list_is_that_of_sha256sum(folder):
    done = subprocess.run(["sha256sum", "-c", "checksums.txt"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3
    said, found = checked(folder)
    assert not said and set(found) == {"shards/a.parquet", "shards/b.parquet", "text.txt"}


def test_another_shards_content_under_a_name_is_deleted_with_a_line(folder):
    shutil.copy(folder / "shards" / "b.parquet", folder / "shards" / "a.parquet")
    said, found = checked(folder)
    assert len(said) == 1 and "a.parquet: not as it was written" in said[0] and "shards/a.parquet" not in found
    assert not (folder / "shards" / "a.parquet").exists() and (folder / "shards" / "b.parquet").exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]]
)
def test_a_short_a_long_an_empty_and_a_changed_file_are_deleted(folder, damage):
    path = folder / "text.txt"
    path.write_bytes(damage(path.read_bytes()))
    said, _ = checked(folder)
    assert len(said) == 1 and not path.exists()


def test_a_kill_between_the_checksum_and_the_rename_leaves_the_file_of_before(folder, monkeypatch):
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with checksums.recording(folder), pytest.raises(KeyboardInterrupt):
        files.write_text("two\n", folder / "text.txt")
    monkeypatch.undo()
    assert not checked(folder)[0] and (folder / "text.txt").read_text() == "one\n"


def test_a_line_that_was_half_written_ends_where_the_next_begins(folder):
    with (folder / "checksums.txt").open("a") as file:
        file.write("0123abc")
    with checksums.recording(folder):
        files.write_text("new\n", folder / "new.txt")
    assert "new.txt" in checked(folder)[1]


def test_a_damaged_list_is_said_and_costs_no_file_but_its_own(folder):
    text = (folder / "checksums.txt").read_text()
    (folder / "checksums.txt").write_text(text.replace("shards/b.parquet", "shards/c.parquet"))
    said, _ = checked(folder)
    assert len(said) == 1 and "1 files without a checksum (shards/b.parquet, …): taken as they are" in said[0]
    assert not checked(folder)[0]  # from now on it has one
    (folder / "shards" / "b.parquet").write_bytes(b"PAR1")
    assert len(checked(folder)[0]) == 1


def test_a_folder_of_an_older_version_is_taken_as_it_is_with_one_line(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "checksums.txt").unlink()
    said = []
    with OutputFolder(folder, "passk", {}, say=said.append):
        pass
    assert len(said) == 1 and "3 files without a checksum" in said[0]
    assert (folder / "checksums.txt").read_text().count("\n") == 3


def test_a_manifest_that_was_changed_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"status": "complete"', '"status": "complets"'))
    with pytest.raises(UserError, match="not a readable manifest .changed after it was written"):
        OutputFolder(folder, "passk", {}).check()


def test_what_a_command_is_given_is_refused_if_it_is_damaged_and_taken_elsewhere(folder, tmp_path):
    path = folder / "shards" / "a.parquet"
    assert len(tables.files.read_parquet(path)) == 1
    shutil.copy(folder / "shards" / "b.parquet", path)
    with pytest.raises(UserError, match="a.parquet: not as it was written"):
        tables.files.read_parquet(path)
    shutil.copy(path, tmp_path / "a.parquet")
    assert tables.files.read_parquet(tmp_path / "a.parquet")["x"].tolist() == [2]


# -- folders that are kept as a whole ------------------------------------------------------------------------------


@pytest.fixture
def models(folder):
    """Two models in the folder, each written whole."""
    for name in "ab":
        temporary = folder / ".model.tmp"
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
        (temporary / "weights").write_text(name)
        with checksums.recording(folder):
            (folder / name).mkdir()
            checksums.keep_whole(temporary, folder / name / "model")
    return folder / "a" / "model", folder / "b" / "model"


@pytest.mark.parametrize("damage", [
    lambda a, b: (a / "weights").write_text("x"),
    lambda a, b: (a / "weights").unlink(),
    lambda a, b: (shutil.rmtree(a), shutil.copytree(b, a)),
])  # fmt: skip
def test_a_damaged_a_short_and_a_swapped_model_go_whole(folder, models, damage):
    damage(*models)
    said, _ = checked(folder)
    assert len(said) == 1 and "a/model: not as it was written" in said[0]
    assert not models[0].exists() and models[1].is_dir()


def test_a_models_own_list_may_be_damaged(folder, models):
    (models[0] / "checksums.txt").write_text("nothing\n")
    assert (
        not checked(folder)[0] and checksums.whole(models[0]) and "weights" in (models[0] / "checksums.txt").read_text()
    )


def test_a_model_knows_itself_wherever_it_is(models, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(models[0], moved)
    assert catalog.fetch(catalog.model(str(moved))) == moved
    (moved / "weights").write_text("x")
    with pytest.raises(UserError, match="moved: not as it was written"):
        catalog.fetch(catalog.model(str(moved)))
    (moved / "checksums.txt").unlink()
    assert catalog.fetch(catalog.model(str(moved))) == moved


def test_another_tools_list_of_checksums_refuses_nothing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checksums.txt").write_text("d41d8cd98f00b204e9800998ecf8427e *config.json\n")
    assert catalog.fetch(catalog.model(str(tmp_path))) == tmp_path


def test_a_list_that_leads_outside_is_not_followed(folder, tmp_path):
    (tmp_path / "precious").write_text("x")
    with (folder / "checksums.txt").open("a") as file:
        file.write(f"{'0' * 64}  ../precious\n{'0' * 64}  {tmp_path / 'precious'}\n")
    assert not checked(folder)[0] and (tmp_path / "precious").exists()
