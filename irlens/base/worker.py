"""The process of a worker: `python -m irlens.base.worker FD` does what comes through that pipe; see `base.workers`."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from irlens.base.errors import UserError
from irlens.base.secrets import kept_off_streams, redact


def main(pipe: Connection) -> None:
    """Makes the object when the first work comes, and answers each call: done, refused (a UserError) or failed.

    Once the pipe's other end is gone this process and all that it started end at once, at work or not.
    """
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    make, held, nothing = pipe.recv_bytes(), None, object()
    held = nothing

    def listen() -> None:
        try:
            while True:
                inbox.put(pipe.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        method, args, watched = inbox.get()
        more = {"on_batch": lambda *told: pipe.send(("seen", *told))} if watched else {}
        try:
            held = pickle.loads(make)() if held is nothing else held
            answer: tuple = ("done", getattr(held, method)(*args, **more))
        except UserError as error:
            answer = ("refused", type(error).__name__, str(error))
        except Exception as error:  # a fault of a library, a driver or of ours: its trace goes to the log
            traceback.print_exc()
            words = " ".join(redact(str(error)).split())[:200]
            answer = ("failed", f"a worker failed: {type(error).__name__}: {words}")
        pipe.send(answer)


def end_with_the_pipe() -> None:
    """Ends this process once its standard input, a pipe from the one that started it, is gone."""

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would outlive the interpreter
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    with kept_off_streams():
        main(Connection(int(sys.argv[1])))
