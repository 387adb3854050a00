import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from empirics.lock import Lock
from theory.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from empirics.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_name_and_a_dead_one_is_taken_over(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(InputError, match=f'"pid": {process.pid}.*{socket.gethostname()}'):
            Lock(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "lock").exists()  # the dead process could not remove it
    lock = Lock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    lock.release()


def test_one_holder_also_within_a_process_and_again_after_release(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(InputError, match="is being written by"):
        Lock(tmp_path)
    lock.release()
    lock.release()
    assert not (tmp_path / "lock").exists()
    Lock(tmp_path).release()
