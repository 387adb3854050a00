import math

import pytest

from theory import shapes
from theory.errors import InputError


@pytest.mark.parametrize(
    ("size", "millions"), [("124m", 124.44), ("350m", 354.82), ("774m", 774.03), ("1558m", 1_557.61)]
)
def test_gpt2_has_openais_parameters(size, millions):
    groups = shapes.gpt2(size)
    assert sum(group.size for group in groups) / 1e6 == pytest.approx(millions, abs=0.005)
    assert len({group.name for group in groups}) == len(groups)
    assert all(group.decayed == (len(group.shape) >= 2) for group in groups)


def test_gpt2_tensors():
    groups = {group.name: group for group in shapes.gpt2("124m")}
    assert len(groups) == 148
    assert groups["transformer.h.11.attn.c_attn.weight"].shape == (2_304, 768)
    assert groups["transformer.h.0.mlp.c_fc.weight"].norm0 == pytest.approx(0.02 * math.sqrt(3_072 * 768))
    assert groups["transformer.h.0.mlp.c_proj.weight"].norm0 == pytest.approx(
        0.02 / math.sqrt(24) * math.sqrt(3_072 * 768)
    )
    assert groups["transformer.ln_f.weight"].norm0 == pytest.approx(math.sqrt(768))
    assert groups["transformer.ln_f.bias"].norm0 == 0


def test_gpt2_variants():
    plain, split = shapes.gpt2("124m", bias=False), shapes.gpt2("124m", split_qkv=True)
    assert len(plain) == 148 - 12 * 6 - 1
    assert len(split) == 148 + 12 * 2 * 2
    assert sum(group.size for group in split) == sum(group.size for group in shapes.gpt2("124m"))
    small = shapes.gpt2("124m", vocab_size=100, block_size=8)
    assert [group.shape for group in small[:2]] == [(100, 768), (8, 768)]
    with pytest.raises(InputError, match="124m"):
        shapes.gpt2("175b")


def test_resnet18_is_torchs_own_initialisation():
    import torch

    groups = {group.name: group for group in shapes.resnet18()}
    assert len(groups) == 62
    assert sum(group.size for group in groups.values()) == 11_173_962
    torch.manual_seed(0)
    for group in groups.values():
        if group.scale_invariant == "row":
            out, into, kernel, _ = group.shape
            weight = torch.nn.Conv2d(into, out, kernel, bias=False).weight
            # chi-squared in at least 1,728 coordinates
            assert weight.norm().item() == pytest.approx(group.norm0, rel=4 / math.sqrt(group.size))
    head = torch.nn.Linear(512, 10)
    assert head.weight.norm().item() == pytest.approx(groups["fc.weight"].norm0, rel=0.06)
