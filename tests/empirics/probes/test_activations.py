import copy
import gc
import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from empirics.models import GPT2Config, ResNetConfig
from empirics.precision import emulate
from empirics.probes import low_precision
from empirics.probes.activations import Activations, Hook, Silent, find_blocks
from empirics.probes.bill import Bill, Schedule
from empirics.probes.low_precision import branch_lost, logit_max, rms
from theory.errors import InputError
from theory.precision.residual import residual_precision

SIZE = {"vocab_size": 50, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
TOKENS = torch.randint(50, (4, 8), generator=torch.Generator().manual_seed(0))
BATCH = (TOKENS, TOKENS.roll(-1, 1))


def build(kind=torch.optim.SGD, **options):
    model = GPT2Config(**SIZE | options).build(seed=0)
    return model, kind(model.parameters(), lr=0.01)


def step(model, optimizer):
    model.loss(*BATCH).backward()
    optimizer.step()
    optimizer.zero_grad()


def measure(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    probe = Activations(model, optimizer, every=1, **options)
    step(model, optimizer)
    ((_, values),) = probe.flush()
    probe.close()
    return values


def by_hand(model, stream, mask):
    """Blocks written out from the formulas, in float64, on a copy."""
    found = {name: {} for name in ("residual_rms", "branch_ratio", "attention_logit_max")}
    for i, block in enumerate(model.transformer.h):
        name = f"transformer.h.{i}"
        q, k, v = block.attn.c_attn(block.ln_1(stream)).split(model.config.n_embd, dim=2)
        q, k = block.attn.normalise(q), block.attn.normalise(k)
        q, k, v = (x.unflatten(2, (model.config.n_head, -1)).transpose(1, 2) for x in (q, k, block.attn.normalise(v)))
        logits = torch.einsum("bhtc,bhsc->bhts", q, k) / math.sqrt(q.size(3))
        found["attention_logit_max"][name] = logits[..., mask].max().item()
        out = logits.masked_fill(~mask, -math.inf).softmax(3) @ v
        branch = block.attn.normalise(block.attn.c_proj(out.transpose(1, 2).flatten(2)))
        found["branch_ratio"][f"{name}.attn"] = (branch.square().mean() / stream.square().mean()).sqrt().item()
        stream = stream + branch
        branch = block.mlp(block.ln_2(stream))
        found["branch_ratio"][f"{name}.mlp"] = (branch.square().mean() / stream.square().mean()).sqrt().item()
        stream = stream + branch
        found["residual_rms"][name] = stream.square().mean().sqrt().item()
    return found


@pytest.mark.parametrize("scale_invariant", [False, True])
def test_every_quantity_against_the_blocks_written_out(scale_invariant):
    model, _ = build(scale_invariant=scale_invariant)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(30)
    twin = copy.deepcopy(model).double()
    values = measure(model)
    with torch.no_grad():
        stream = twin.transformer.wte(TOKENS) + twin.transformer.wpe.weight
        expected = by_hand(twin, stream, torch.ones(8, 8, dtype=torch.bool).tril())
    for quantity, parts in expected.items():
        assert values[quantity] == pytest.approx(parts, rel=1e-4)
    assert list(values["branch_lost"]) == list(values["branch_ratio"])


@pytest.mark.parametrize("ratio", [2**-3, 2**-5, 2**-7, 2**-9, 2**-10])
def test_the_lost_fraction_is_the_laws(ratio):
    generator = torch.Generator().manual_seed(0)
    x, f = torch.randn(400_000, generator=generator), ratio * torch.randn(400_000, generator=generator)
    # the law's stated accuracy is 3 %; sampling adds 0.3 %
    assert branch_lost(x, f).item() == pytest.approx(residual_precision(ratio).relative_error, rel=0.03)


def test_the_lost_fraction_at_its_ends():
    assert branch_lost(torch.ones(8), torch.full((8,), 2.0**-10)).item() == 1
    assert branch_lost(torch.zeros(8), torch.randn(8)).item() == 0
    assert math.isnan(branch_lost(torch.ones(8), torch.zeros(8)).item())


def test_a_bfloat16_model_is_measured_as_it_computes():
    model, _ = build()
    model.to(torch.bfloat16)
    seen = {}
    block = model.transformer.h[0]
    handles = [
        block.register_forward_pre_hook(lambda _, args: seen.update(x=args[0])),
        block.attn.register_forward_hook(lambda _, args, out: seen.update(f=out)),
        block.ln_2.register_forward_pre_hook(lambda _, args: seen.update(sum=args[0])),
    ]
    lost = measure(model)["branch_lost"]["transformer.h.0.attn"]
    for handle in handles:
        handle.remove()
    x, f, total = (seen[key].double() for key in ("x", "f", "sum"))
    assert lost == pytest.approx(((total - x - f).norm() / f.norm()).item(), rel=1e-5)


class Conv1D(nn.Module):
    """As in Hugging Face: weight (in, out)."""

    def __init__(self, out: int, inn: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inn, out)), nn.Parameter(torch.zeros(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class HFAttention(nn.Module):
    """The attributes and outputs of transformers' GPT2Attention that the probe relies on."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.num_heads, self.layer_idx = 2, layer_idx
        self.scale_attn_weights, self.scale_attn_by_inverse_layer_idx = True, False
        self.c_attn, self.c_proj = Conv1D(48, 16), Conv1D(16, 16)

    def forward(self, hidden_states):
        q, k, v = (x.unflatten(2, (2, 8)).transpose(1, 2) for x in self.c_attn(hidden_states).split(16, dim=2))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(out.transpose(1, 2).flatten(2)), None


class HFMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(64, 16), Conv1D(16, 64)

    def forward(self, hidden_states):
        return self.c_proj(F.gelu(self.c_fc(hidden_states)))


class HFBlock(nn.Module):
    """Takes its stream by keyword and returns a tuple, as GPT2Block does."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attn, self.mlp = HFAttention(layer_idx), HFMLP()

    def forward(self, hidden_states):
        hidden_states = hidden_states + self.attn(self.ln_1(hidden_states))[0]
        return (hidden_states + self.mlp(self.ln_2(hidden_states)),)


class HFModel(nn.Module):
    def __init__(self, ours) -> None:
        super().__init__()
        self.wte, self.wpe, self.ln_f = ours.transformer.wte, ours.transformer.wpe, ours.transformer.ln_f
        self.h = nn.ModuleList(HFBlock(i) for i in range(2))
        state = {name.removeprefix("transformer."): value for name, value in ours.state_dict().items()}
        for name, parameter in self.h.named_parameters():
            if f"h.{name}" in state:
                value = state[f"h.{name}"]
                parameter.data = value.T.clone() if value.dim() == 2 else value.clone()

    def loss(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight
        for block in self.h:
            x = block(hidden_states=x)[0]
        return F.cross_entropy((self.ln_f(x) @ self.wte.weight.T).flatten(0, 1), targets.flatten())


def test_blocks_of_hugging_faces_shape_give_the_same_numbers():
    ours, _ = build()
    theirs = HFModel(copy.deepcopy(ours))
    expected, found = measure(ours), measure(theirs)
    for quantity, values in expected.items():
        renamed = {name.removeprefix("transformer."): value for name, value in values.items()}
        assert found[quantity] == pytest.approx(renamed, rel=1e-4)


def test_hugging_faces_scales():
    attn, qkv = HFAttention(layer_idx=3), torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    plain = logit_max(attn, qkv).item()
    attn.scale_attn_by_inverse_layer_idx = True
    assert logit_max(attn, qkv).item() == pytest.approx(plain / 4)
    attn.scale_attn_weights = False
    assert logit_max(attn, qkv).item() == pytest.approx(plain / 4 * math.sqrt(8))


def test_the_real_hugging_face_model():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0
    )
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    probe = Activations(model, optimizer, every=1)
    output = model(TOKENS, labels=TOKENS, output_hidden_states=True)
    output.loss.backward()
    optimizer.step()
    ((_, values),) = probe.flush()
    assert values["residual_rms"]["transformer.h.0"] == pytest.approx(rms(output.hidden_states[1]).item(), rel=1e-5)
    assert len(values["attention_logit_max"]) == 2
    assert len(values["branch_lost"]) == 4


def test_logits_are_split_into_pieces_without_a_difference(monkeypatch):
    attn = HFAttention(layer_idx=0)
    qkv = torch.randn(7, 6, 48, generator=torch.Generator().manual_seed(0))
    whole = logit_max(attn, qkv)
    for held in (1, 2 * 36 * 3):
        monkeypatch.setattr(low_precision, "SCORES", held)
        assert torch.equal(logit_max(attn, qkv), whole)
    qkv[3, 2, 20] = math.nan
    assert math.isnan(logit_max(attn, qkv))


def test_the_future_does_not_count():
    qkv = torch.zeros(1, 2, 48)
    qkv[0, 0, :8], qkv[0, 1, 16:24] = 100.0, 100.0  # the first token's query meets the second's key
    assert logit_max(HFAttention(0), qkv).item() == 0
    qkv[0, 0, 16:24] = -1.0
    assert logit_max(HFAttention(0), qkv).item() == 0  # -283 for the first token, but 0 for the second


def test_modules_by_name():
    model = ResNetConfig(width=4).build(seed=0)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = Activations(model, optimizer, every=1, blocks=["stages.0.0", "stages.1.0"])
    seen = []
    handle = model.stages[0][0].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    model.loss(images, labels).backward()
    optimizer.step()
    handle.remove()
    ((_, values),) = probe.flush()
    ((x, out),) = seen
    assert values["residual_rms"]["stages.0.0"] == pytest.approx(out.square().mean().sqrt().item(), rel=1e-5)
    assert values["branch_lost"] == {"stages.0.0": pytest.approx(branch_lost(x, out - x).item())}  # 1.0 has two widths
    assert "attention_logit_max" not in values


def test_modules_that_are_not_there():
    model, _ = build()
    for blocks in (["transformer.h.7"], []):
        with pytest.raises(InputError, match="blocks"):
            find_blocks(model, blocks)
    with pytest.raises(InputError, match="has no GPT-2 blocks"):
        find_blocks(nn.Linear(2, 2), None)


def test_schedule_start_flush_and_close():
    model, optimizer = build()
    probe = Activations(model, optimizer, every=3, start=5)

    def steps(count):
        for _ in range(count):
            step(model, optimizer)

    steps(5)  # 5 .. 9
    assert [at for at, _ in probe.flush()] == [6, 9]
    assert probe.flush() == []
    steps(3)
    probe.close()
    steps(5)
    assert [at for at, _ in probe.flush()] == [12]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    probe = Activations(model, optimizer, every=Schedule(per_decade=1, last=5))
    steps(8)
    assert [at for at, _ in probe.flush()] == [0, 1, 5]


def test_no_hook_between_measured_steps():
    model, optimizer = build()
    Activations(model, optimizer, every=10, start=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_only_the_training_pass_and_the_first_micro_batch_count():
    model, optimizer = build()
    probe = Activations(model, optimizer, every=1)
    with torch.no_grad():
        model(TOKENS.flip(1))  # an evaluation
    copy.deepcopy(model)(TOKENS.flip(1))  # another probe's copy
    model.loss(*BATCH).backward()
    model.loss(TOKENS.flip(0).flip(1), TOKENS).backward()
    optimizer.step()
    ((_, values),) = probe.flush()
    assert values == measure(build()[0])


def test_copies_and_pickles_are_free_of_the_probe():
    model, optimizer = build()
    probe = Activations(model, optimizer, every=1)
    twin = copy.deepcopy(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (twin, loaded):
        hooks = [hook for m in other.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
        assert len(hooks) == 2 * 6
        assert all(isinstance(hook, Silent) for hook in hooks)  # no hold on the probe, its optimizer or the first model
        other.loss(*BATCH).backward()
    assert not probe._values


def test_activation_checkpointing_is_measured_once():
    model, optimizer = build()
    expected = measure(copy.deepcopy(model))
    for reentrant in (True, False):
        probe = Activations(model, optimizer, every=1)
        x = model.transformer.wte(TOKENS) + model.transformer.wpe.weight
        for block in model.transformer.h:
            x = checkpoint(block, x, use_reentrant=reentrant)
        x.sum().backward()
        optimizer.zero_grad()
        optimizer.step()
        ((_, values),) = probe.flush()
        probe.close()
        for quantity in expected:
            assert values[quantity] == pytest.approx(expected[quantity])


@pytest.mark.parametrize("context", ["plain", "autocast", "emulated"])
def test_training_with_the_probe_is_bitwise_training_without(context):
    noise = torch.Generator()
    contexts = {
        "plain": lambda: torch.autocast("cpu", enabled=False),
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "emulated": lambda: emulate(7, 8, "stochastic", noise),
    }
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(7)
        noise.manual_seed(7)
        model, optimizer = build(torch.optim.AdamW, dropout=0.1)
        probe = Activations(model, optimizer, every=2, bill=Bill()) if watched else None
        for at in range(7):
            with contexts[context]():
                if probe is not None and at == 4 and context != "emulated":  # there it would draw noise, too
                    probe.sample(lambda: model(TOKENS.flip(1)))  # noqa: B023
                loss = model.loss(*BATCH)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if probe is not None and at == 3:
                assert len(probe.flush()) == 2
        state = [*model.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values())]
        outcomes.append((state, torch.get_rng_state(), noise.get_state(), [m.training for m in model.modules()]))
    (plain, *rest), (probed, *probed_rest) = outcomes
    assert all(torch.equal(a, b) for a, b in zip(plain, probed, strict=True))
    assert torch.equal(rest[0], probed_rest[0])
    assert torch.equal(rest[1], probed_rest[1])
    assert rest[2] == probed_rest[2]


def test_values_are_measured_outside_autocast_and_emulation():
    model, _ = build()
    qkv = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0)) * 30
    exact = logit_max(model.transformer.h[0].attn, qkv).item()
    attn = model.transformer.h[0].attn
    probe = Activations(model, torch.optim.SGD(model.parameters(), lr=0.1), every=1)
    hook = Hook(probe, probe._scored, "b", attn)
    for context in (torch.autocast("cpu", dtype=torch.bfloat16), emulate(2, 5)):
        probe._values.clear()
        with context:
            hook(attn.c_attn, (), {}, qkv)
        assert probe._values["attention_logit_max", "b"].item() == exact


def test_a_compiled_model_is_left_alone_and_sampled():
    outcomes, losses = [], []
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(7)
        model, optimizer = build(torch.optim.AdamW, dropout=0.1)
        probe = Activations(model, optimizer, every=2, sampled=True) if watched else None
        compiled = torch.compile(model.loss, backend="aot_eager")
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for _ in range(4):
            if probe is not None:
                probe.sample(lambda: model(TOKENS))  # noqa: B023
            losses.append(compiled(*BATCH).item())
            compiled(*BATCH).backward()
            optimizer.step()
            optimizer.zero_grad()
        outcomes.append([*model.state_dict().values(), torch.get_rng_state()])
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
        assert graphs == 1  # hooks would make it two
        if probe is not None:
            assert [at for at, _ in probe.flush()] == [0, 2]
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert losses[:4] == losses[4:]


def test_a_sample_puts_buffers_back_and_uses_the_mode_as_it_is():
    model = ResNetConfig(width=4).build(seed=0)
    probe = Activations(model, torch.optim.SGD(model.parameters(), lr=0.1), every=1, blocks=["stages.0.0"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe.sample(lambda: model(torch.randn(8, 1, 8, 8)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(probe._values) == 3
    assert not model.stages[0][0]._forward_hooks
    probe.step = 1
    probe.schedule = Schedule(every=2)
    probe.sample(lambda: pytest.fail("not a measured step"))


def test_a_step_without_forward_pass_is_warned_of():
    _, optimizer = (pair := build())
    probe = Activations(*pair, every=1)
    optimizer.step()
    with pytest.warns(UserWarning, match="no forward pass of the blocks was seen at step 0"):
        assert probe.flush() == []


def test_memory_is_flat_over_fifty_calls():
    model, optimizer = build(torch.optim.AdamW)
    probe = Activations(model, optimizer, every=1)
    alive = []
    for at in range(50):
        step(model, optimizer)
        probe.flush()
        if at in (9, 49):
            gc.collect()
            alive.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
    assert alive[1] <= alive[0]


def test_the_bill_says_activations():
    bill = Bill()
    model, optimizer = build()
    probe = Activations(model, optimizer, every=1, bill=bill)
    step(model, optimizer)
    probe.flush()
    (item,) = bill.cost().items
    assert item.probe == "activations"
    assert item.calls == 2 + 2 * 6 + 2  # attaching for two steps, six hooks a block, the end of the step, the flush
