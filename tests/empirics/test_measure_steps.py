import numpy as np
import pytest

from empirics.continued import continued
from empirics.measure_steps import STEPPED, long_run, measure_steps
from empirics.plan import Probes
from empirics.probes.signal import TensorSignal
from empirics.train import train
from tests.tiny import tiny
from theory.errors import InputError
from theory.optimizers import AdamW


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    config = tiny(
        tmp_path_factory.mktemp("bin"),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        steps=30,
        batch_size=4,
        rotation_every=1,
        checkpoint_every=10,
        keep_checkpoints=9,
        probes=Probes(windows=(10,)),
    )
    return train(config, tmp_path_factory.mktemp("runs"), device="cpu")


def test_the_run_itself_measured_the_same(record):
    """On one machine the continued training is bitwise the run, so both read the same numbers."""
    training = continued(record.config, record.config.data.open(), folder=record.path, begin=10)
    assert training.start == 10
    seen = []
    signal, rotation = measure_steps(
        training, ["signal", "rotation"], steps=20, lags=3, progress=lambda done, steps, loss: seen.append((done, loss))
    )
    assert signal.seconds > 0
    assert rotation.gradients > 0
    losses = record.pivot("loss")[""]
    assert [done for done, _ in seen] == list(range(1, 21))
    assert [loss for _, loss in seen] == losses.loc[10:29].tolist()
    found = {(r.quantity, r.tensor): r.value for r in rotation.readings}
    for quantity, mean in (("angle", lambda x: np.sqrt((x**2).mean())), ("norm", np.mean)):
        for name, values in record.pivot(quantity).loc[10:29].items():
            assert found[quantity, name] == pytest.approx(mean(values.to_numpy()), rel=1e-12)
    ten = record.pivot("angle_10")
    for name, values in ten.loc[19:29].items():  # windows from step 10 and 20 on
        assert found["angle_10", name] == pytest.approx(np.sqrt((values.to_numpy() ** 2).mean()), rel=1e-12)
    scale = {r.tensor: r.value for r in signal.readings if r.quantity == "c2"}
    old = record.pivot("norm").shift(1)
    for name, norm in record.pivot("grad_norm").loc[10:29].items():
        want = ((norm * old[name].loc[10:29]) ** 2).mean()
        assert scale[name] == pytest.approx(want, rel=1e-5)  # float32 dot products


def test_memory_of_a_moving_average():
    """u_t = m_t of white noise, m = b m + (1-b) g: C_k = b^k C_0, in all (1+b)/(1-b)."""
    b, lags = 0.5, 40
    autocov = tuple(3.0 * b**k for k in range(lags + 1))
    found = TensorSignal(1.0, 0.1, 3.0, autocov, (0.0,) * (lags + 1), (), (), 0.0, 0.0, 100, 0.0)
    assert long_run(found)[0] == pytest.approx((1 + b) / (1 - b), rel=1e-9)


def test_what_it_refuses(record):
    training = continued(record.config, record.config.data.open(), folder=record.path, begin=20)
    with pytest.raises(InputError, match=r"steps = 11 .* at most 10"):
        measure_steps(training, ["signal"], steps=11)
    with pytest.raises(InputError, match=r"probes = 'hessian_trace'"):
        measure_steps(training, ["hessian_trace"], steps=2)
    with pytest.raises(InputError, match=r"steps = 1 "):
        measure_steps(training, list(STEPPED), steps=1)
