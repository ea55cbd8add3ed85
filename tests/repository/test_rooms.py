"""The rooms of `helpers`: who may import whom, how long a file and a function may be, and what a name means."""

import ast
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT

# A room may import itself and the rooms of the lines above its own, inside functions too.
ORDER = [
    {"contract"},
    {"data", "explain"},
    {"training"},
    {"models"},
    {"attacks", "conv"},
    {"clip", "captions", "gaze"},
    {"plotting"},
]
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
COURSE = {"contract", "training", "models"}
PROGRAM = "__main__"  # stands above all rooms, and nobody may import it
MOST_LINES, LONGEST_FUNCTION = 250, 40
TOO_LONG = set()  # only shrinks
NOTEBOOK = re.compile(r"\bnotebooks? \d|\bnb\d\d|\b0[1-9]_[a-z]+", re.IGNORECASE)


def modules(root):
    """Dotted name to path of each module of `root/helpers`; a package has its folder's name."""
    paths = sorted((root / "helpers").rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


def imports(name, path, known):
    """The modules of `helpers` that a module imports anywhere in its file."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            found = {f"{source}.{alias.name}" for alias in node.names} & known.keys()
            yield from found or {source} & known.keys()


def room(name):
    return name.split(".")[1] if "." in name else "helpers"


def upward(root):
    """Imports against the order of the rooms, as `module -> module`."""
    known = modules(root)
    pairs = [(name, target) for name, path in known.items() for target in imports(name, path, known)]
    return {f"{name} -> {target}" for name, target in pairs if not allowed(name, target)}


def allowed(name, target):
    here, there = room(name), room(target)
    if target.endswith(PROGRAM):
        return False
    if here == there:
        return True
    if here == "course":
        return there in COURSE
    if there not in RANKS:  # the course, or a room that ORDER does not know
        return False
    return name.endswith(PROGRAM) or RANKS.get(here, -1) > RANKS[there]


def circle(root):
    """Modules that need one another to be loaded, or None. Loading a module loads the packages above it first."""
    known, graph = modules(root), {}
    for name, path in known.items():
        graph[name] = set()
        for target in imports(name, path, known):
            above = {target.rsplit(".", n)[0] for n in range(1, target.count(".") + 1)}
            graph[name] |= {target} | {package for package in above if not f"{name}.".startswith(f"{package}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]


def test_no_import_goes_upward():
    assert upward(ROOT) == set()
    rooms = {room(name) for name in modules(ROOT)} - {"helpers", "course"}
    assert rooms <= set(RANKS), "DESIGN's order of imports, and ORDER here, have to name every room"


def test_no_circle():
    assert circle(ROOT) is None


@pytest.fixture
def made(tmp_path):
    """Writes small modules, `room__module="source"`, and returns the folder that holds `helpers`."""

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / "helpers" / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
            for package in (path.parent, path.parent.parent):
                (package / "__init__.py").touch()
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("module", "source", "bad"),
    [
        ("attacks__audit", "from ..plotting import charts", True),
        ("attacks__audit", "def draw():\n    import helpers.plotting.charts", True),
        ("attacks__audit", "from .. import plotting", True),
        ("plotting__audits", "from ..attacks import base", False),
        ("data__views", "from ..explain import maps", True),
        ("captions__command", "from ..course.run import Run", True),
        ("captions____main__", "from ..plotting.charts import lines", False),
        ("captions____main__", "from ..course.run import Run", True),
        ("course__run_all", "from ..attacks.base import Attack", True),
        ("plotting__more", "from ..elsewhere.one import audit", True),
        ("training__loop", "from ..captions.__main__ import main", True),
    ],
)
def test_a_planted_import_is_found(made, module, source, bad):
    names = "plotting__charts explain__maps attacks__base course__run captions____main__ elsewhere__one"
    assert bool(upward(made(**dict.fromkeys(names.split(), "") | {module: source}))) == bad


def test_a_planted_circle_is_found(made):
    assert circle(made(data__one="from . import two", data__two="from .three import x", data__three="x = 1")) is None
    found = circle(made(data__three="def late():\n    from . import one"))
    assert set(found) == {"helpers.data.one", "helpers.data.two", "helpers.data.three"}


def test_a_circle_through_a_package_is_found(made):
    """`data/__init__` needs `explain`, whose module needs no more than another part of `data`."""
    root = made(data__one="", data__two="", explain__maps="from ..data import two")
    assert circle(root) is None
    (root / "helpers/data/__init__.py").write_text("from ..explain import maps")
    assert set(circle(root)) == {"helpers.data", "helpers.explain.maps"}


def too_long(root):
    """Files and functions above the sizes that DESIGN.md allows."""
    found = set()
    for path in sorted(path for folder in ("helpers", "bench", "data") for path in (root / folder).rglob("*.py")):
        text, name = path.read_text(), path.relative_to(root).as_posix()
        found |= {name} if text.count("\n") > MOST_LINES else set()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        found |= {f"{name}: {f.name}" for f in functions if f.end_lineno - f.lineno >= LONGEST_FUNCTION}
    return found


def test_files_and_functions_are_short():
    assert too_long(ROOT) == TOO_LONG, "make it shorter; what is short by now leaves the list"


def test_planted_length_is_found(made):
    fits = "def f():\n" + "    x = 1\n" * 39
    assert too_long(made(data__one=fits, data__two="#\n" * 250)) == set()
    found = too_long(made(data__one=fits + "    x = 1\n", data__two="#\n" * 251))
    assert found == {"helpers/data/one.py: f", "helpers/data/two.py"}


def notebooks_named(root):
    """Lines of `helpers` that know a notebook by name or number."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, path in modules(root).items()
        if room(name) != "course"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NOTEBOOK.search(line)
    ]


def test_no_module_knows_a_notebook():
    assert notebooks_named(ROOT) == []


@pytest.mark.parametrize("line", ['x = "07_persian_captioning"', "# see notebook 3", "# as nb05 does"])
def test_a_planted_notebook_name_is_found(made, line):
    assert notebooks_named(made(data__one="# any notebook", course__run=line)) == []
    assert len(notebooks_named(made(data__one=line))) == 1


def doubles(root):
    """Public functions and classes of one name in two rooms; every program has its `main`."""
    rooms = defaultdict(set)
    for name, path in modules(root).items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                rooms[node.name].add(room(name))
    return {name for name, of in rooms.items() if len(of) > 1} - {"main"}


def test_one_name_means_one_thing():
    assert doubles(ROOT) == set()


def test_a_planted_double_is_found(made):
    assert doubles(made(data__one="def f(): ...", data__two="def f(): ...")) == set()
    assert doubles(made(clip__one="class f: ...")) == {"f"}


def own_bars(root):
    """Modules that take tqdm from anywhere but `contract`, whose bars heed TQDM_DISABLE in notebooks too."""
    taken = re.compile(r"^\s*(from|import) tqdm\b", re.MULTILINE)
    return {name for name, path in modules(root).items() if taken.search(path.read_text())} - {"helpers.contract"}


def test_all_progress_bars_are_those_of_contract():
    assert own_bars(ROOT) == set()


def test_a_planted_bar_is_found(made):
    root = made(data__one="from ..contract import tqdm", data__two="def f():\n    from tqdm.auto import tqdm")
    assert own_bars(root) == {"helpers.data.two"}
