"""Figures hold what they are given, with labels."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import plotting


@pytest.fixture(autouse=True)
def _style():
    plotting.use_style()


@pytest.mark.parametrize("size", [0.9, 1.35])
def test_names_of_rows_do_not_run_into_each_other(size):
    names = ("retina, nearest", "retina, centre", "smoothed, five views\nof it", "a")
    figure = plotting.image_grid({name: torch.rand(2, 3, 8, 8) for name in names}, size=size)
    figure.canvas.draw()
    labels = [axis.yaxis.label.get_window_extent() for axis in figure.axes[::2]]
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(labels))


def test_image_grid_shows_every_image_unchanged():
    images = torch.rand(3, 3, 5, 5)
    figure = plotting.image_grid({"clean": images, "dark": images / 2}, [["a", "b", "c"], ["", "", "d"]])
    axes = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes.flat] == ["a", "b", "c", "", "", "d"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["clean", "dark"]
    shown = np.stack([axis.images[0].get_array() for axis in axes[1]])
    np.testing.assert_allclose(shown, (images / 2).permute(0, 2, 3, 1).numpy())
    assert {axis.images[0].get_clim() for axis in axes.flat} == {(0, 1)}  # one scale: dark stays dark


def history(epochs=4):
    rising = np.linspace(0.1, 0.5, epochs)
    columns = {"train_top1": rising, "train_loss": 3 - rising, "val_top1": rising / 2, "val_loss": 4 - rising}
    columns |= {"noisy_top1": rising / 3, "noisy_loss": 5 - rising}
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | columns)


def test_curves_choose_the_validation_columns():
    data = history()
    accuracy, loss = plotting.curves({"one": data, "two": data}, {"one": "val", "two": "noisy"}).axes
    assert [line.get_label() for line in accuracy.lines] == [
        "one, training",
        "one, validation",
        "two, training",
        "two, validation",
    ]
    assert accuracy.lines[3].get_ydata() == pytest.approx(data.noisy_top1)
    assert loss.lines[1].get_ydata() == pytest.approx(data.val_loss)
    assert (accuracy.get_ylabel(), accuracy.get_xlabel(), loss.get_ylabel()) == (
        "accuracy",
        "epoch",
        "cross-entropy (nats)",
    )


def test_one_wild_epoch_does_not_flatten_the_loss():
    data = history(10)
    data.loc[0, "val_loss"] = 1_000.0
    assert plotting.curves({"one": data}).axes[1].get_ylim()[1] < 10


def test_lines_and_bands():
    frame = pd.DataFrame({"a": [0.5, 0.4], "b": [0.3, 0.2]}, index=[0.0, 0.1])
    axis = plotting.lines(frame, "variance", low=frame - 0.1, high=frame + 0.1, marks={"training": 0.05}).axes[0]
    assert [line.get_label() for line in axis.lines[:2]] == ["a", "b"]
    assert axis.lines[1].get_ydata().tolist() == [0.3, 0.2]
    assert len(axis.collections) == 2
    assert [text.get_text() for text in axis.texts] == ["training"]


def test_bars_write_their_values():
    frame = pd.DataFrame({"clean": [0.5, 0.4], "noisy": [0.3, 0.2]}, index=["a", "b"])
    axis = plotting.bars(frame, low=frame - 0.05, high=frame + 0.1).axes[0]
    assert [text.get_text() for text in axis.texts] == ["50.0%", "40.0%", "30.0%", "20.0%"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]
    whisker = (
        axis.containers[0].get_segments()[0]
        if hasattr(axis.containers[0], "get_segments")
        else axis.collections[0].get_segments()[0]
    )
    assert whisker[:, 1] == pytest.approx([0.45, 0.6])


def test_confusion_shows_shares_of_the_true_class():
    figure = plotting.confusion(np.array([[3, 1], [0, 2]]), ["a", "b"], "title")
    mesh = figure.axes[0].collections[0]
    assert mesh.get_array().flatten().tolist() == [0.75, 0.25, 0, 1]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b"]
    many = plotting.confusion(np.eye(40), [str(i) for i in range(40)]).axes[0]
    assert not many.get_xticklabels()


def test_figures_are_not_left_open():
    before = plt.get_fignums()
    plotting.lines(pd.DataFrame({"a": [1.0, 2.0]}), "x")
    assert plt.get_fignums() == before


def test_heat_maps_share_one_scale_in_units_of_their_mean():
    images = torch.rand(2, 3, 8, 8)
    maps = torch.ones(2, 8, 8)
    maps[1, 0, 0] = 100.0  # a faint map and one a hundred times as strong somewhere
    figure = plotting.heat_grid(
        {"model": (images, maps), "other": (images, 1000 * maps)}, [["a", "b"]] * 2, ["clean", "FGSM"]
    )
    heats = [[axis.images[1] for axis in figure.axes[row : row + 2]] for row in (0, 2)]
    assert {heat.get_clim() for row in heats for heat in row} == {(0.0, 4.0)}
    for one, other in zip(*heats, strict=True):
        assert np.allclose(one.get_array(), other.get_array())  # the unit of the score does not matter
    assert heats[0][0].get_array().mean() == pytest.approx(1)
    assert [axis.get_xlabel() for axis in figure.axes[:4]] == ["a", "b", "a", "b"]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["clean", "FGSM"]


def test_an_empty_heat_map_stays_dark():
    figure = plotting.heat_grid({"model": (torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8))})
    assert not figure.axes[0].images[1].get_array().any()


def test_verdicts_are_words_and_colours():
    frame = pd.DataFrame(
        {"one": ["pass", "fail"], "two": ["not run", "pass"], "three": ["too weak", "pass"]},
        index=["a model", "b, longer than a row"],
    )
    axis = plotting.verdicts(frame).axes[0]
    assert {label.get_rotation() for label in axis.get_yticklabels()} == {0}
    assert [text.get_text() for text in axis.texts] == ["pass", "not run", "too weak", "fail", "pass", "pass"]
    shades = axis.collections[0].get_facecolors()
    assert np.allclose(shades[0], shades[4])
    assert np.allclose(shades[1], shades[2])  # neither says anything about the model
    assert len({tuple(shade) for shade in shades}) == 3


def test_bars_of_other_units_are_no_percentages():
    figure = plotting.bars(pd.DataFrame({"rise": [2.5]}, index=["model"]), "nats", percent=False)
    assert [text.get_text() for text in figure.axes[0].texts] == ["2.5"]


def test_a_long_legend_leaves_the_lines_free():
    for count, inside in ((4, True), (5, False)):
        figure = plotting.lines(pd.DataFrame({f"model {i}": [0.1, 0.2] for i in range(count)}), "epoch")
        assert (figure.axes[0].get_legend() is not None) == inside
        assert len(figure.legends) == (not inside)


def test_percent_ticks_say_where_they_stand():
    frame = pd.DataFrame({"a": [0.0, 0.184], "b": [0.01, 0.06]}, index=[1, 2])
    for figure in (plotting.lines(frame, "epoch"), plotting.bars(frame, "accuracy")):
        axis = figure.axes[0]
        figure.canvas.draw()
        for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True):
            assert float(label.get_text().rstrip("%")) == pytest.approx(100 * place)


def test_curves_have_an_axis_for_each_accuracy():
    data = pd.DataFrame({"epoch": [1, 2], "train_top1": [0.1, 0.2], "val_top1": [0.1, 0.3], "train_top5": [0.4, 0.5],
                         "val_top5": [0.4, 0.6], "train_loss": [2, 1.0], "val_loss": [2, 1.5]})  # fmt: skip
    axes = plotting.curves({"one": data}, accuracies={"top1": "Top-1", "top5": "Top-5"}).axes
    assert [axis.get_title() for axis in axes] == ["Top-1", "Top-5", "Loss"]
    assert axes[1].lines[1].get_ydata().tolist() == [0.4, 0.6]


def test_many_bars_leave_the_percent_sign_to_the_axis():
    many = pd.DataFrame(0.5, index=[f"row {n}" for n in range(6)], columns=list("abcde"))
    assert {text.get_text() for text in plotting.bars(many).axes[0].texts} == {"50"}
    assert {text.get_text() for text in plotting.bars(many[:2]).axes[0].texts} == {"50%"}
