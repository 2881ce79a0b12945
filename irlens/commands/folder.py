"""An output folder: one command's settings, its manifest, and the promise that continuing never mixes two runs."""

import json
import platform
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from irlens.base import checksums, full, interrupts, secrets
from irlens.base import store as stores
from irlens.base.errors import UserError
from irlens.base.files import remove_temporary, write_text
from irlens.base.progress import Say
from irlens.base.untrusted import check_inside, check_place, escaped
from irlens.commands import finished, renamed

PACKAGES = ("irlens", "torch", "transformers", "accelerate", "sentence-transformers", "faiss-cpu", "faiss-gpu", "ir-measures",
            "bm25s", "ir-datasets", "pandas", "numpy", "scipy", "vllm", "ray")  # fmt: skip
LOCK = ".lock"
CHEAP = {
    "manifest.json",
    checksums.NAME,
    LOCK,
    "run.parquet",
    "qrels.parquet",
    "report.csv",
    "skipped.csv",
}  # alone, made in no time
STORE = "store"  # what the manifest says of the store: draws and scores that it had, and that it took in


def _difference(was, now, where: str) -> tuple[str, object, object] | None:
    """The first place where two settings differ, and what stands there; what is not there counts as None."""
    if isinstance(was, dict) and isinstance(now, dict):
        inner = ((was.get(k), now.get(k), f"{where}.{k}") for k in sorted({*was, *now}))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        inner = ((a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(was, now)))
    else:
        return None if was == now else (where, was, now)
    return next((found for parts in inner if (found := _difference(*parts)) is not None), None)


class OutputFolder:
    """Used as `with OutputFolder(path, command, settings) as folder:`; writes `manifest.json` at both ends.

    settings: what makes the result what it is (`base.options.identity`). A folder that holds the same command with the same settings is continued. Settings named in `growing` may be larger
    than before (more draws), every other difference is refused. store: where draws and scores are kept that other
    folders share, None for nowhere; say: gets a line of what is wrong with it. asked: the settings as they were typed; a
    folder that the same ones have `finished`, and that nobody has touched since, is left as it is. Raises UserError: other settings, another
    process at work in it, a folder that holds something else, a path that cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        command: str,
        settings: dict,
        growing: tuple[str, ...] = (),
        store: Path | None = None,
        say: Say = print,
        asked: object = None,
    ):
        self.path, self.command, self.growing = Path(path), command, growing
        self.store, self.say, self.asked = store, say, asked
        self.finished = False
        self.settings = secrets.without(json.loads(json.dumps(settings)))
        self.facts: dict = {}
        self.continued = False

    def check(self) -> dict | None:
        """Raises UserError if the folder holds something else; returns the manifest that is there. Writes nothing."""
        check_place(self.path, "--out")
        if self.path.is_dir():
            check_inside(self.path)
        before = self._read_manifest()
        if before is not None:
            self._compare(before)
        elif self.path.is_dir() and not all(_before_all(path.name) for path in self.path.iterdir()):
            raise UserError(f"--out {self.path}: the folder is not empty and was not made by irlens; choose another")
        return before

    def __enter__(self) -> "OutputFolder":
        before = self.check()
        self._lock()
        remove_temporary(self.path, LOCK)
        self.continued = before is not None
        try:
            known = checksums.check(self.path, self.say) if before is not None else {}
            if self._is_finished(before, known):
                self.finished, self.facts = True, dict(before)
                self.say(f"{self.path}: finished by this command before, and unchanged: nothing is made again")
                return self
            self._begin(before)
        except BaseException as error:
            self._forget()
            self._held.release()
            self._refuse_full(error)
            raise
        return self

    def _begin(self, before: dict | None) -> None:
        self.facts = {
            k: v
            for k, v in (before or {}).items()
            if k in ("wall_seconds", "tokens_generated", "tokens_trained", STORE)
        }
        self._started = time.monotonic()
        interrupts.unfinished.append(self._interrupted)
        with ExitStack() as opened:
            opened.enter_context(checksums.recording(self.path))
            self._used = opened.enter_context(stores.use(self.store, self.say)) if self.store else stores.NONE
            self._write("running")
            self._open = opened.pop_all()

    def _refuse_full(self, error: BaseException | None) -> None:
        """Raises DiskFull if that is what an exception says."""
        if isinstance(error, full.DiskFull) or not isinstance(error, Exception):
            return
        if (cause := full.is_full(error)) is not None:
            raise full.DiskFull(full.in_words(cause, self.path)) from error

    def __exit__(self, kind, error, trace) -> None:
        if self.finished:
            self._held.release()
            return
        self._open.close()
        if counts := dict(Counter(self.facts.get(STORE, {})) + self._used.counts):
            self.facts[STORE] = counts
        seconds = time.monotonic() - self._started
        self.facts["wall_seconds"] = round(self.facts.get("wall_seconds", 0.0) + seconds, 3)
        self.facts["peak_memory_bytes"] = _peak_memory()
        try:
            if kind is None:
                checksums.compact(self.path)
            if kind is None and self.asked is not None:
                self.facts["finished"] = finished.digest(self.path, self.asked, _versions())
            self._write("complete" if kind is None else "interrupted")
        except OSError as failure:  # such as a full disk: the manifest of before stays, and says "running"
            if kind is None:
                self._refuse_full(failure)
                raise
        finally:
            self._forget()
            self._held.release()
        self._refuse_full(error)
        if isinstance(error, UserError) and not self.continued:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        """A new folder in which a refused command has kept nothing that is dear (draws, scores, vectors) is taken away, so
        that the right one may have it."""
        files = [path for path in self.path.rglob("*") if not path.is_dir() or path.is_symlink()]
        if {path.name for path in files if path.parent.name != "trec"} <= CHEAP:
            for path in files:
                path.unlink(missing_ok=True)
            for path in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
                path.rmdir()
            self.path.rmdir()

    def _forget(self) -> None:
        """Nothing is left to be done here if the process is interrupted; once it is, `_interrupted` may be needed yet."""
        if not interrupts.came() and self._interrupted in interrupts.unfinished:
            interrupts.unfinished.remove(self._interrupted)

    def _interrupted(self) -> None:
        """Leaves the folder as `__exit__` does, where an interrupt came into the midst of that."""
        self._write("interrupted")
        remove_temporary(self.path, LOCK)

    def _is_finished(self, before: dict | None, known: dict[str, str]) -> bool:
        """Whether the folder is whole: what its manifest says of its end holds still."""
        if self.asked is None or before is None or before.get("status") != "complete" or "finished" not in before:
            return False
        if before["settings"] != self.settings:
            return False
        return before["finished"] == finished.digest(self.path, self.asked, _versions(), known)

    def note(self, **facts) -> None:
        """Adds facts to the manifest: revisions, prompt template, tokens, counts."""
        self.facts |= facts
        self._write("running")

    def _read_manifest(self) -> dict | None:
        file = self.path / "manifest.json"
        if not file.is_file():
            return None
        try:
            return checksums.read_signed(file)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file}: not a readable manifest ({error}); choose another --out") from error

    def _compare(self, before: dict) -> None:
        if before.get("command") != self.command:
            raise UserError(
                f"--out {self.path}: holds the output of `irlens {before.get('command')}`; choose another --out"
            )
        old = renamed.continued(self.command, secrets.without(before.get("settings", {})), self.settings)
        for key in sorted({*old, *self.settings}):
            was, now = old.get(key), self.settings.get(key)
            if key in self.growing and isinstance(was, int) and isinstance(now, int) and now > was:
                continue
            if (found := _difference(was, now, key)) is None:
                continue
            where, was, now = found
            hint = f"; {key} can only grow" if key in self.growing else ""
            raise UserError(
                f"--out {self.path}: was made with {where} = {was!r}, now {now!r}{hint}; "
                f"choose another --out or go back to the old setting"
            )

    def _lock(self) -> None:
        """Holds `.lock`, until the folder is left or the process ends, however it ends."""
        from filelock import FileLock, Timeout

        self._held = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"--out {self.path}: another irlens process is at work in it") from error
        except OSError as error:
            self._refuse_full(error)
            raise UserError(f"--out {self.path}: cannot be written ({error.strerror})") from error

    def _write(self, status: str) -> None:
        typed = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
        manifest = {
            "command": self.command,
            "status": status,
            "settings": self.settings,
            **secrets.redacted(self.facts),
            "versions": _versions(),
            "git_commit": git_commit(),
            "argv": [escaped(word) for word in secrets.argv(typed)],
        }
        text = json.dumps(checksums.signed(manifest), indent=1, ensure_ascii=False)
        write_text(text + "\n", self.path / "manifest.json")


def _before_all(name: str) -> bool:
    """Whether a folder with a file of this name may be new: a store, or what a start leaves that was killed at once."""
    return name in (stores.FOLDER, LOCK) or re.fullmatch(r"\.manifest\.json\..*\.tmp", name) is not None


def _versions() -> dict[str, str]:
    return {name: v for name in PACKAGES if (v := version(name))} | {"python": platform.python_version()}


def version(package: str) -> str | None:
    """The installed version of a distribution, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the checkout that this package is imported from; None for an installed copy."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "ls-files", "--error-unmatch", "folder.py"]
    try:
        if subprocess.run(command, capture_output=True, timeout=10).returncode:
            return None
        head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None


def _peak_memory() -> dict:
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
