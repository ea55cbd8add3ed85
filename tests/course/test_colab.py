"""A click on a badge works: the setup cell in a fake Colab, what it installs there, and the address in one place."""

import ast
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
from conftest import ROOT
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from helpers.course import colab
from helpers.course.code_hash import NOT_COUNTED, SHELL, notebook_hash
from helpers.course.notebooks import tidy

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
UV = [sys.executable, "-m", "uv"]

# What a Colab machine has before the setup cell runs, as far as `helpers` asks for it; Python 3.13.
ON_COLAB = [
    "accelerate==1.12.0",
    "huggingface-hub==1.3.7",
    "ipython==7.34.0",
    "jinja2==3.1.6",
    "matplotlib==3.10.0",
    "nbclient==0.10.4",
    "nbconvert==7.16.6",
    "nbformat==5.10.4",
    "nltk==3.9.1",
    "numpy==2.1.3",
    "pandas==2.2.3",
    "peft==0.18.1",
    "pillow==11.3.0",
    "psutil==5.9.8",
    "pyarrow==18.1.0",
    "requests==2.32.4",
    "safetensors==0.7.0",
    "scikit-learn==1.6.1",
    "scipy==1.16.3",
    "seaborn==0.13.2",
    "timm==1.0.24",
    "tokenizers==0.22.2",
    "tqdm==4.67.3",
    "transformers==5.0.0",
]
TORCH = [["torch==2.10.0", "torchvision==0.25.0"], ["torch==2.11.0", "torchvision==0.26.0"]]
each_torch = pytest.mark.parametrize("torch", TORCH, ids=lambda torch: torch[0])


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@each_notebook
def test_uncounted_cells_hold_no_code_of_their_own(path):
    """They do not count for the hash, so code could hide in them."""
    first, second = uncounted = [source for source in sources(path) if source.strip().startswith(NOT_COUNTED)]
    assert sources(path)[:2] == uncounted
    assert second == colab.setup_cell()
    assert first.startswith("# parameters\n")
    assigned = ast.parse(first).body
    assert all(isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) for line in assigned)
    assert [ast.unparse(line.targets[0]) for line in assigned] == ["PROFILE", "DRIVE", "REPOSITORY"]
    assert [line.value.value for line in assigned[:2]] == [None, False]


@each_notebook
def test_no_shell_line_is_commented_out(path):
    assert not [line for source in sources(path) for line in source.splitlines() if re.match(r"\s*#\s*[!%]", line)]


def test_notebooks_say_what_pyproject_and_the_template_say():
    assert [path.name for path in colab.outdated()] == []


@pytest.fixture
def copy(tmp_path):
    """What holds the repository's address."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace(colab.repository(), "https://github.com/ours/vision"))
    (tmp_path / "CITATION.cff").write_text('title: x\nrepository-code: "https://github.com/OWNER/REPOSITORY"\n')
    return tmp_path


def test_a_new_address_goes_everywhere_and_changes_nothing_else(copy):
    changed = colab.outdated(copy)
    assert len(changed) == len(NOTEBOOKS) + 1
    assert 'repository-code: "https://github.com/ours/vision"\n' in changed[copy / "CITATION.cff"]
    for path in NOTEBOOKS:
        text, new = path.read_text(), copy / "notebooks" / path.name
        assert f"/github/ours/vision/blob/main/notebooks/{path.name})" in changed[new]
        assert 'REPOSITORY = \\"https://github.com/ours/vision\\"' in changed[new]
        assert "OWNER/REPOSITORY" not in changed[new]
        assert text == changed[new].replace("ours/vision", colab.repository().removeprefix(colab.GITHUB))
        new.write_text(changed[new])
        assert notebook_hash(new) == notebook_hash(path)
    assert [path.name for path in colab.outdated(copy)] == ["CITATION.cff"]  # the one not written yet


def test_an_address_that_is_none(copy):
    (copy / "pyproject.toml").write_text('[project.urls]\nRepository = "github.com/ours/vision"\n')
    with pytest.raises(ValueError, match="must be https://github.com/OWNER/NAME, got github.com/ours/vision"):
        colab.repository(copy)


@each_notebook
def test_notebook_asks_for_a_t4_and_keeps_asking(path):
    notebook = nbformat.read(path, as_version=4)
    tidy(notebook)
    assert {key: notebook.metadata[key] for key in colab.METADATA} == colab.METADATA


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A Colab machine: `run(cells)` executes them there; `asked` are its commands, `mounted` its mounts."""
    mounted, google = [], ModuleType("google")
    google.colab = ModuleType("google.colab")
    google.colab.drive = SimpleNamespace(mount=lambda folder: (mounted.append(folder), sys.stdout.write(folder)))
    for module in (google, google.colab):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        importlib.metadata, "version", {"torch": "2.10.0", "torchvision": "0.25.0", "numpy": "2.1.3"}.get
    )
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(run=fake_shell(tmp_path, monkeypatch), asked=tmp_path / "asked", mounted=mounted)


def fake_shell(folder, monkeypatch):
    """Commands go through bash, where `git`, `pip` and `uv` only note how they were called."""
    for name in ("git", "pip", "uv"):
        note = f'#!/bin/bash\necho "{name} $*" >> {shlex.quote(str(folder / "asked"))}\n'
        (folder / name).write_text(note + ("mkdir course\n" if name == "git" else ""))
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    monkeypatch.setattr(HistoryManager.enabled, "default_value", False)
    shell = InteractiveShell(ipython_dir=str(folder / "ipython"))

    def system(command):
        command = shell.var_expand(command, depth=1)
        subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path})

    monkeypatch.setattr(shell, "system", system)

    def run(*cells):
        for cell in cells:
            shell.run_cell(cell).raise_error()

    return run


PACKAGE = "--override overrides.txt -e ."
INSTALL = f"uv pip install -q --system {PACKAGE} torch==2.10.0 torchvision==0.25.0 numpy==2.1.3"


@each_notebook
def test_setup_in_a_fake_colab(path, machine, tmp_path, capsys):
    cells = [source for source in sources(path) if source.startswith(NOT_COUNTED)]
    machine.run(*cells)
    clone = f"git clone -q --depth 1 {colab.repository()} course"
    assert machine.asked.read_text().splitlines() == [clone, "pip install -q uv", INSTALL]
    assert sys.path[0] == str(tmp_path / "course")
    assert machine.mounted == []
    machine.run(*cells)  # a second time: what is there is not cloned again
    assert machine.asked.read_text().splitlines()[3:] == ["pip install -q uv", INSTALL]
    assert capsys.readouterr().out == ""


@each_notebook
def test_drive_holds_checkpoints_and_results_if_asked(path, machine, capsys):
    parameters, setup = (source for source in sources(path) if source.startswith(NOT_COUNTED))
    machine.run(parameters.replace("DRIVE = False", "DRIVE = True"), setup)
    assert machine.mounted == ["/content/drive"]
    assert os.environ["CHECKPOINT_DIR"] == "/content/drive/MyDrive/course/checkpoint_dir"
    assert os.environ["OUTPUT_DIR"] == "/content/drive/MyDrive/course/output_dir"
    assert capsys.readouterr().out == ""  # a machine's folder in an output would keep the notebook from being handed in


def test_elsewhere_setup_does_nothing(machine, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab")
    machine.run("DRIVE = True", colab.setup_cell())
    assert machine.mounted == []
    assert not machine.asked.exists()


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """`index(*arguments)`: what uv would install on Linux and Python 3.13, given what lies in the folder `site`."""
    empty = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "UV_HTTP_TIMEOUT": "20"}

    def resolve(*arguments, site=empty):
        options = ["--dry-run", "--target", str(site), "--python-version", "3.13", "--python-platform", "linux"]
        command = [*UV, "pip", "install", *options, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    if re.search("Failed to fetch|network was disabled", resolve("--no-deps", "torchattacks").stderr):
        pytest.skip("no package index can be reached, so the resolver cannot be asked")
    return resolve


def changes(done):
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^ ([-+~] [\w-]+)", done.stderr, re.MULTILINE))


@each_torch
def test_the_package_goes_with_the_versions_on_colab(torch, index, tmp_path):
    constraints = tmp_path / "colab.txt"
    constraints.write_text("\n".join(ON_COLAB + torch))
    assert {"+ torch", "+ torchattacks", "+ helpers"} <= changes(index(*PACKAGE.split(), "-c", constraints))


@each_torch
def test_nothing_of_colab_is_replaced(torch, index, tmp_path):
    """The setup cell's own command where those packages are installed (in name), torch as a build for CUDA."""
    torch = [f"{package}+cu128" for package in torch]
    for package in ON_COLAB + torch:
        name, version = package.split("==")
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").touch()
    added = changes(index(*PACKAGE.split(), *torch, "numpy==2.1.3", site=tmp_path))
    assert {"+ torchattacks", "+ hazm", "+ helpers"} <= added
    replaced = {change[2:] for change in added} & {package.split("==")[0] for package in ON_COLAB + torch}
    assert replaced == set()
    assert all(change.startswith("+") for change in added)


def required(text):
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def test_requirements_are_the_dependencies_and_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime, dev = project["dependencies"], project["optional-dependencies"]["dev"]
    assert required((ROOT / "requirements.txt").read_text()) == {*runtime, *dev}
    assert not {*runtime} & {*dev}


# Commands for one's own machine; what they need is listed with the tests' packages.
DESK = {"document.py", "word.py", "site.py"}


def test_colab_installs_what_helpers_and_notebooks_import_and_no_more():
    cells = [SHELL.sub(r"\1pass", source) for path in NOTEBOOKS for source in sources(path)]
    code = cells + [path.read_text() for path in (ROOT / "helpers").rglob("*.py") if path.name not in DESK]
    names = {name for source in code for node in ast.walk(ast.parse(source)) for name in imported(node)}
    owners = importlib.metadata.packages_distributions()
    names -= {"google"}  # Colab's own, which shares its first name with protobuf
    names -= {"pytorch_grad_cam"}  # which notebook 04 compares with only where it is installed
    used = {owner.lower().replace("_", "-") for name in names for owner in owners.get(name, [])} - {"helpers"}
    used |= {"onnx", "onnxscript"}  # what torch.onnx.export imports
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]} == used


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) and not node.level else []
