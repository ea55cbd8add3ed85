"""What DESIGN.md asks of a notebook's text and code."""

import ast
import json
import re

import pytest
from conftest import ROOT

from helpers.course.code_hash import SHELL

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_LINE = 120
NEXT = 3  # code cells after a mechanism, in which it has to be proven equal
SHORTEST, LONGEST = 5, 25  # lines of a mechanism

LONG_LINES = {"05_clip_tecoa": 1}  # how many there are; its cell is as it was executed


def cells(path, kind="code"):
    """The sources of a notebook's cells of one kind."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def parsed(source):
    return ast.parse(SHELL.sub(r"\1pass", source))


def count(rule, sources):
    return sum(rule(source) for source in sources)


def by_notebook(rule):
    """How often each notebook breaks a rule, without those that never do."""
    return {path.stem: number for path in NOTEBOOKS if (number := count(rule, cells(path)))}


def long_lines(source):
    return sum(len(line) > LONGEST_LINE for line in source.splitlines())


def test_lines_of_code_are_short():
    assert by_notebook(long_lines) == LONG_LINES


def assembled_findings(source):
    """Sentences of `run.finding` that an if/else puts together: what they say was not written by anyone."""
    calls = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call)]
    said = [call.args for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "finding"]
    return sum(any(isinstance(node, ast.IfExp) for part in parts for node in ast.walk(part)) for parts in said)


def test_no_sentence_is_assembled_by_if_else():
    assert by_notebook(assembled_findings) == {}


def mechanisms(source):
    """Functions and classes of a cell that are as long as a mechanism should be."""
    return {node.name for node in parsed(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and SHORTEST <= node.end_lineno - node.lineno + 1 <= LONGEST}  # fmt: skip


def called(node):
    """The names of what is called inside, `equal` for `torch.equal`."""
    calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", "")) for function in calls}


def proves_equality(source):
    """Whether a cell asserts that two tensors are equal."""
    tree = parsed(source)
    claims = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    return "assert_close" in called(tree) or any({"equal", "allclose"} & called(claim) for claim in claims)


def proven(sources):
    """The mechanisms that one of the next cells proves equal to something, and that are used on the way there."""
    found = set()
    for number, source in enumerate(sources):
        after = sources[number + 1 : number + 1 + NEXT]
        proof = next((n for n, later in enumerate(after) if proves_equality(later)), None)
        if proof is not None:
            nodes = [node for later in after[: proof + 1] for node in ast.walk(parsed(later))]
            used = {node.id for node in nodes if isinstance(node, ast.Name)}
            found |= mechanisms(source) & used
    return found


def test_every_notebook_writes_out_its_mechanism_and_proves_it_equal():
    assert {path.stem for path in NOTEBOOKS if not proven(cells(path))} == set()


# A paragraph that says "in `lite`" speaks of that profile's committed run: its numbers stand in the results file. These
# are all numbers with a decimal point or a percent sign, but for code, formulas, links and the numbers of papers.
SPOKEN_OF = re.compile(r"\bin `(toy|lite|full)`", re.IGNORECASE)
NOT_SPOKEN = re.compile(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)|arXiv:?\s*[\d.]+|https?://\S+", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.,])(\d[\d,]*\.\d+|\d+(?=\s?%))(\s?%|\s+points?)?")


def paragraphs(source):
    return re.split(r"\n\s*\n|\n(?=[-*|#] ?)", source)


def claims(source):
    """(profile, number, its unit) of each number that speaks of a run."""
    for text in paragraphs(source):
        for profile in {found.lower() for found in SPOKEN_OF.findall(text)}:
            for number, unit in NUMBER.findall(NOT_SPOKEN.sub(" ", text)):
                yield profile, number.replace(",", ""), unit.strip()


def results(name, profile):
    folder = ROOT / "tests/golden" if profile == "toy" else ROOT / "reports/results"
    path = folder / f"{name}.{profile}.json"
    held = json.loads(path.read_text()) if path.is_file() else {}
    return {key: part for key, part in held.items() if key != "versions"}  # those of the packages


def leaves(value):
    """All numbers and texts inside; curves over epochs are left out, since they hold almost every number."""
    if isinstance(value, dict):
        value = [part for key, part in value.items() if not key.startswith("history")]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


def stands_in(result, number, unit):
    """Whether a results file holds a number at the precision at which a text says it, as number or in a sentence."""
    digits = len(number.partition(".")[2])
    scales = {"%": [100], "point": [100, 1], "points": [100, 1]}.get(unit, [1])  # some tables hold points, some shares
    for leaf in leaves(result):
        if isinstance(leaf, str):
            if re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.]*\d){' ?%' if unit == '%' else ''}", leaf):
                return True
        elif isinstance(leaf, int | float) and number in [f"{abs(leaf) * scale:.{digits}f}" for scale in scales]:
            return True
    return False


def unbound(path):
    said = {claim for source in cells(path, "markdown") for claim in claims(source)}
    return {(path.stem, number) for profile, number, unit in said
            if not stands_in(results(path.stem, profile), number, unit)}  # fmt: skip


def test_numbers_in_the_text_stand_in_the_results():
    assert set().union(*map(unbound, NOTEBOOKS)) == set()


def test_planted_lines_and_sentences_are_found():
    assert (long_lines("x" * 120), long_lines("x\n" + "x" * 121)) == (0, 1)
    planted = ["run.finding(f'{x:.1%}')", "run.finding('a' if x else 'b')", "run.finding(f'{\"a\" if x else 3}', 1)"]
    assert [assembled_findings(source) for source in planted] == [0, 1, 1]


WRITTEN = "!pip\ndef ours(x):\n    # (N, C)\n    y = x\n    y = y\n    return y"


@pytest.mark.parametrize(
    ("sources", "good"),
    [
        ([WRITTEN, "assert torch.equal(ours(x), x)"], True),
        ([WRITTEN, "a = ours(x)", "# look", "torch.testing.assert_close(a, x)"], True),
        ([WRITTEN, "ours(x)"], False),
        ([WRITTEN, "assert torch.equal(x, x)"], False),  # of something else
        ([WRITTEN, "torch.allclose(ours(x), x)"], False),  # not asserted
        ([WRITTEN, "assert ours(x).sum() == 3"], False),
        ([WRITTEN, "1", "2", "3", "assert torch.equal(ours(x), x)"], False),  # too far away
        (["def ours(x): return x", "assert torch.equal(ours(x), x)"], False),  # nothing to see
    ],
)
def test_a_planted_notebook_without_proof_is_found(sources, good):
    assert bool(proven(sources)) == good


RESULT = {"values": {"top1": 0.43617}, "findings": {"1": "It is 12.5% of 9.75 nats."}, "seconds": 61.0,
          "tables": {"history": {"rows": [[0.777]]}, "one": {"rows": [["lr 0.003", 3.14159]]}}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("In `lite` it reaches 43.6 %.", True),
        ("In `lite` it reaches 43.62% and 0.4362, or 43.617 points.", True),
        ("In `lite` it gains 3.1 points.", True),  # the table holds points
        ("In `lite` it gains 3.2 points.", False),
        ("In `lite` it reaches 43.7 %.", False),
        ("In `lite` it loses 12.5 %, 9.75 nats, at 0.003.", True),
        ("In `lite` it loses 9.7 nats.", False),
        ("- in `lite` 3.142", True),
        ("- in `lite` 3.142\n- and 8.88 in the paper", True),  # another item
        ("In `lite` 77.7 %", False),  # only a curve holds it
        ("In `lite` 1,043.6", False),
        ("In `full` 43.6 %", False),  # not run
        ("The paper reports 99.9 %.", True),
        ("In `lite`, as in [1](https://x.org/1.5) and arXiv:1706.06083, $p = 0.05$ and `lr=0.7`: 43.6 %", True),
    ],
)
def test_a_planted_number_is_found(text, good):
    files = {"lite": RESULT}
    assert all(stands_in(files.get(profile, {}), number, unit) for profile, number, unit in claims(text)) == good
