import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpt2_throughput
from benchmarks.common import SMALL


def test_on_the_cpu_it_prints_rates_and_their_share_of_a_measured_peak(tmp_path, capsys):
    gpt2_throughput.main(steps=2, rounds=1, device="cpu", out=tmp_path)
    found = json.loads((tmp_path / "gpt2_throughput.json").read_text())
    results, settings = found["results"], found["settings"]
    assert settings["config"]["data"]["replacement"] is True
    assert set(results) == {"flops_per_token", "by_clock", "by_processor_time"}
    for found in (results["by_clock"], results["by_processor_time"]):
        peak = found["peak_flops"]["value"]
        assert found["peak_flops"]["origin"].startswith("measured")
        assert 1e9 < peak < 1e13  # one core: between a slow scalar one and far above the widest vector unit
        assert set(found["mfu"]) == set(found["tokens_per_second"]) == {"ours", "ours_probed"}
        for name, rate in found["tokens_per_second"].items():
            # rounded to whole tokens and to four digits
            assert found["mfu"][name] == pytest.approx(rate * results["flops_per_token"] / peak, abs=1e-4)
        assert "ours_over_nanogpt" not in found
    assert "tokens_per_second" in capsys.readouterr().out


def test_operations_a_token_are_counted_as_nanogpt_counts_them():
    """6 N + 12 L H Q T; for GPT-2 Small N is 123.6 million (its README) without positions at a vocabulary of 50,304."""
    counted = gpt2_throughput.flops_per_token(replace(SMALL, model=gpt2_throughput.GPT2))
    parameters = 12 * 12 * 768**2 + 50_304 * 768 + 25 * 768
    assert counted == 6 * parameters + 12 * 12 * 768 * 1024
    assert parameters == pytest.approx(123.6e6, rel=1e-3)


def test_peaks_of_known_gpus_are_flagged_as_estimates(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    value, origin = gpt2_throughput.data_sheet(torch.device("cuda"))
    assert (value, origin.split(":")[0]) == (989e12, "estimated")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    assert gpt2_throughput.data_sheet(torch.device("cuda"))[0] == 756e12
    assert gpt2_throughput.data_sheet(torch.device("cpu")) is None


def test_what_is_no_checkout_of_nanogpt_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is not a checkout of nanoGPT"):
        gpt2_throughput.main(nanogpt=tmp_path, steps=1, rounds=1, device="cpu", out=tmp_path)
