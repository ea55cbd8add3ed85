"""All notebooks, reports and the table of results as a static site: `python -m helpers.course.site`.

Made by MkDocs with the Material theme. It asks no other host for anything: formulas are MathML, search and fonts are
the site's own. Pages can be read from a folder; the search needs a server: `python -m http.server -d build/site`.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

from ..contract import tqdm
from .command import Parser
from .reports import PARTS, TITLES, mathml
from .run import project_root

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
FORMULA = re.compile(r'(?s)<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>')
CONFIG: dict[str, Any] = {
    "site_name": "Robust vision in nine notebooks",
    "use_directory_urls": False,  # pages open from a folder, too
    "strict": True,
    "validation": {"anchors": "warn"},  # strict: a link to a section that is not there ends the build
    "theme": {
        "name": "material",
        "font": False,
        "features": ["navigation.footer", "toc.follow", "content.code.copy", "search.highlight"],
        "palette": [
            {"media": "(prefers-color-scheme: light)", "scheme": "default",
             "toggle": {"icon": "material/weather-night", "name": "dark"}},
            {"media": "(prefers-color-scheme: dark)", "scheme": "slate",
             "toggle": {"icon": "material/weather-sunny", "name": "light"}},
        ],
    },
    "plugins": ["search"],
    "extra": {"generator": False},
    "markdown_extensions": ["tables", "attr_list", "md_in_html", "pymdownx.highlight", "pymdownx.superfences",
                            {"pymdownx.arithmatex": {"generic": True}}, {"toc": {"permalink": False}}],
    "extra_css": ["site.css"],
}  # fmt: skip


def sources(root: Path, folder: Path) -> list[dict[str, Any]]:
    """Write the site's Markdown and figures into `folder`; returns its navigation."""
    names = [name for name in PARTS if (root / "notebooks" / f"{name}.ipynb").is_file()]
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc="notebooks", leave=False):
        _notebook(root / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    (folder / "index.md").write_text(_without_badges(_linked((root / "README.md").read_text(), folder)))
    shutil.copytree(root / "reports" / "figures", folder / "reports" / "figures", dirs_exist_ok=True)
    reports = [assignment for assignment in TITLES if (root / "reports" / f"{assignment}.md").is_file()]
    for assignment in reports:
        shutil.copy(root / "reports" / f"{assignment}.md", folder / "reports")
    if (compared := root / "reports" / "README.md").is_file():
        (folder / "reports" / "comparison.md").write_text(_to_pages(compared.read_text()))
        reports.append("comparison")
    shutil.copy(Path(__file__).parent / "templates" / "site.css", folder)
    titles = TITLES | {"comparison": "Five reports, figure by figure"}
    return [
        {"Start": "index.md"},
        {"Notebooks": [f"notebooks/{name}.md" for name in names]},
        {"Tables and findings": [{titles[one]: f"reports/{one}.md"} for one in reports]},
    ]


def _notebook(path: Path, folder: Path) -> None:
    """One notebook as Markdown, its pictures beside it."""
    from nbconvert import MarkdownExporter

    text, more = MarkdownExporter().from_filename(str(path))
    pictures = folder / path.stem
    for name, content in more["outputs"].items():
        pictures.mkdir(exist_ok=True)
        (pictures / name).write_bytes(content)
        text = text.replace(f"]({name})", f"]({path.stem}/{name})")
    text = re.sub(r"(?s)<style scoped>.*?</style>", "", text)  # of pandas: the theme has its own
    (folder / f"{path.stem}.md").write_text(_without_badges(text))


def _without_badges(text: str) -> str:
    """A badge is a picture from another host; its link stays where a repository is named."""
    return BADGE.sub(lambda found: "" if "OWNER/" in found[1] else f"[Open in Colab]({found[1]})", text)


def _to_pages(text: str) -> str:
    """Links to notebooks, or to a section of one, as links to their pages."""
    from markdown.extensions.toc import slugify

    def page(found: re.Match[str]) -> str:
        section = "#" + slugify(found[2].replace("-", " "), "-") if found[2] else ""
        return f"({found[1]}.md{section})"

    return re.sub(r"\(((?:\.\./)?notebooks/\w+)\.ipynb(?:#([^)]*))?\)", page, text)


def _linked(text: str, folder: Path) -> str:
    """README's links to notebooks as links to their pages; what the site does not hold becomes plain text."""
    text = _to_pages(text)

    def kept(found: re.Match[str]) -> str:
        return found[0] if found[2].startswith("http") or (folder / found[2]).is_file() else found[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#]+)\)", kept, text)


def formulas(page: str) -> str:
    """A page with each formula as MathML."""

    def converted(found: re.Match[str]) -> str:
        if found[2] != "(":
            return mathml(html.unescape(found[3]), "block")
        return f'<span class="formula">{mathml(html.unescape(found[3]), "inline")}</span>'

    return FORMULA.sub(converted, page)


def build(root: Path, target: Path, folder: Path) -> Path:
    """The site in `target`, from Markdown that is written into `folder`.

    Raises:
        ValueError: a page links to what is not there.
    """
    import yaml
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort
    from mkdocs.plugins import BasePlugin

    class Formulas(BasePlugin):
        def on_page_content(self, content: str, **_: Any) -> str:
            return formulas(content)

    shutil.rmtree(folder, ignore_errors=True)
    told = CONFIG | {"nav": sources(root, folder / "docs"), "docs_dir": "docs", "site_dir": str(target)}
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(told, allow_unicode=True))
    config = load_config(str(folder / "mkdocs.yml"))
    config.plugins["formulas"] = Formulas()
    try:
        build_site(config)
    except Abort as error:
        raise ValueError(f"the site has a link that leads nowhere: {error}") from error
    return target / "index.html"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m helpers.course.site", description="Build the static site.")
    parser.add_argument("--output", type=Path, default=Path("build/site"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    root = project_root()
    tqdm.write(str(build(root, options.output.resolve(), root / "build" / "site-source")))


if __name__ == "__main__":
    main()
