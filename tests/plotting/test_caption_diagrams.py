"""Figures of captions: what stands in them, and where."""

from itertools import pairwise

import pandas as pd
import pytest
import torch

from helpers.captions.decoder import CaptionDecoder
from helpers.captions.encoder import load_encoder
from helpers.plotting.caption_diagrams import _lines, beam_tree, caption_cards, captioner_diagram, word_tiles
from helpers.plotting.captions import persian


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_the_diagram_counts_what_is_there():
    decoder = CaptionDecoder(40, 64, embed_dim=12, hidden_dim=16)
    said = texts(captioner_diagram(decoder, load_encoder("toy"), "toy", (16, 64)))
    assert f"{sum(p.numel() for p in decoder.cell.parameters()):,}" in said
    total = sum(p.numel() for p in decoder.parameters())
    assert any(f"{total:,} trained parameters" in line for line in said)
    shown = [int(line.replace(",", "")) for line in said if line.replace(",", "").isdigit()]
    encoder = sum(p.numel() for p in load_encoder("toy").parameters())
    assert sum(shown) == total + encoder  # every parameter stands below one box


NODES = pd.DataFrame(
    [(0, -1, "یک", -1.0, "best"), (0, -1, "دو", -2.0, "kept"), (1, 0, "سگ", -1.5, "best"), (1, 1, "پسر", -2.5, "cut")],
    columns=["step", "parent", "word", "log_prob", "kind"],
)


def test_the_tree_goes_from_right_to_left_and_the_best_is_on_top():
    axis = beam_tree(NODES).axes[0]
    at = {text.get_text().split("\n")[0]: text.get_position() for text in axis.texts}
    assert at["<sos>"][0] > at[persian("یک")][0] > at[persian("سگ")][0]
    assert at[persian("یک")][1] > at[persian("دو")][1]
    line = next(line for line in axis.lines if len(line.get_xdata()) and line.get_linestyle() == ":")
    assert (line.get_xdata()[0], line.get_ydata()[0]) == at[persian("دو")]  # from its parent


def test_tiles_share_one_scale():
    looks = torch.zeros(3, 2, 2)
    looks[0, 0, 0], looks[1:] = 1, 0.25
    figure = word_tiles(torch.rand(3, 8, 8), ["یک", "سگ", "است"], looks, columns=2)
    limits = {image.get_clim() for axis in figure.axes[:4] for image in axis.images[1:]}
    assert limits == {(0, 4)}  # all on one of four regions: four times an even spread
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == [persian("یک"), "", persian("است"), persian("سگ")]  # from the right


def test_cards_name_whose_caption_it_is():
    of = {"reference 1": "یک سگ", "greedy": "دو سگ " * 20}
    figure = caption_cards([torch.rand(3, 8, 8)] * 3, [of] * 3)
    said = texts(figure)
    assert said.count("greedy") == said.count(persian("یک سگ")) == 3
    colours = {text.get_text(): text.get_color() for axis in figure.axes for text in axis.texts}
    assert colours["reference 1"] != colours["greedy"]


@pytest.mark.parametrize(("text", "lines"), [("", 1), ("یک سگ", 1), ("سگ " * 31, 3)])
def test_lines_are_cut_between_words(text, lines):
    found = _lines(text)
    assert len(found) == lines
    assert " ".join(found) == text.strip()
    assert max(map(len, found)) <= 44


def test_no_line_of_a_card_covers_another():
    many = {f"caption {n}": "کلمه " * 30 for n in range(6)}
    figure = caption_cards([torch.rand(3, 8, 8)] * 2, [many, {"one": "کلمه"}], size=1.0)
    figure.draw_without_rendering()
    axis = figure.axes[1]
    heights = sorted(axis.transData.transform((0, text.get_position()[1]))[1] for text in axis.texts)
    apart = [above - below for below, above in pairwise(heights)]
    assert min(apart) > figure.dpi * 8 / 72  # the letters' size, in points
