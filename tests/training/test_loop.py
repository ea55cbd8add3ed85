"""Training learns, resumes to the same weights, stops clearly on trouble, and changes nothing it should not."""

import inspect
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import small_net, toy_set
from killed_training import train as train_resumable
from torch import nn
from two_processes import plain_net

from helpers.contract import eval_mode
from helpers.data import Batches, ImageSet, load
from helpers.training import Evaluation, evaluate, fit
from helpers.training.checkpoints import (
    CheckpointError,
    TrainingFolder,
    load_weights,
    save_weights,
    saved_run,
    weights_checksum,
)

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "killed_training.py"


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr)


def quick(model=None, epochs=1, **options):
    """A short training on the toy world; returns the model and its history."""
    model = model or small_net()
    options = {"optimizer": sgd(model), "val": Batches(toy_set(40, seed=1), 40), **options}
    return model, fit(model, Batches(toy_set(96), 32, shuffle=True), epochs=epochs, **options)


def run_script(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.mark.trains
def test_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(tmp_path):
    straight = run_script(tmp_path / "straight")
    assert straight.returncode == 0, straight.stderr
    for kill_at in (13, 8):  # steps of ten an epoch: in the second epoch, then again in the second after resuming
        killed = run_script(tmp_path / "killed", kill_at)
        assert killed.returncode == -signal.SIGKILL
    resumed = run_script(tmp_path / "killed")
    assert resumed.stdout == straight.stdout
    assert len(json.loads(straight.stdout.split(maxsplit=1)[1])["epoch"]) == 4


@pytest.mark.trains
def test_resuming_a_finished_training_runs_nothing(tmp_path):
    first, history = train_resumable(tmp_path / "done")
    again, read = train_resumable(tmp_path / "done", kill_at=0)  # would kill this process at its first step
    assert weights_checksum(first) == weights_checksum(again)
    assert history.to_json() == read.to_json()


@pytest.mark.trains
def test_two_processes_train_as_one(tmp_path):
    found = {}
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        script = TESTS / "two_processes.py"
        done = subprocess.run(
            [sys.executable, script, tmp_path / number, number], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        for rank in range(int(number)):
            model = load_weights(plain_net(), tmp_path / number / f"rank{rank}.safetensors")
            found[number, rank] = model, json.loads((tmp_path / number / f"rank{rank}.json").read_text())
    (one, history), (first, seen), (second, other) = found.values()
    assert weights_checksum(first) == weights_checksum(second)
    assert weights_checksum(first) != weights_checksum(plain_net())
    assert seen == other
    for a, b in zip(one.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for column in ("train_loss", "val_loss", "train_top1", "val_top1"):
        assert list(seen[column].values()) == pytest.approx(list(history[column].values()), rel=1e-4)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def best_of(folder):
    return weights_checksum(load_weights(small_net(), folder / "best.safetensors"))


@pytest.mark.trains
def test_other_settings_train_anew_in_another_folder(tmp_path, capsys):
    asked, rates = tmp_path / "run", (0.05, 5.0, 0.01)
    first, _ = quick(folder=asked)
    before = files(asked)
    assert capsys.readouterr().out == ""
    trained = [weights_checksum(first)]
    for number, lr in enumerate(rates[1:], 2):
        model = small_net()
        quick(model, optimizer=sgd(model, lr), folder=asked)
        said = f"run was trained with other settings, so run-{number} is used: optimizer.SGD.lr 0.05 there, {lr} now\n"
        assert capsys.readouterr().out == said
        assert weights_checksum(model) == best_of(asked) != trained[0]  # asked for by the same name
        trained.append(weights_checksum(model))
    assert files(asked) == before
    for lr, weights in zip(rates, trained, strict=True):  # each is found again, and is not trained again
        model = small_net()
        quick(model, optimizer=sgd(model, lr), loss=never_called(F.cross_entropy), folder=asked)
        assert weights_checksum(model) == best_of(asked) == weights


@pytest.mark.trains
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rates": (0.05, 0.2)}, "groups.lr 0.05 0.1 there, 0.05 0.2 now"),
        ({"decay": 0.1}, "groups.weight_decay 0 0.01 there, 0 0.1 now"),
        ({"peaks": (0.05, 0.3)}, "groups.lr 0.05 0.1 there, 0.05 0.3 now"),
    ],
)
def test_other_rates_of_a_group_are_other_settings(tmp_path, capsys, asked, said):
    def train(rates=(0.05, 0.1), decay=0.01, peaks=None):
        model = small_net()
        *body, head = model.parameters()
        groups = [{"params": body, "lr": rates[0]}, {"params": [head], "lr": rates[1], "weight_decay": decay}]
        optimizer = torch.optim.SGD(groups)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, list(peaks or rates), 10)
        quick(model, optimizer=optimizer, scheduler=cycle, folder=tmp_path / "run")
        return weights_checksum(model), capsys.readouterr().out

    first, _ = train()
    assert train() == (first, "")
    weights, line = train(**asked)
    assert weights != first
    assert f"so run-2 is used: {said}" in line


def never_called(loss):
    def wrapped(*_):
        raise AssertionError("trained again")

    wrapped.__qualname__ = loss.__qualname__  # the settings name it
    return wrapped


@pytest.mark.trains
def test_another_start_is_another_training(tmp_path, capsys):
    quick(folder=tmp_path / "run")
    quick(small_net(seed=1), folder=tmp_path / "run")
    assert "so run-2 is used: start " in capsys.readouterr().out


@pytest.mark.trains
def test_a_training_keeps_its_weights_when_another_of_its_name_begins_meanwhile(tmp_path):
    class Beginning(torch.optim.SGD):
        """In its second epoch another training with the same name, but other settings, runs from start to end."""

        steps = 0

        def step(self, closure=None):
            Beginning.steps += 1
            if Beginning.steps == 4:
                quick(epochs=1, folder=tmp_path / "run")
            return super().step(closure)

    model = small_net()
    quick(model, epochs=2, monitor="epoch", optimizer=Beginning(model.parameters(), lr=0.05), folder=tmp_path / "run")
    assert weights_checksum(model) == best_of(tmp_path / "run")


@pytest.mark.trains
def test_what_a_state_says_of_its_machine(tmp_path):
    quick(folder=tmp_path / "run")
    TrainingFolder(tmp_path / "other", {}).save(1, small_net(), {}, [], best=True)
    for name in ("run", "other"):
        here = {"device": "cpu", "threads": torch.get_num_threads(), "processes": 1}
        assert saved_run(tmp_path / name)["ran"] == here


@pytest.mark.trains
def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    class Rising(nn.Module):
        """Answers class `w`; the optimiser below lets w run 1, 2, 3: right for the images only in the middle."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, images):
            return -((torch.arange(4.0) - self.w) ** 2).expand(len(images), 4) + 0 * self.w

    data = ImageSet(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.full((4,), 2), ("a", "b", "c", "d"))
    model = Rising()
    step = torch.optim.SGD(model.parameters(), lr=1.0)
    history = fit(model, Batches(data, 4), Batches(data, 4), epochs=3, optimizer=step, folder=tmp_path / "run",
                  loss=lambda logits, labels: -model.w + 0 * logits.sum())  # fmt: skip
    assert history.val_top1.tolist() == [0, 1, 0]
    assert load_weights(Rising(), tmp_path / "run" / "best.safetensors").w == 2
    assert model.w == 3


@pytest.mark.trains
def test_a_small_cnn_learns_the_toy_world():
    """Above 80 % on 100 classes after five passes; bench/training.py measures in what time."""
    model = small_net(classes=100)
    train = Batches(load("toy", "train"), 64, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=5 * len(train))
    fit(model, train, epochs=5, optimizer=optimizer, scheduler=schedule)
    assert evaluate(model, Batches(load("toy", "test"), 500)).top1 > 0.8


@pytest.mark.trains
def test_step_equals_plain_pytorch():
    """One epoch of `fit` is one epoch of the loop everybody writes."""
    model, twin = small_net(), small_net()
    for net in (model, twin):
        net[-2].p = 0.0  # dropout draws from generators that are seeded differently
    train = Batches(toy_set(96), 32, shuffle=True, seed=2)
    optimizer, other = torch.optim.Adam(model.parameters(), lr=1e-3), torch.optim.Adam(twin.parameters(), lr=1e-3)
    history = fit(model, train, epochs=2, optimizer=optimizer, max_norm=0.5)
    losses = []
    for number in range(2):
        for images, labels in train.epoch(number):
            loss = F.cross_entropy(twin(images), labels)
            other.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
            other.step()
            losses.append(loss.item())
    assert weights_checksum(model) == weights_checksum(twin)
    assert history.train_loss.tolist() == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])


@pytest.mark.trains
def test_attack_replaces_the_training_images_and_is_measured():
    seen = []

    def darken(images, labels):
        seen.append(labels)
        return images * 0

    model, history = quick(attack=darken, val_attack=darken)
    assert sum(map(len, seen)) == 96 + 40
    blank = model.eval()(torch.zeros(1, 3, 16, 16)).argmax()
    val = toy_set(40, seed=1)
    assert history.val_adv_top1.tolist() == pytest.approx([(val.labels == blank).float().mean().item()])
    clean = evaluate(model, Batches(val, 40))
    assert history.val_top1.tolist() == pytest.approx([clean.top1])


@pytest.mark.trains
def test_several_validation_sets():
    names = {"val": Batches(toy_set(40, seed=1), 40), "other": Batches(toy_set(60, seed=2), 40)}
    model, history = quick(val=names, monitor="other_top1")
    for name, batches in names.items():
        assert history[f"{name}_loss"].item() == pytest.approx(evaluate(model, batches).loss)
    with pytest.raises(ValueError, match="monitor='top1' is no column of the history: .*other_top1"):
        quick(val=names, monitor="top1")


def test_evaluate_equals_by_hand_and_keeps_every_mode():
    model, data = small_net(), toy_set(50)
    model[1].eval()  # one frozen BatchNorm
    before = [module.training for module in model.modules()]
    result = evaluate(model, Batches(data, 32))
    assert [module.training for module in model.modules()] == before
    expected = model.eval()(data.images / 255)
    assert torch.allclose(result.logits, expected, atol=1e-5)
    assert result.loss == pytest.approx(F.cross_entropy(expected, data.labels).item(), rel=1e-5)
    assert result.top1 == pytest.approx((expected.argmax(1) == data.labels).float().mean().item())


def test_eval_mode_is_restored_after_an_error():
    model = small_net()
    model[1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == before


@pytest.mark.trains
def test_fit_leaves_the_global_generator_alone():
    model = small_net()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    quick(model)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.trains
def test_nan_stops_the_training_and_keeps_the_last_good_state(tmp_path):
    calls = []

    def loss(logits, labels):
        calls.append(1)
        return F.cross_entropy(logits, labels) * (float("nan") if len(calls) > 3 + 2 else 1)  # in the second epoch

    with pytest.raises(FloatingPointError, match="NaN or infinite at epoch 2.*lower the learning rate"):
        quick(epochs=3, loss=loss, folder=tmp_path / "run")
    assert [path.name for path in sorted((tmp_path / "run").glob("epoch*"))] == ["epoch_0001"]
    assert all(
        value.isfinite().all()
        for value in load_weights(small_net(), tmp_path / "run/epoch_0001/model.safetensors").parameters()
    )


def test_model_with_too_few_outputs():
    with pytest.raises(ValueError, match=r"returns \(1, 10\), but toy-coarse has 20 classes"):
        quick(small_net(classes=10))


FULL_DISK = """
import resource, signal, sys
sys.path[:0] = sys.argv[2:]
from test_loop import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
quick(folder=sys.argv[1])  # the first epoch fits on the disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may grow past 20 kB any more: write() fails
model = small_net()
try:
    TrainingFolder(sys.argv[1], saved_run(Path(sys.argv[1]))["settings"]).save(2, model, {}, [], best=True)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.trains
def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "run", TESTS, TESTS / "training"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "cannot write best.safetensors (File too large): free some space" in done.stdout, done.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.safetensors", "epoch_0001"]
    model, _ = quick(folder=tmp_path / "run")  # and it can be read
    assert weights_checksum(model) == weights_checksum(load_weights(small_net(), tmp_path / "run" / "best.safetensors"))


def test_weights_round_trip_and_complaints(tmp_path):
    model, other = small_net(seed=1), small_net(seed=2)
    save_weights(model, tmp_path / "w.safetensors")
    assert weights_checksum(load_weights(other, tmp_path / "w.safetensors")) == weights_checksum(model)
    with pytest.raises(CheckpointError, match="no weights at .*run the notebook that trains them first"):
        load_weights(model, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        load_weights(small_net(classes=3), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(model, tmp_path / "w.safetensors")


def test_evaluation_counts():
    result = Evaluation(torch.eye(4), torch.tensor([0, 1, 2, 0]), 0.0)
    assert result.correct.tolist() == [True, True, True, False]
    assert result.top1 == 0.75


class Attending(nn.Module):
    """Attention over the rows of an image, and a note of which kernels each call might use."""

    def __init__(self):
        super().__init__()
        self.head, self.allowed = nn.Linear(16, 20), []

    def forward(self, images):
        self.allowed.append((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()))
        rows = images.mean(1, keepdim=True)
        return self.head(F.scaled_dot_product_attention(rows, rows, rows).mean((1, 2)))


@pytest.mark.trains
def test_in_bf16_a_cpu_learns_with_plain_attention():
    for precision, allowed in (("bf16", (False, True)), ("no", (True, True))):
        model, _ = quick(Attending(), precision=precision)
        assert set(model.allowed) == {allowed}
        model(torch.rand(2, 3, 16, 16))
        assert model.allowed[-1] == (True, True)  # afterwards as before


@pytest.mark.trains
def test_each_training_in_a_process_has_its_own_precision():
    seen = []

    def losses(precision):
        model = small_net(20)
        model[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
        _, history = quick(model, precision=precision)
        dtypes = set(seen)
        seen.clear()
        return history.train_loss[0], dtypes

    full, dtypes = losses("no")
    assert dtypes == {torch.float32}
    half, dtypes = losses("bf16")
    assert torch.bfloat16 in dtypes
    assert half == pytest.approx(full, rel=0.05)
    assert losses("no") == (full, {torch.float32})


def test_the_signature_names_every_option():
    options = "epochs optimizer scheduler loss attack val_attack objective max_norm folder monitor topk precision"
    assert list(inspect.signature(fit).parameters) == f"model train val {options} description".split()
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        quick(epoch=1)


@pytest.mark.trains
def test_a_folder_written_by_an_earlier_version_goes_on(tmp_path):
    """Keys and values of `run.json` and the state's `scaler` as they were written when Accelerate scaled the loss."""
    model, data = small_net(), toy_set(96)
    rates = {"lr": "0.05", "momentum": "0", "dampening": "0", "weight_decay": "0", "nesterov": "False"}
    rates |= {"maximize": "False", "differentiable": "False"}
    train = {"data": data.describe(), "batch_size": 32, "shuffle": True, "seed": 0, "transforms": []}
    settings = {"model": "Sequential", "start": weights_checksum(model), "epochs": 2, "train": train}
    settings |= {"optimizer": {"SGD": rates}, "scheduler": {"NoneType": {}}, "loss": "cross_entropy", "attack": "None"}
    settings |= {"max_norm": None, "monitor": "val_top1", "precision": "no", "topk": [1, 5]}
    row = {"epoch": 1, "lr": 0.05, "train_loss": 2.5, "train_top1": 0.25, "train_top5": 0.5, "seconds": 3.5}
    row |= {"val_loss": 2.75, "val_top1": 0.125, "val_top5": 0.25}
    state = {"optimizer": sgd(model).state_dict(), "scheduler": None, "scaler": None}
    TrainingFolder(tmp_path / "run", settings).save(1, model, state, [row], True, {"device": "cpu", "threads": 1})
    _, history = quick(model, epochs=2, topk=(1, 5), folder=tmp_path / "run")
    assert history.iloc[0].to_dict() == row
    assert list(history.columns) == list(row)
    ((run),) = (tmp_path / "run").glob("epoch_0002/run.json")
    assert json.loads(run.read_text())["settings"] == settings
    assert set(json.loads(run.read_text())["ran"]) == {"device", "threads", "processes"}


def large_loss(stop=None):
    """Too large for fp16 at the scaler's first scale, so that this has to find its own; stops at call number `stop`."""
    calls = itertools.count()

    def loss(logits, labels):
        if next(calls) == stop:
            raise KeyboardInterrupt
        return F.cross_entropy(logits, labels) * 8

    return loss


@pytest.mark.trains
def test_fp16_finds_its_scale_and_a_resumed_training_keeps_it(tmp_path):
    def train(name, stop=None):
        model = small_net(20)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=20)
        return quick(model, epochs=2, precision="fp16", loss=large_loss(stop), folder=tmp_path / name,
                     optimizer=optimizer, scheduler=scheduler)  # fmt: skip

    straight, _ = train("straight")
    with pytest.raises(KeyboardInterrupt):
        train("resumed", stop=5)  # three steps and a look at `val` an epoch: the second step of the second
    resumed, _ = train("resumed")
    assert weights_checksum(resumed) == weights_checksum(straight) != weights_checksum(small_net(20))
    state = torch.load(tmp_path / "resumed/epoch_0002/state.pt", weights_only=True)
    skipped = int(torch.tensor(65_536 / state["scaler"]["scale"]).log2())  # each halves the scale
    assert 0 < skipped < 6
    assert state["scheduler"]["last_epoch"] == 6 - skipped


@pytest.mark.trains
def test_the_model_computes_in_float32_again_after_an_error():
    model = small_net(20)
    with pytest.raises(KeyboardInterrupt):
        quick(model, precision="bf16", loss=large_loss(stop=1))
    assert "forward" not in vars(model)
    with pytest.raises(ValueError, match="precision must be 'no', 'fp16' or 'bf16', got 'half'"):
        quick(precision="half")
