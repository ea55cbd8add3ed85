"""What CONTRIBUTING and the workflow promise: the two commands, files that exist, a licence that is named."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
# What a newcomer looks for, and what has to stand in the file that the table names.
CHANGES = {
    "an attack": ("helpers/attacks/gradient.py", "class PGD"),
    "a data set": ("helpers/data/loading.py", "KNOWN = {"),
    "a notebook": ("helpers/course/reports.py", "PARTS = {"),
    "a profile": ("helpers/course/run.py", "PROFILES = ("),
    "the decoder's attention": ("helpers/captions/decoder.py", "class AdditiveAttention"),
    "a figure's style": ("helpers/plotting/style.py", "def use_style"),
    "notebook 01's learning rate": ("notebooks/01_noisy_resnet.ipynb", 'lr\\", 1e-3'),  # in JSON, quotes are escaped
    "the timm model of notebook 02": ("notebooks/02_vit_transfer.ipynb", "vit_small_patch14"),
    "a rule for Persian text": ("helpers/captions/text.py", "def tokenize"),
    "a defended model of notebook 03": ("notebooks/03_attacks_and_defense.ipynb", "METHODS"),
}


def broken(text):
    """What keeps a workflow from being the two commands, on both Pythons, and weekly without constraints."""
    workflow = yaml.safe_load(text)
    (job,) = workflow["jobs"].values()
    triggers = workflow[True]  # YAML 1.1 reads the key `on` so
    good = {
        "commands": [step["run"] for step in job["steps"] if "run" in step] == ["make run", "make test"],
        "versions": job["strategy"]["matrix"]["python"] == ["3.12", "3.13"],
        "machine": job["runs-on"].startswith("ubuntu"),
        "week": re.fullmatch(r"\d+ \d+ \* \* [0-6]", triggers.get("schedule", [{"cron": ""}])[0]["cron"]) is not None,
        "newest": re.search(r"'schedule' && ' ' \|\| '-c constraints.txt'", job["env"]["CONSTRAINTS"]) is not None,
        "changes": {"push", "pull_request"} <= triggers.keys(),
    }
    return {name for name, fine in good.items() if not fine}


def test_the_workflow_is_the_two_commands():
    assert broken(WORKFLOW.read_text()) == set()


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("run: make test", "run: make unit", "commands"),
        ("      - run: make run\n", "", "commands"),
        ('"3.12", "3.13"', '"3.12"', "versions"),
        ("* * 1", "* * *", "week"),
        ("'schedule'", "'push'", "newest"),
        ("  pull_request:\n", "", "changes"),
    ],
)
def test_a_planted_fault_in_the_workflow_is_found(before, after, fault):
    text = WORKFLOW.read_text()
    assert before in text
    assert broken(text.replace(before, after)) == {fault}


@pytest.mark.parametrize(("given", "pinned"), [(None, True), ("CONSTRAINTS= ", False)])
def test_the_installation_is_pinned_unless_told_otherwise(given, pinned):
    done = subprocess.run(["make", "-nB", "env", *filter(None, [given])], cwd=ROOT, capture_output=True, text=True)
    assert ("-c constraints.txt" in done.stdout) == pinned
    assert "-r requirements.txt" in done.stdout


def test_contributing_names_targets_and_files_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (
        {"run", "test", "notebook", "golden", "reports"} <= set(re.findall(r"`make ([a-z]+)", CONTRIBUTING)) <= targets
    )
    named = re.findall(r"`((?:helpers|tests|notebooks|data|\.github)/[\w./-]*)`", CONTRIBUTING)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_contributing_converts_a_notebook_and_back(tmp_path):
    """The two jupytext lines, run on a copy: what they bring back is what was there."""
    lines = [line.strip() for line in CONTRIBUTING.splitlines() if "jupytext --to" in line]
    assert len(lines) == 2
    source = ROOT / "notebooks" / "01_noisy_resnet.ipynb"
    for folder in ("notebooks", "build"):
        (tmp_path / folder).mkdir()
    (copy := tmp_path / "notebooks" / source.name).write_bytes(source.read_bytes())
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/jupytext"
        subprocess.run([sys.executable, "-m", "jupytext", *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert code(copy) == code(source)
    assert "!git clone" in copy.read_text()


def code(path):
    return [(cell["source"], len(cell["outputs"])) for cell in json.loads(path.read_text())["cells"]
            if cell["cell_type"] == "code"]  # fmt: skip


def test_the_table_of_changes_names_the_right_file():
    rows = re.findall(r"^\| (?:add|change) (.+?) \| (.+) \|$", CONTRIBUTING, re.MULTILINE)
    assert [change for change, _ in rows] == list(CHANGES)
    for change, answer in rows:
        file, holds = CHANGES[change]
        assert f"`{file}`" in answer or f"`{file.rpartition('/')[0]}/`" in answer
        assert holds in (ROOT / file).read_text(), f"{change} is no longer in {file}"


def test_hooks_and_citation_can_be_read():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "notebooks"]
    tests = re.findall(r"tests/\S+\.py", hooks[2]["entry"])
    assert tests
    assert all((ROOT / test).is_file() for test in tests)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 the authors\n")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
