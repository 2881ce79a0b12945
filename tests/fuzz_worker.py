"""The process that is fed the fuzz's inputs (`fuzz.py`): runs each through `irlens`' own `main`, and says what is wrong with it.

    python tests/fuzz_worker.py FOLDER

A line of JSON comes in for each input, a line goes out; where a command takes this process with it, no line comes.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import resource
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path

import fuzz_inputs

LONGEST = 300  # letters of the line
MEMORY = 12 << 30  # bytes that a command may ask for
DRAWN = {"p": [*fuzz_inputs.bases().PASSK], "q": [*fuzz_inputs.bases().PASSK, "--seed", "1"]}


def packed(case: dict) -> dict:
    """A case as JSON: bytes in base64."""
    out = {k: v for k, v in case.items() if k not in ("files", "answer")}
    if "files" in case:
        out["files"] = {name: base64.b64encode(found).decode() for name, found in case["files"].items()}
    if "answer" in case:
        out["answer"] = base64.b64encode(case["answer"]).decode()
    return out


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that has one model and answers what it was told to."""

    protocol_version = "HTTP/1.1"
    said = b""

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._send(b'{"object": "list", "data": [{"id": "stub", "object": "model"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(Answers.said)

    def log_message(self, *_):
        """Nothing is said."""


class Worker:
    """Runs inputs below `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.world = folder, folder / "world"
        os.environ |= {
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "HF_DATASETS_OFFLINE": "1",
            "IRLENS_STORE": str(folder / "store"),
        }
        import matplotlib.figure
        import typer

        from irlens.cli import app
        from irlens.commands import folder as folders
        from irlens.commands import off_policy, train
        from irlens.retrieve.engines import openai

        app.app = typer.main.get_command(app.app)  # built once
        here = folders.git_commit()
        folders.git_commit = lambda: here  # two processes each time
        openai.TRIES, openai.LONGEST_PAUSE = 2, 0.01
        openai.OpenAIEngine.__init__.__kwdefaults__.update(tries=2, pause=0.01)
        off_policy.policies = lambda job: (
            [job.policy.folder] * 2
        )  # lists are read and checked, and seconds of training left out
        off_policy.unmeasured = lambda *_: None
        # ink takes seconds, and is not the question
        matplotlib.figure.Figure.savefig = lambda figure, to, **_: (
            to.write_bytes(b"") if hasattr(to, "write_bytes") else None
        )
        train._account = lambda *_: {}
        self.main = app.main
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))

    def prepare(self) -> None:
        """The folders that inputs are made of."""
        self.world.mkdir(parents=True, exist_ok=True)
        for name, argv in DRAWN.items():
            if not (self.world / name / "run.parquet").is_file():
                code, _, said, _ = self.call([*argv, "--out", name], self.world)
                assert code == 0, said

    def call(self, argv: list[str], place: Path) -> tuple[object, str, str, str]:
        """(exit code, standard output, standard error, the traceback of what came out of `main`)."""
        streams = [self.folder / "stdout", self.folder / "stderr"]
        kept, code, trace = [os.dup(1), os.dup(2)], None, ""
        was = sys.argv, os.getcwd(), sys.stdout, sys.stderr
        opened = [path.open("w+", encoding="utf-8", errors="strict") for path in streams]
        try:
            for at, file in zip((1, 2), opened):
                os.dup2(file.fileno(), at)
            sys.stdout, sys.stderr = opened
            sys.stderr.reconfigure(errors="backslashreplace")
            sys.argv = ["irlens", *(word.replace("{url}", self.url) for word in argv)]
            os.chdir(place)
            self.main()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            trace = traceback.format_exc()
        finally:
            sys.argv, sys.stdout, sys.stderr = was[0], was[2], was[3]
            os.chdir(was[1])
            for at, file in zip((1, 2), opened):
                file.flush()
                os.dup2(kept[at - 1], at)
                os.close(kept[at - 1])
                file.close()
        return code, *(path.read_text(encoding="utf-8", errors="replace") for path in streams), trace

    def place(self, base: fuzz_inputs.Base, case: dict, new: bool = True) -> Path:
        """A folder with the files of an input."""
        place = self.folder / "place"
        if new:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in base.folders:
                shutil.copytree(self.world / name, place / name)
        given = {name: fuzz_inputs.content(found) for name, found in base.files.items()}
        given |= {name: base64.b64decode(found) for name, found in case.get("files", {}).items()}
        for name, found in given.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(found)
        for name in case.get("without", []):
            (place / name).unlink(missing_ok=True)
        Answers.said = base64.b64decode(case["answer"]) if "answer" in case else fuzz_inputs.whole(base.answer)
        return place

    def run(self, case: dict) -> dict:
        """What came of an input: `wrong` is empty, or says it."""
        base = fuzz_inputs.bases().BASES[case["base"]]
        place = self.place(base, case)
        before, start = {path.name for path in place.iterdir()}, time.monotonic()
        code, out, said, trace = self.call(case.get("argv", base.argv), place)
        seconds = time.monotonic() - start
        wrong = self._wrong(code, out, said, trace, case)
        left = sorted({str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith(".tmp")})
        if not wrong and left:
            wrong = f"temporary files are left: {left}"
        new = sorted({path.name for path in place.iterdir()} - before)
        if not wrong and code == 2 and new and base.kind != "options":
            self.place(base, {}, new=False)
            again, _, told, more = self.call(base.argv, place)
            if again != 0:
                wrong = f"what is left ({', '.join(new)}) stops a right start: {more[-300:] or told.strip()[-300:]}"
        drawn = any(place.rglob("shards"))  # draws are kept whatever comes later
        if not wrong and code == 2 and new and base.kind == "options" and not drawn:
            wrong = f"options were refused after {', '.join(new)} had been made: {said.strip()[-200:]}"
        return {"code": code, "wrong": wrong, "seconds": seconds, "said": said[-400:], "trace": trace[-3000:]}

    @staticmethod
    def _wrong(code: object, out: str, said: str, trace: str, case: dict) -> str:
        if trace:
            where = [line.strip() for line in trace.splitlines() if "/irlens/" in line and "File" in line]
            return f"traceback: {trace.strip().splitlines()[-1][:200]} at {where[-1] if where else 'the parser'}"
        if code not in (0, 2):
            return f"exit code {code}"
        if code == 0:
            return "is to be refused" if case.get("refused") else ""
        lines = [
            line
            for line in said.replace("\r", "\n").split("\n")
            if line.strip() and "it/s" not in line and "%|" not in line
        ]
        if len(lines) != 1 or not lines[0].startswith("irlens: "):
            return f"{len(lines)} lines: {said.strip()[:300]}"
        return (
            f"a line of {len(lines[0])} letters: {lines[0][:80]} … {lines[0][-60:]}" if len(lines[0]) > LONGEST else ""
        )


def serve(folder: Path) -> None:
    """Answers a line of JSON for each that comes."""
    asked, answered = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(folder)
    worker.prepare()
    answered.write("ready\n")
    answered.flush()
    for line in asked:
        answered.write(json.dumps(worker.run(json.loads(line))) + "\n")
        answered.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
