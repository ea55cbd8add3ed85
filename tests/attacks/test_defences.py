"""TRADES is the paper's loss, `fit` trains by it, and finished models are loaded, not trained again."""

import pytest
import torch
import torch.nn.functional as F
from conftest import small_net, toy_set

from helpers.attacks import FGSM, PGD, least_likely
from helpers.attacks.accuracy import predict
from helpers.attacks.defences import TRADES, Mixed, divergence
from helpers.data import Batches
from helpers.training import fit
from helpers.training.checkpoints import weights_checksum

EPS = 8 / 255


def batch():
    return next(iter(Batches(toy_set(24), 24)))


def sure_net():
    """A network whose answers differ from image to image."""
    model = small_net().eval()
    with torch.no_grad():
        model[-1].weight *= 300
    return model


def pgd(model, **options):
    return PGD(model, EPS, EPS / 2, 3, generator=torch.Generator().manual_seed(0), **options)


def test_trades_is_cross_entropy_and_beta_times_the_divergence():
    model, (images, labels) = sure_net(), batch()
    loss, logits = TRADES(pgd(model), beta=3.0)(model, images, labels)
    answer = predict(model, images).log_softmax(1)
    adv_images = pgd(model, loss=lambda z, _: divergence(z, answer))(images, labels)
    clean, attacked = model(images).softmax(1), model(adv_images).softmax(1)
    by_hand = (clean * (clean.log() - attacked.log())).sum(1).mean()
    assert loss.item() == pytest.approx(F.cross_entropy(model(images), labels).item() + 3 * by_hand.item(), rel=1e-4)
    assert torch.allclose(logits, model(adv_images), atol=1e-5)
    assert by_hand > 0.01  # the attack found something


def test_trades_gradient_reaches_both_terms():
    model, (images, labels) = sure_net(), batch()
    sizes = []
    for beta in (0.0, 6.0):
        loss, _ = TRADES(pgd(model), beta=beta)(model, images, labels)
        sizes.append(torch.autograd.grad(loss, model[-1].weight)[0].clone())
    alone = torch.autograd.grad(F.cross_entropy(model(images), labels), model[-1].weight)[0]
    assert torch.allclose(sizes[0], alone, atol=1e-5)
    assert not torch.allclose(sizes[1], alone, atol=1e-3)


def test_trades_sees_no_label():
    """The attacked images are the same whatever the labels say."""
    model, (images, labels) = sure_net(), batch()
    one, other = (TRADES(pgd(model))(model, images, y)[1] for y in (labels, (labels + 1) % 20))
    assert torch.equal(one, other)


def test_trades_keeps_the_mode_of_the_model():
    model, (images, labels) = small_net().train(), batch()
    model[1].eval()  # a frozen BatchNorm
    modes = [module.training for module in model.modules()]
    TRADES(pgd(model))(model, images, labels)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("attack", [FGSM, lambda model: PGD(model, target=least_likely)])
def test_trades_refuses_an_attack_that_cannot_work(attack):
    with pytest.raises(ValueError, match="random start"):
        TRADES(attack(small_net()))


@pytest.mark.trains
def test_fit_lowers_the_objective_and_counts_its_logits():
    model, seen = small_net(), []

    def objective(model, images, labels):
        seen.append(model.training)
        logits = model(images)
        return F.cross_entropy(
            logits, (labels + 1) % 20
        ), logits  # learns wrong labels, so that no other loss explains it

    data = toy_set(96)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = fit(model, Batches(data, 32, shuffle=True), epochs=30, optimizer=optimizer, objective=objective)
    images, labels = next(iter(Batches(data, 96)))
    assert (predict(model, images).argmax(1) == (labels + 1) % 20).float().mean() > 0.3
    assert history.train_top1.iloc[-1] < 0.1
    assert all(seen)


def test_fit_refuses_an_attack_beside_an_objective():
    model = small_net()
    options = {
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "attack": pgd(model),
        "objective": TRADES(pgd(model)),
    }
    with pytest.raises(ValueError, match="not both"):
        fit(model, Batches(toy_set(), 32), epochs=1, **options)


@pytest.mark.trains
def test_another_objective_is_another_training(tmp_path):
    trained = []
    for beta in (1.0, 2.0, 1.0):
        model = small_net()
        options = {
            "optimizer": torch.optim.SGD(model.parameters(), 0.1),
            "objective": TRADES(PGD(model, steps=1), beta),
        }
        fit(model, Batches(toy_set(40), 20), epochs=1, folder=tmp_path / "run", **options)
        trained.append(weights_checksum(model))
    assert trained[0] == trained[2] != trained[1]
    assert {path.name for path in tmp_path.glob("run*")} == {"run", "run-2"}


def learnt(folder, lr):
    """The same start, images and attack, and a learning rate; the model, its history, and whether it was trained."""
    model, steps = small_net(), []
    sgd = torch.optim.SGD(model.parameters(), lr)
    sgd.register_step_post_hook(lambda *_: steps.append(1))
    batches = Batches(toy_set(40), 20)
    history = fit(model, batches, epochs=1, optimizer=sgd, attack=FGSM(model, EPS), folder=folder)
    return model, history, bool(steps)


@pytest.mark.trains
def test_a_finished_defence_is_loaded_only_for_the_settings_it_had(capsys, tmp_path):
    first, told, trained = learnt(tmp_path / "net", 0.01)
    assert trained
    again, told_again, trained = learnt(tmp_path / "net", 0.01)
    assert not trained
    assert weights_checksum(again) == weights_checksum(first)
    assert told_again.to_json() == told.to_json()
    assert capsys.readouterr().out == ""
    other, _, trained = learnt(tmp_path / "net", 1.0)
    assert trained
    assert weights_checksum(other) != weights_checksum(first)
    assert "so net-2 is used: optimizer.SGD.lr 0.01 there, 1.0 now" in capsys.readouterr().out


def test_mixed_attacks_its_share_of_the_batch_and_leaves_the_rest():
    model, (images, labels) = sure_net(), batch()
    attack = FGSM(model, EPS)
    mixed = Mixed(attack, 0.25)(images, labels)
    assert torch.equal(mixed[:6], attack(images[:6], labels[:6]))
    assert torch.equal(mixed[6:], images[6:])
    assert torch.equal(Mixed(attack, 0)(images, labels), images)
    assert torch.equal(Mixed(attack, 1.0)(images, labels), attack(images, labels))


def test_mixed_refuses_a_share_that_is_none():
    with pytest.raises(ValueError, match="share"):
        Mixed(FGSM(sure_net()), 1.5)


@pytest.mark.trains
def test_fit_counts_top5():
    torch.manual_seed(0)
    data, model = toy_set(40), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    history = fit(model, Batches(data, 10), Batches(data, 16), epochs=1, optimizer=optimizer, topk=(1, 5),
                  val_attack=FGSM(model, 1e-6))  # fmt: skip
    logits = model(data.images.float() / 255)
    places = (logits > logits.gather(1, data.labels[:, None])).sum(1)  # how many classes are thought likelier
    for column, below in (("top1", 1), ("top5", 5)):
        share = (places < below).float().mean().item()
        assert history[f"train_{column}"].item() == pytest.approx(share)
        assert history[f"val_{column}"].item() == pytest.approx(share)
    assert history.val_top1.item() < history.val_top5.item() <= 1
    assert {"val_adv_top1", "val_adv_top5"} <= set(history)
