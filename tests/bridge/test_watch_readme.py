"""The README's diffs: two lines each, and the loop with them runs and leaves a record."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from empirics.records import Record

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.split("## Watch your own loop\n")[1].split("\n## ")[0]
DIFFS = re.findall(r"```diff\n(.*?)```", SECTION, flags=re.DOTALL)
FRAMEWORKS = {"accelerate": "accelerate", "transformers": "transformers", "lightning": "lightning.pytorch"}


def framework(diff: str) -> str:
    return next((name for name in FRAMEWORKS if f"from {name}" in diff), "torch")


def surroundings(name: str, folder: Path) -> dict[str, object]:
    """What a diff takes for granted."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8, bias=False)
    rows = torch.randn(40, 8)
    if name == "accelerate":
        return {
            "model": model,
            "optimizer": torch.optim.AdamW(model.parameters()),
            "loader": torch.utils.data.DataLoader(rows, batch_size=4),
        }
    if name == "transformers":
        import transformers

        config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=1, n_head=2)
        tokens = torch.randint(40, (40, 16))
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), max_steps=10, save_strategy="no", report_to="none", use_cpu=True
        )
        dataset = [{"input_ids": row, "labels": row} for row in tokens]
        return {"model": transformers.GPT2LMHeadModel(config), "arguments": arguments, "dataset": dataset}
    if name == "lightning":
        import lightning.pytorch as pl

        class Network(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = model

            def training_step(self, batch, batch_idx):
                return self.layer(batch).square().mean()

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters())

        return {"module": Network(), "loader": torch.utils.data.DataLoader(rows, batch_size=4)}
    return {}


def test_every_framework_has_a_diff_of_two_lines():
    assert [framework(diff) for diff in DIFFS] == ["torch", "accelerate", "transformers", "lightning"]
    for diff in DIFFS:
        assert len(re.findall(r"^\+", diff, flags=re.MULTILINE)) == 2
        assert not re.findall(r"^-", diff, flags=re.MULTILINE)


@pytest.mark.parametrize("diff", DIFFS, ids=framework)
def test_a_diff_applied_runs_and_leaves_a_record(diff, tmp_path, monkeypatch):
    name = framework(diff)
    if name in FRAMEWORKS:
        pytest.importorskip(FRAMEWORKS[name])
    monkeypatch.chdir(tmp_path)
    code = "".join(line[1:] + "\n" for line in diff.splitlines())
    names = surroundings(name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, f"README.md: {name}", "exec"), names)
    watch = names.get("watch")
    if watch is not None:
        watch.close()
    (config,) = tmp_path.rglob("config.json")
    record = Record(config.parent)
    assert record.status == "finished"
    assert len(record.pivot("angle")) >= 1
    assert record.prediction() is not None
