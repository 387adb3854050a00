import json
import platform

import torch

from empirics.environment import environment


def test_the_block_names_versions_device_threads_and_survives_json():
    block = json.loads(json.dumps(environment(torch.device("cpu"))))
    assert block["python"] == platform.python_version()
    assert block["packages"]["torch"] == torch.__version__
    assert block["device"] == "cpu"
    assert block["threads"] == torch.get_num_threads()
    assert block["cores"] >= 1
    assert not block["command"][0].startswith("/")
