"""Signals: one of them ends a process, which cleans up undisturbed; none is lost, and none comes too late."""

import os
import signal
import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys, time
from irlens.base import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
interrupts.hear()
def send(): os.kill(os.getpid(), int(sys.argv[1]))
"""
UNDISTURBED = """
try:
    send()
    print("not heard")
except BaseException as error:
    send()
    print("cleaned up", flush=True)
    interrupts.unfinished.append(lambda: print("and finished", flush=True))
    sys.exit(interrupts.ended(error))
"""
IN_A_DESTRUCTOR = """
class Held:
    def __del__(self): send()
held = Held()
try:
    del held
    print("nothing was raised", flush=True)
    time.sleep(30)
except interrupts.Interrupted as error:
    sys.exit(interrupts.ended(error))
"""
TOO_LATE = """
interrupts.deafen()
assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # Python keeps that as it ends
send()
print("done")
"""
WAITS = """
try:
    with interrupts.held():
        with interrupts.held():
            send()
            send()
        print("whole", flush=True)
    print("nothing was raised")
except interrupts.Interrupted as error:
    sys.exit(interrupts.ended(error))
"""
IGNORED = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
interrupts.hear()
send()
print("not heard")
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "code, said, interrupted",
    [
        (UNDISTURBED, "cleaned up\nand finished\n", True),
        (IN_A_DESTRUCTOR, "nothing was raised\n", True),
        (TOO_LATE, "done\n", False),
        (WAITS, "whole\n", True),
    ],
)
def test_the_first_signal_ends_a_process_in_its_own_time(code, said, interrupted, sent):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, str(int(sent))], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (said, "") and done.returncode == (128 + sent if interrupted else 0)


def test_what_the_shell_ignores_stays_ignored():
    """As it does for a command in the background."""
    code = BEGIN + IGNORED
    done = subprocess.run([sys.executable, "-c", code, str(int(signal.SIGINT))], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("not heard\n", 0)


def test_an_interrupt_while_the_program_is_still_being_loaded_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "irlens", "passk"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (143, "irlens: interrupted; the same command continues\n")
