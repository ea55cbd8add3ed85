"""The repository itself: requirements, commands, and what a text promises."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

SOURCES = [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "bench").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
SOURCES += (ROOT / "data").glob("*.py")


def required() -> set[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return {re.match(r"[\w-]+", line)[0].lower() for line in lines if line and not line.startswith("#")}


def test_every_import_is_required():
    names = {node.module if isinstance(node, ast.ImportFrom) else alias.name
             for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
             for alias in node.names}  # fmt: skip
    local = {"helpers", "conftest", *(path.stem for path in SOURCES), *(path.parent.name for path in SOURCES)}
    tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - local
    owners = {top: {owner.lower().replace("_", "-") for owner in packages_distributions()[top]} for top in tops}
    assert {
        top for top, owner in owners.items() if not owner & (required() | {"ipython"})
    } == set()  # IPython comes with jupyter


def test_constraints_cover_the_requirements():
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert required() <= pinned
    assert "http" not in {name.rstrip(":/") for name in pinned}


def test_the_override_keeps_jupyterlab_current():
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert int(pins["jupyterlab"].split(".")[0]) >= 4
    assert pins["requests"] != "2.25.1"


def test_no_other_python_than_the_right_one_gives_one_sentence(tmp_path):
    for name in ("python", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")  # a Python that is too old says so like this
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "make", "test", "touch"):
        (tmp_path / tool).symlink_to(subprocess.check_output(["which", tool], text=True).strip())
    for file in ("Makefile", "requirements.txt", "constraints.txt", "overrides.txt", "pyproject.toml"):
        (tmp_path / file).write_text((ROOT / file).read_text())
    done = subprocess.run(["make", "env"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode != 0
    assert (
        done.stdout.strip()
        == "This project needs Python 3.12 or 3.13, and none was found: install one, or put it first on PATH."
    )


def test_readme_names_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("module", ["helpers.course.run_all", "helpers.course.reports", "helpers.course.submission"])
def test_command_lines_have_help(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0
    assert "usage" in done.stdout
