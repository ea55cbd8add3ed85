"""Results files to README, reports and pages to read offline: numbers come from files.

`python -m helpers.course.reports readme` and `... report` rewrite what is generated.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from .code_hash import notebook_hash
from .colab import GITHUB, repository
from .comparison import VERDICTS, comparison
from .run import PROFILES, project_root, read_results


class Part(NamedTuple):
    """One notebook: the question it answers, and the assignment it belongs to."""

    question: str
    assignment: str


ROBUST, ZERO_SHOT, SCENES, GAZE = "robustness_and_captions", "clip_and_leaves", "scenes", "gaze"
PARTS = {
    "01_noisy_resnet": Part(
        "What does Gaussian noise in the training images cost a ResNet-18, and what does it buy?", ROBUST
    ),
    "02_vit_transfer": Part("What does pre-training give a ViT on 1,020 flowers?", ROBUST),
    "03_attacks_and_defense": Part(
        "Do FGSM and PGD break the four models, and is the defended robustness real?", ROBUST
    ),
    "04_grad_cam": Part("Where do the models look, before and under attack?", ROBUST),
    "05_clip_tecoa": Part("Which adaptation makes CLIP stand transfer and white-box attacks?", ZERO_SHOT),
    "06_custom_conv": Part(
        "Convolution by hand: is it right, what does it cost, and what do SimpleNet and its rivals reach?", SCENES
    ),
    "07_persian_captioning": Part(
        "Does an attention LSTM describe photographs in Persian, and does it look at them?", ROBUST
    ),
    "08_leaf_disease": Part("ViT or Inception-V3 for sick tomato leaves?", ZERO_SHOT),
    "09_gaze_attention": Part("Do retinal sampling and several gazes make a network robust?", GAZE),
}
TITLES = {
    ROBUST: "Robustness of ResNet and ViT, and Persian captions",
    ZERO_SHOT: "Robust zero-shot classification, and leaf disease",
    SCENES: "Convolution by hand, scenes, attacks",
    GAZE: "Gaze and attention against adversaries",
}


def notebook_rows(root: Path | None = None) -> list[dict[str, str]]:
    """A row a notebook for the README's table; what was not run says so."""
    root = root or project_root()
    return [_row(name, part, root) for name, part in PARTS.items()]


def _row(name: str, part: Part, root: Path) -> dict[str, str]:
    exists = (root / "notebooks" / f"{name}.ipynb").is_file()
    runs = {profile: read_results(name, profile, root) for profile in PROFILES} if exists else {}
    best = runs.get("full") or runs.get("lite")
    headline = (
        f"{best['headline']} ({best['profile']}, {best['device']})"
        if best
        else "not run"
        if exists
        else "not written yet"
    )
    minutes = " / ".join(_minutes(runs.get(profile)) for profile in PROFILES)
    return {
        "name": name,
        "question": part.question,
        "exists": exists,
        "minutes": minutes if exists else "",
        "headline": headline,
    }


def _minutes(result: dict[str, Any] | None) -> str:
    if result is None:
        return "not run"
    minutes = result["seconds"] / 60
    return f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"


def _render(template: str, **values: Any) -> str:
    """Fill in one of the templates of `helpers/course/templates`; a name it does not know is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("helpers.course"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(number=_cell, **values)


def _cell(value: Any) -> str:
    """A table cell as text; None (NaN in the run) as a dash."""
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def readme(root: Path | None = None) -> str:
    """README.md with its generated table made anew."""
    root = root or project_root()
    text = (root / "README.md").read_text()
    table = _render("readme.md.j2", rows=notebook_rows(root), repository=repository(root).removeprefix(GITHUB))
    return re.sub(r"(?s)(<!-- notebooks -->\n).*?(<!-- /notebooks -->)", lambda m: m[1] + table + m[2], text)


def report(assignment: str, root: Path | None = None) -> str | None:
    """One assignment's report as Markdown: captions above tables, below figures. None if nothing of it was run."""
    found = [
        read_results(name, "full", root) or read_results(name, "lite", root)
        for name, part in PARTS.items()
        if part.assignment == assignment
    ]
    results = [result for result in found if result]
    return _render("report.md.j2", title=TITLES[assignment], results=results) if results else None


def compared(root: Path | None = None) -> str:
    """`reports/README.md`: the figures of the source reports beside ours."""
    root = root or project_root()
    sources = comparison(root)
    counts = Counter(row.verdict for blocks in sources.values() for block in blocks for row in block.rows)
    written = {name: title for name, title in TITLES.items() if report(name, root)}
    return _render("comparison.md.j2", sources=sources, verdicts=VERDICTS, counts=counts, reports=written)


def mathml(formula: str, display: str) -> str:
    """A formula of TeX, `inline` or `block`, as MathML; one with a slip as it is written, as MathJax does."""
    from latex2mathml.converter import convert

    try:
        return convert(formula, display=display)
    except Exception:  # whatever the converter meets
        return f"<code>{html.escape(formula)}</code>"


def page(path: Path | str) -> str:
    """A notebook as one HTML page that asks no other host for anything: formulas as MathML, no scripts."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return mathml(body, "inline")

        def block_math(self, body: str) -> str:
            return mathml(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

        def image(self, text: str, url: str, title: str | None = None) -> str:
            return text if url.startswith("http") else super().image(text, url, title)

    blocks = ("html_head_js", "jupyter_widgets", "html_head_js_mathjax", "html_head_js_mermaidjs")
    without = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in blocks)
    exporter = HTMLExporter(raw_template="{% extends 'lab/index.html.j2' %}" + without)
    exporter.register_filter("markdown2html", lambda text: MarkdownWithMath(Renderer(escape=False)).render(text))
    return exporter.from_filename(str(path))[0]


def write_index(output: Path, profile: str, runs: list[tuple[Path, str, str | None]]) -> Path:
    """An HTML page over executed notebooks (path, time, error or None), each converted to HTML beside it."""
    shown = []
    for path, taken, error in runs:
        path.with_suffix(".html").write_text(page(path))
        file = output / "results" / f"{path.stem}.{profile}.json"
        result = json.loads(file.read_text()) if file.is_file() and not error else None
        shown.append({"name": path.stem, "page": f"{path.stem}.html", "time": taken, "error": error, "result": result})
    index = output / "index.html"
    index.write_text(_render("index.html.j2", profile=profile, runs=shown))
    return index


def stale(root: Path | None = None) -> list[str]:
    """Committed notebooks whose code is not the code that produced their committed results."""
    root = root or project_root()
    pairs = [
        (name, result)
        for name in PARTS
        for profile in ("lite", "full")
        if (result := read_results(name, profile, root))
    ]
    return [
        f"{name}.{result['profile']}"
        for name, result in pairs
        if notebook_hash(root / "notebooks" / f"{name}.ipynb") != result["code_sha256"]
    ]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("readme", help="rewrite the table in README.md")
    commands.add_parser("report", help="rewrite reports/*.md")
    options, root = parser.parse_args(arguments), project_root()
    if options.command == "readme":
        (root / "README.md").write_text(readme(root))
    else:
        for assignment in TITLES:
            if (text := report(assignment, root)) is not None:
                (root / "reports" / f"{assignment}.md").write_text(text)
        (root / "reports" / "README.md").write_text(compared(root))


if __name__ == "__main__":
    main()
