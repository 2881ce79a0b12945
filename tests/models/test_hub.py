"""Revisions of the hub: pinned by `owner/name@revision`, answered from the cache, and told by what they are."""

import pytest

from irlens.base.errors import UserError
from irlens.models import catalog, hub
from irlens.models.weights import digest
from irlens.tasks import datasets_library

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("revision", [COMMIT, "v1.0", "refs/pr/1", None])
@pytest.mark.parametrize("kind", [catalog.model, catalog.encoder, catalog.reward])
def test_a_pinned_revision_is_what_is_read_and_recorded(kind, revision, cache):
    other = hub.cached_as(cache, "owner/name", "model", "f" * 40)
    folder = hub.cached_as(cache, "owner/name", "model", revision)
    chosen = kind("owner/name" + (f"@{revision}" if revision else ""))
    assert (chosen.repo, chosen.revision) == ("owner/name", revision)
    assert catalog.fetch(chosen) == folder != other
    assert digest(folder) == folder.name and (folder.name == COMMIT or revision != COMMIT)
    with pytest.raises(UserError, match="owner/name@v9.*not in the local cache"):
        catalog.fetch(kind("owner/name@v9"))


def test_a_data_set_is_pinned_too(cache):
    (hub.cached_as(cache, "owner/name", "dataset", COMMIT) / "test.jsonl").write_text('{"prompt": "a"}\n')
    for name in (f"owner/name@{COMMIT}", f"hf:owner/name@{COMMIT}"):
        assert datasets_library.identifier(name) == f"owner/name@{COMMIT}"
    rows, split, revision = datasets_library.hub_rows(f"owner/name@{COMMIT}", "test")
    assert [row for _, row in rows] == [{"prompt": "a"}] and (split, revision) == ("test", f"owner/name@{COMMIT}")


@pytest.mark.parametrize("name", ["owner/name@", "owner/name@../../x y", "owner/name@-x"])
def test_a_revision_that_is_none_is_refused(name):
    with pytest.raises(UserError, match="after the @ stands a revision"):
        catalog.model(name)
