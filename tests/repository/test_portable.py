"""What trains is marked, so that `make test-portable` runs it; and its table tells a failure from a success."""

import ast

import portable
import pytest
from conftest import ROOT

TRAINERS = {"fit", "train_captioner", "fit_head", "train_resumable"}
REFUSED = {  # it stops before its first step
    "test_fit_refuses_an_attack_beside_an_objective",
    "test_model_with_too_few_outputs",
    "test_no_other_precision",
    "test_the_signature_names_every_option",
}
TESTS = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "golden" not in path.name]


def used(function):
    """Names that a function calls, and the fixtures it asks for."""
    called = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    names = {getattr(name, "id", getattr(name, "attr", "")) for name in called}
    return names | {argument.arg for argument in function.args.args}


def unmarked(source):
    """Tests in a file that train, themselves or by what they call in that file, and are not marked."""
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    trains = {name for name, f in functions.items() if used(f) & TRAINERS or {"backward", "step"} <= used(f)}
    for _ in functions:
        trains |= {name for name, f in functions.items() if used(f) & trains}
    whole_file = any("mark.trains" in ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))
    marked = {name for name, f in functions.items() if any("trains" in ast.unparse(d) for d in f.decorator_list)}
    return set() if whole_file else {name for name in trains - marked - REFUSED if name.startswith("test_")}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_what_trains_is_marked(path):
    assert unmarked(path.read_text()) == set()


def test_an_unmarked_training_is_seen():
    source = "def learn():\n    loss.backward()\n    optimizer.step()\n\ndef test_learns():\n    learn()\n"
    assert unmarked(source) == {"test_learns"}
    assert unmarked(source.replace("def test", "@pytest.mark.trains\ndef test")) == set()
    assert unmarked("pytestmark = pytest.mark.trains\n" + source) == set()


def test_the_grid_has_every_arithmetic_and_ten_seeds():
    rows = [tuple(sorted(row.items())) for row in portable.variants().values()]
    assert len(set(rows)) == len(rows) == 2 * 2 * 2 + 10


@pytest.mark.parametrize(("body", "failed"), [("assert True", []), ("assert False", ["test_made"])])
def test_a_failure_is_named(tmp_path, monkeypatch, body, failed):
    path = tmp_path / "test_made.py"
    path.write_text(
        f"import pytest\n\n@pytest.mark.trains\ndef test_made():\n    {body}\n\ndef test_other():\n    assert False\n"
    )
    monkeypatch.setattr(portable, "FILES", [str(path)])
    assert portable.run({}, ["-p", "no:cacheprovider"]) == (1 - len(failed), failed)
    assert portable.run({}, ["-k", "nowhere"])[1] == ["no test ran"]
