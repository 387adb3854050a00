"""The callback in Hugging Face's Trainer, and a plain watch under Accelerate."""

import pytest
import torch
from torch import nn

from bridge.watch import watch
from empirics.records import Record

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


def language_model():
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=1, n_head=2)
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


def tokens(count=200):
    rows = torch.randint(40, (count, 16), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in rows]


def trained(tmp_path, callbacks=()):
    model = language_model()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=60,
        warmup_steps=10,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=3,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=tokens(), callbacks=list(callbacks))
    trainer.train()
    return trainer


def test_trainer_with_the_callback(tmp_path):
    from decaylab.huggingface import DecaylabCallback

    callback = DecaylabCallback(every=5)
    watched, plain = trained(tmp_path, [callback]), trained(tmp_path / "plain")
    for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)
    (path,) = (tmp_path / "decaylab").iterdir()
    record = Record(path)
    assert record.status == "finished"
    assert record.preregistered
    assert record.pivot("angle").index.tolist() == list(range(0, 60, 5))
    assert "transformer.h.0.attn.c_attn.weight.q" in record.pivot("angle").columns  # Conv1D, taken apart
    assert len(record.series("loss")) == 12
    # the scheduler was announced: the rates seen are those of the prediction made before step 0
    assert record.series("lr").tolist() == pytest.approx(record.recipe.lr(range(0, 60, 5)).tolist())
    assert callback.watch.comparison().preregistered
    # size of an update after warm-up, weights free: AdamW's law, 5 measured steps of 1728 coordinates; gradients of
    # random tokens are nearly noise
    residual = callback.watch.comparison().residual("relative_update", start=30)
    assert abs(residual["transformer.h.0.mlp.c_fc.weight"]) < 0.2


def test_accelerate_needs_no_callback(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    data = torch.utils.data.DataLoader(torch.randn(80, 8), batch_size=4)
    model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, data, scheduler)
    with watch(model, optimizer, schedule=scheduler, total_steps=10, root=tmp_path, every=1) as w:
        for x in data:
            with accelerator.accumulate(model):
                accelerator.backward(model(x).square().mean())
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    assert w.step == 10  # twenty batches, two a step
    assert w.record.series("lr").tolist() == pytest.approx([1e-2 / (1 + t) for t in range(10)])
    assert w.comparison().preregistered
