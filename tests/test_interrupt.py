"""An interrupt while stacks are made ahead: the end of a process of its own."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys, threading, time
sys.path.insert(0, {here!r})
import _thread
from test_stacks import ONE, TRAINING, stack
from nfp_jax import ensemble
from nfp_jax.lab.each import ahead

begun = []

def make(i):
    begun.append(i)
    print("begun", i, flush=True)
    if i == 4:
        time.sleep(0.5)  # the other threads begin theirs
        print("interrupted", flush=True)
        _thread.interrupt_main()
    time.sleep(1.0 if i > 1 else 0.0)
    print("made", i, flush=True)
    return [stack(5, tags=range(5))]

makers = (lambda i=i: make(i) for i in range(40))
ensemble.run(TRAINING, ahead(makers, 3), lanes=2, devices=ONE, on_ended=lambda *_: None)
"""


def test_after_an_interrupt_no_further_stack_is_made():
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(here=str(Path(__file__).parent))],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr
    before, after = done.stdout.split("interrupted\n")
    assert "begun" not in after
    # What was begun is ended: a thread is not killed within a call of the device.
    assert before.count("begun") == done.stdout.count("made")
