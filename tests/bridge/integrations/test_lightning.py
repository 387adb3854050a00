"""The callback in Lightning's Trainer, whose optimizers step with a closure."""

import warnings

import pytest
import torch
from torch import nn

from empirics.records import Record

lightning = pytest.importorskip("lightning.pytorch")


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8, bias=False)
        self.seen = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def on_before_optimizer_step(self, optimizer):
        self.seen.append(self.layer.weight.grad.norm().item())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 10))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trained(tmp_path, callbacks=()):
    torch.manual_seed(1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(240, 8)), batch_size=4)
    network = Network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            accumulate_grad_batches=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=list(callbacks),
        )
        trainer.fit(network, data)
    return network


def test_trainer_with_the_callback(tmp_path):
    from decaylab.lightning import DecaylabCallback

    callback = DecaylabCallback(every=1, root=tmp_path / "runs")
    watched, plain = trained(tmp_path, [callback]), trained(tmp_path)
    assert torch.equal(watched.layer.weight, plain.layer.weight)
    (path,) = (tmp_path / "runs").iterdir()
    record = Record(path)
    assert record.status == "finished"
    assert record.preregistered
    assert callback.watch.comparison().preregistered
    # gradients are those that Lightning computed inside the step, not those left over from the step before
    assert record.series("grad_norm", "layer.weight").tolist() == pytest.approx(watched.seen, rel=1e-5)
    assert record.series("lr").tolist() == pytest.approx([1e-2 * min(1.0, (t + 1) / 10) for t in range(30)])
    assert len(record.series("loss")) == 30
