"""What all notebooks say alike: where the repository lives, and how Colab gets it. `make reports` writes it into them.

The address stands once, as `Repository` in pyproject.toml; the setup cell once, in `templates/setup.py.txt`. Neither
counts for the code hash, and neither outputs nor execution counts are touched.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from .run import project_root

GITHUB = "https://github.com/"
BADGE = re.compile(r"(https://colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+(/blob/)")
ADDRESS = re.compile(r'^(REPOSITORY = )"[^"]*"', re.MULTILINE)
CITED = re.compile(r"^(repository-code: ).*$", re.MULTILINE)
METADATA = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}}


def repository(root: Path | None = None) -> str:
    """The repository's address on GitHub. ValueError: pyproject.toml names something else."""
    text = ((root or project_root()) / "pyproject.toml").read_text()
    address = tomllib.loads(text)["project"]["urls"]["Repository"]
    if not re.fullmatch(rf"{GITHUB}[\w.-]+/[\w.-]+", address):
        raise ValueError(f"Repository in pyproject.toml must be {GITHUB}OWNER/NAME, got {address}")
    return address


def setup_cell() -> str:
    """The cell that gets `helpers` on Colab, the same in every notebook."""
    return (Path(__file__).parent / "templates" / "setup.py.txt").read_text().rstrip("\n")


def prepared(notebook: str, address: str) -> str:
    """A notebook file's text with this address in its badge and `# parameters`, the setup cell, and a T4 asked for."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        source = _prepared("".join(cell["source"]), cell["cell_type"] == "code", address)
        cell["source"] = source.splitlines(keepends=True)
    content["metadata"] = dict(sorted((content["metadata"] | METADATA).items()))  # as nbformat writes them
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _prepared(source: str, is_code: bool, address: str) -> str:
    if not is_code:
        return BADGE.sub(lambda match: match[1] + address.removeprefix(GITHUB) + match[2], source)
    if source.startswith("# setup"):
        return setup_cell()
    return ADDRESS.sub(rf'\1"{address}"', source) if source.startswith("# parameters") else source


def outdated(root: Path | None = None) -> dict[Path, str]:
    """The files that do not say what pyproject.toml and the template say, and what they should be."""
    root = root or project_root()
    address, citation = repository(root), root / "CITATION.cff"
    wanted = {path: prepared(path.read_text(), address) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    if citation.is_file():
        wanted[citation] = CITED.sub(rf'\1"{address}"', citation.read_text())
    return {path: text for path, text in wanted.items() if text != path.read_text()}


if __name__ == "__main__":
    for changed, text in outdated().items():
        changed.write_text(text)
