"""What each process does in test_parallel.py: tasks from a file, one after the other.

A task is {config, root, parallel, at, what}: what happens in rank 1 (die_in_save: in rank 0) at step `at`, or nothing.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from empirics import log, sharded
from empirics.interrupt import Interrupted
from empirics.train import train
from theory.serialize import from_json

torch.set_num_threads(1)
RANK, FOLDER = int(os.environ["RANK"]), Path(sys.argv[1])
add, write_file = log.Log.add, sharded.write_file


def happens(task):
    def add_and_more(self, step, loss, grad_norm):
        if step == task["at"] and RANK == 1 and task["what"] == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if step == task["at"] and RANK == 1 and task["what"] == "error":
            raise ValueError("this step is cursed")
        add(self, step, loss, grad_norm)

    def write_or_die(path, data):
        if task["what"] == "die_in_save" and path.name == "complete.json" and f"{task['at']:08d}" in path.parent.name:
            os.kill(os.getpid(), signal.SIGKILL)
        write_file(path, data)

    log.Log.add, sharded.write_file = add_and_more, write_or_die


for task in json.loads((FOLDER / sys.argv[2]).read_text()):
    if "copy" in task and RANK == 0:
        shutil.copytree(*(FOLDER / name for name in task["copy"]))
    if "config" not in task:
        continue
    happens({"at": -1, "what": ""} | task)
    try:
        train(from_json(task["config"]), FOLDER / task["root"], parallel=task["parallel"])
        said = "finished"
    except (Interrupted, Exception) as error:
        said = f"{type(error).__name__}: {error}"
    with open(FOLDER / f"{task['root']}.{RANK}.txt", "a") as file:
        file.write(f"{said}\n")
    if "Error" in said:
        sys.exit(said)
