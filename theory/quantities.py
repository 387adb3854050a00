"""One name and one unit per quantity, in every table, plot and file."""

from __future__ import annotations

UNITS: dict[str, str] = {
    "norm": "1",
    "rms": "1",
    "angle": "rad/step",
    "effective_lr": "1/step",
    "relative_update": "1",
    "grad_norm": "nats",
    "loss": "nats",
    "val_loss": "nats",
    "test_error": "1",
    "jacobian_fro": "1",
    "lr": "1",
}
"""Units by quantity; "1" is dimensionless. `angle` is the RMS rotation of one step."""

PREDICTED = ("norm", "rms", "angle", "effective_lr", "relative_update")
"""What a prediction holds for every tensor."""
