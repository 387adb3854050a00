import pytest
import torch
from torch import nn

from empirics.grouping import audit, rule
from empirics.models import GPT2Config, ResNetConfig
from empirics.optimizers import build_optimizer
from theory.errors import InputError
from theory.optimizers import AdamW, Muon

MODEL = GPT2Config(vocab_size=16, block_size=4, n_layer=1, n_head=1, n_embd=4, bias=True)


def decayed(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (["transformer.wpe.weight"], {"transformer.wpe.weight"}),
        ("names:transformer.wpe.weight", {"transformer.wpe.weight"}),
        (r"regex:mlp.*weight$", {"transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight"}),
        ("regex:ln_f", {"transformer.ln_f.weight", "transformer.ln_f.bias"}),
    ],
)
def test_decay_by_name_and_by_expression(decay, expected):
    model = MODEL.build(seed=0)
    assert decayed(model, build_optimizer(AdamW(lr=0.1, weight_decay=0.3), model, decayed=decay)) == expected


def test_a_name_that_is_not_there_is_a_mistake_and_so_is_an_expression_that_fits_nothing():
    model = MODEL.build(seed=0)
    with pytest.raises(
        InputError, match=r"decay names 'lm_head', which is none of the model's: they are transformer.wte"
    ):
        rule("names:lm_head", model)
    with pytest.raises(InputError, match="'regex:conv' fits none"):
        rule("regex:conv", model)


@pytest.mark.parametrize("decay", ["matrices", "all", "regex:attn", ["transformer.wte.weight"]])
@pytest.mark.parametrize("apart", [(), ("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight")])
def test_every_parameter_is_in_exactly_one_group(decay, apart):
    model = MODEL.build(seed=0)
    for optimizer, others in ((AdamW(0.1), None), (Muon(0.1), AdamW(0.1))):
        built = build_optimizer(optimizer, model, decayed=decay, others=others, apart=apart)
        audit(model, built.param_groups)  # written again, independently:
        held = [id(p) for group in built.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        alone = [group for group in built.param_groups if len(group["params"]) == 1]
        assert len(alone) >= len(apart)


def test_the_audit_names_what_is_missing_twice_there_frozen_or_foreign():
    model = ResNetConfig(width=1).build(seed=0)
    groups = build_optimizer(AdamW(0.1), model).param_groups
    audit(model, groups)
    with pytest.raises(InputError, match=r"'conv.weight' is in 2 groups .* exactly one"):
        audit(model, [*groups, {"params": [model.conv.weight]}])
    with pytest.raises(InputError, match=r"'bn.weight' is in 0 groups"):
        audit(model, groups[:1])
    with pytest.raises(InputError, match=r"a parameter \(without a name\) that is none of the model's"):
        audit(model, [*groups, {"params": [nn.Parameter(torch.ones(1))]}])
    model.conv.requires_grad_(False)
    with pytest.raises(InputError, match=r"'conv.weight' is in 1 groups .* none, since it is frozen"):
        audit(model, groups)


def test_muon_takes_hidden_matrices_and_adamw_the_others():
    model = MODEL.build(seed=0)
    built = build_optimizer(Muon(lr=0.2, weight_decay=0.1), model, others=AdamW(lr=0.3, weight_decay=0.05))
    muon, adamw = built.parts
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for g in muon.param_groups for p in g["params"]} == {"c_attn", "c_proj", "c_fc"}
    assert {(g["lr"], g["weight_decay"]) for g in muon.param_groups} == {(0.2, 0.1)}
    assert {(g["lr"], g["weight_decay"]) for g in adamw.param_groups} == {(0.3, 0.05), (0.3, 0.0)}
    with pytest.raises(InputError, match="or have `others`"):
        build_optimizer(Muon(lr=0.2), model)
    with pytest.raises(InputError, match="another one for a model without hidden matrices"):
        build_optimizer(Muon(lr=0.2), ResNetConfig(scale_invariant=True).build(0), others=AdamW(0.1))
