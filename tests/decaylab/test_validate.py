"""The main job at reduced length: the vision runs in full, the language model cut short."""

import json
from dataclasses import replace

import pytest

from bridge.validation import residual_network_checks
from decaylab.cli import main
from decaylab.commands import validate as command
from empirics import experiments
from empirics.records import Record


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run it once; yields the folder of runs, the exit code and the configurations."""
    root = tmp_path_factory.mktemp("runs")
    full = experiments.validation

    def shortened(*, seed: int, scale: str):
        configs = full(seed=seed, scale=scale)
        for role in ("lm-decayed", "lm-undecayed"):
            data = replace(configs[role].data, val_windows=256)
            configs[role] = replace(configs[role], steps=600, data=data)
        return configs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "validation", shortened)
        with pytest.raises(SystemExit) as stop:
            main(["validate", "--seed", "7", "--runs", str(root), "--workers", "2"])
        before = {path: path.stat().st_mtime_ns for path in root.glob("*/metrics.parquet")}
        with pytest.raises(SystemExit) as again:  # nothing is trained twice
            main(["validate", "--seed", "7", "--runs", str(root)])
        assert {path: path.stat().st_mtime_ns for path in root.glob("*/metrics.parquet")} == before
        assert again.value.code == stop.value.code
    return root, stop.value.code, shortened(seed=7, scale="cpu")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_exit_code_says_whether_all_bounds_hold(finished):
    root, code, _ = finished
    checks = json.loads((root / "validate-cpu-seed7" / "checks.json").read_text())
    assert len(checks) == 18
    assert code == (0 if all(check["verdict"] == "pass" for check in checks) else 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vision_holds_its_bounds_at_full_length(finished):
    root, _, configs = finished
    records = {role: Record(root / config.directory) for role, config in configs.items()}
    checks = residual_network_checks(*(records[f"vision-{kind}"] for kind in ("decayed", "undecayed", "invariant")))
    assert len(checks) == 7
    assert [check.claim for check in checks if not check.passed] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checks_fail_where_the_effect_is_absent(finished):
    root, _, configs = finished
    records = {role: Record(root / config.directory) for role, config in configs.items()}
    swapped = residual_network_checks(
        records["vision-undecayed"], records["vision-decayed"], records["vision-invariant"]
    )
    assert {check.claim for check in swapped if not check.passed} == {
        "test error, undecayed minus decayed",
        "Jacobian norm, decayed over undecayed",
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_prediction_was_written_first_and_the_report_is_there(finished):
    root, _, configs = finished
    for config in configs.values():
        record = Record(root / config.directory)
        assert record.preregistered
        assert (record.path / "prediction.parquet").stat().st_mtime <= (record.path / "metrics.parquet").stat().st_mtime
    folder = root / "validate-cpu-seed7"
    report = (folder / "report.html").read_text()
    assert "1 seed" in report
    assert report.count("<svg") == 2
    assert len(report) < 3_000_000
    for name in ("language_model", "residual_network"):
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / f"{name}.png").stat().st_size > 10_000


def test_a_run_that_did_not_finish_is_named(tmp_path):
    from bridge.validation import unfinished

    (reason,) = unfinished({"lm-decayed": Record(tmp_path / "run-1")})
    assert "lm-decayed" in reason
    assert "new, not finished" in reason


def test_scalars_are_tidy():
    assert command.scalars({}, seed=0).columns.tolist() == ["run", "seed", "quantity", "value"]
