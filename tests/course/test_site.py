"""The static site: complete, with formulas and pictures, and without a request to any other host."""

import json
import re
import shutil

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.course.site import build, formulas

NAME = "09_gaze_attention"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TABLE = "<div><style scoped>.dataframe th {}</style><table class='dataframe'><tr><td>0.4321</td></tr></table></div>"
BADGE = "[![Open in Colab](https://colab.research.google.com/badge.svg)](https://colab.research.google.com/{}/x.ipynb)"
REQUEST = re.compile(
    r"""<(?:script|img|iframe)[^>]*src=["']?(?:https?:)?//|<link[^>]*rel=["']?(?:stylesheet|preconnect|preload)["']?[^>]*"""
    r"""href=["']?(?:https?:)?//|<link[^>]*href=["']?(?:https?:)?//[^>]*rel=["']?(?:stylesheet|preconnect)|@import|"""
    r"""url\(["']?(?:https?:)?//"""
)


@pytest.fixture
def root(tmp_path):
    """A repository with one executed notebook and one report."""
    show = new_output("display_data", {"image/png": PIXEL})
    table = new_output("execute_result", {"text/html": TABLE, "text/plain": "0.4321"}, execution_count=1)
    text = (
        "# 09 · Looking\n\n" + BADGE.format("OWNER/REPOSITORY") + "\n\nA curve $r(q) = a\\,q^2$ rises:\n\n$$ x < y $$"
    )
    cells = [
        new_markdown_cell(text),
        new_code_cell("remarkable = 1  # a comment", outputs=[show, table], execution_count=1),
        new_markdown_cell("## 1 · Evidence\nRead *it*."),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / f"notebooks/{NAME}.ipynb")
    (tmp_path / "reports/figures/x").mkdir(parents=True)
    shutil.copy(next((ROOT / "reports/figures").rglob("*.png")), tmp_path / "reports/figures/x/y.png")
    (tmp_path / "reports/gaze.md").write_text("# Gaze\n\n![seen](figures/x/y.png)\n")
    link = f"[09](../notebooks/{NAME}.ipynb#1-·-Evidence)"
    (tmp_path / "reports/README.md").write_text(f"# Figure by figure\n\n{link}, [gaze](gaze.md)\n")
    (tmp_path / "README.md").write_text(
        f"# Start\n\n{BADGE.format('github/me/mine')}\n\n[notebook](notebooks/{NAME}.ipynb), [licence](LICENSE)\n"
    )
    return tmp_path


@pytest.fixture
def site(root, tmp_path):
    build(root, tmp_path / "site", tmp_path / "source")
    return tmp_path / "site"


def test_everything_is_there(site):
    page = (site / f"notebooks/{NAME}.html").read_text()
    for piece in ("Looking", "Evidence", "<em>it</em>", "remarkable", "0.4321", "class='dataframe'"):
        assert piece in page
    assert "style scoped" not in page
    picture = re.search(rf'src="({NAME}/[^"]+\.png)"', page)[1]
    assert (site / "notebooks" / picture).read_bytes().startswith(b"\x89PNG")
    assert (site / "reports/figures/x/y.png").is_file()
    assert 'src="figures/x/y.png"' in (site / "reports/gaze.html").read_text()
    start = (site / "index.html").read_text()
    assert f'href="notebooks/{NAME}.html"' in start
    assert "licence" in start
    assert "LICENSE" not in start  # the site does not hold it


def test_the_comparison_leads_to_sections_of_notebooks(site):
    section = re.search(rf'href="../notebooks/{NAME}.html#([^"]+)"', (site / "reports/comparison.html").read_text())[1]
    assert f'id="{section}"' in (site / f"notebooks/{NAME}.html").read_text()


def test_a_section_that_is_not_there_is_refused(root, tmp_path):
    (root / "reports/README.md").write_text(f"[09](../notebooks/{NAME}.ipynb#2-·-Nothing)\n")
    with pytest.raises(ValueError, match="a link that leads nowhere"):
        build(root, tmp_path / "site", tmp_path / "source")


def test_no_page_asks_another_host(site):
    pages = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(pages) > 4
    assert [path.name for path in pages if REQUEST.search(path.read_text())] == []
    start, page = ((site / name).read_text() for name in ("index.html", f"notebooks/{NAME}.html"))
    assert 'href="https://colab.research.google.com/github/me/mine/x.ipynb"' in start  # a link stays
    assert "OWNER" not in page


def test_formulas_are_mathml(site):
    page = (site / f"notebooks/{NAME}.html").read_text()
    assert page.count("<math") == 2
    assert page.count('<span class="formula"><math') == 1  # in a line; where that is too narrow it scrolls by itself
    assert 'display="block"' in page
    assert "&#x0003C;" in page[page.index('display="block"') :][:400]
    assert "\\(" not in page
    assert "arithmatex" not in page


def test_a_formula_with_a_slip_is_shown_as_it_is_written():
    assert formulas(r'<span class="arithmatex">\(a_b_c\)</span>') == '<span class="formula"><code>a_b_c</code></span>'


def test_the_search_knows_texts_and_code(site):
    index = json.loads((site / "search/search_index.json").read_text())
    text = " ".join(entry["text"] for entry in index["docs"])
    assert "remarkable" in text
    assert "rises" in text


def test_a_link_that_leads_nowhere_is_refused(root, tmp_path):
    (root / "reports/gaze.md").write_text("[gone](gone.md)\n")
    with pytest.raises(ValueError, match="a link that leads nowhere"):
        build(root, tmp_path / "site", tmp_path / "source")
