"""Files of the Hugging Face hub: the one place that downloads, and says in a line why it cannot."""

import hashlib
import re
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.secrets import redact


def snapshot(repo: str, kind: str, instead: str, revision: str | None = None, **patterns) -> Path:
    """The folder of a repository (`kind` "model" or "dataset"), named by its commit; downloaded where it is not cached.

    patterns: `allow_patterns`, `ignore_patterns`. Raises UserError, saying what works `instead`: no network and nothing
    in the cache, no such repository, one that wants a login, a hub or a disk that refuses.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repo}{'@' + revision if revision else ''} ({kind} on the Hugging Face hub)"

    def cached(why: str) -> Path:
        try:
            return Path(snapshot_download(repo, revision=revision, repo_type=kind, local_files_only=True, **patterns))
        except (OSError, ValueError) as error:
            raise UserError(f"{where}: {why}, and it is not in the local cache; {instead}") from error

    if not online():
        return cached("no network")
    try:
        found = HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=20)
        return Path(snapshot_download(repo, revision=found.sha, repo_type=kind, **patterns))
    except RevisionNotFoundError as error:
        raise UserError(f"{where}: it has no such revision; name a branch, a tag or a commit of it") from error
    except GatedRepoError as error:
        raise UserError(f"{where}: access must be granted first; accept its licence there and run `hf auth login`") from error  # fmt: skip
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"{where}: no such repository, or a private one that wants `hf auth login`; {instead}") from error  # fmt: skip
    except HfHubHTTPError as error:
        raise UserError(f"{where}: the hub answered {str(error).splitlines()[0]}; {instead}") from error
    except Exception as error:  # no connection: its class depends on the HTTP client that huggingface_hub was built on
        return cached(" ".join(redact(f"{type(error).__name__}: {error}").split())[:200])


def cached_as(home: Path, repo: str, kind: str, revision: str | None = None) -> Path:
    """A new, empty snapshot of a repository in a cache of its own (`home` is its HF_HOME), laid out as the hub's client
    finds it: what is written there answers for the repository to whoever has that environment and is offline."""
    pinned = revision and re.fullmatch("[0-9a-f]{40}", revision)
    commit = revision if revision and pinned else hashlib.sha1(repo.encode()).hexdigest()
    folder = home / "hub" / f"{kind}s--{repo.replace('/', '--')}"
    reference = folder / "refs" / ("main" if pinned or not revision else revision)
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


def pinned(name: str, option: str) -> tuple[str, str | None]:
    """(hub id, revision) of `owner/name@revision`: a branch, a tag or a commit; None where none is named.

    Raises UserError for a revision that is none.
    """
    repo, at, revision = name.partition("@")
    if at and not re.fullmatch(r"[\w][\w./-]*", revision):
        raise UserError(f"{option} {name}: after the @ stands a revision, such as a commit: owner/name@3f2a1b0")
    return repo, revision or None


def is_id(name: str) -> bool:
    """Whether a name has the form `owner/name` or `owner/name@revision`."""
    return name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~"))


def small_files(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model's configuration and tokenizer where the cache has them; None where it has not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder and (folder / "tokenizer.json").is_file() else None


def online() -> bool:
    """Whether the hub may be asked and its name resolves (or a proxy is set): its client retries for half a minute."""
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return bool(getproxies()) or bool(socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443))
    except OSError:
        return False
