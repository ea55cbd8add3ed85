"""`make run` and `make notebook`: what is refused in one line, what a failure leaves, and how Ctrl-C ends."""

import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.course import run_all


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with the notebooks 01 (shows a lite run) and 04; its files are written with `write`."""
    monkeypatch.setattr(run_all, "project_root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    write(tmp_path, "01_first", "'results/01_first.lite.json'", shown="'results/01_first.lite.json'")
    write(tmp_path, "04_fourth", "1")
    return tmp_path


def write(root, name, *sources, shown=None):
    cells = [new_code_cell(source) for source in sources]
    if shown:
        cells[-1].outputs = [new_output("execute_result", {"text/plain": shown}, execution_count=1)]
    nbformat.write(new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")


def refusal(capsys, *arguments):
    """The line that a command stops with."""
    with pytest.raises(SystemExit) as stopped:
        run_all.main(list(arguments))
    said = capsys.readouterr()
    text = stopped.value.code if isinstance(stopped.value.code, str) else said.err.strip()
    assert stopped.value.code != 0
    assert said.out == ""
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--in-place"], "needs a number and a profile, such as: make notebook N=01 PROFILE=lite"),
        (["01", "--in-place"], "needs a number and a profile"),
        (["--in-place", "--profile", "lite"], "needs a number and a profile"),
        (["first"], "'first' is not the number of a notebook"),
        (["12", "--profile", "toy"], "no notebook has the number 12: there are 01, 04"),
        (["1", "--profile", "light"], "invalid choice: 'light'"),
        (
            ["1", "--in-place", "--profile", "toy"],
            "01_first.ipynb holds a lite run, which a toy run would replace: add",
        ),
    ],
)
def test_refused_in_one_line(root, capsys, arguments, said):
    assert said in refusal(capsys, *arguments)
    assert not (root / "reports").exists()


def test_a_wrong_profile_in_the_environment_is_one_line(root, capsys, monkeypatch):
    monkeypatch.setenv("PROFILE", "bogus")
    assert "unknown profile 'bogus'" in refusal(capsys)


@pytest.mark.parametrize("arguments", [("4",), ("04",)])
def test_a_number_may_be_written_short(root, arguments):
    paths = run_all._notebooks(run_all._parse([*arguments, "--profile", "toy"]))
    assert [path.stem for path in paths] == ["04_fourth"]


@pytest.mark.parametrize("extra", [["--profile", "lite"], ["--profile", "full"], ["--profile", "toy", "--force"]])
def test_a_run_may_be_replaced_by_one_as_large_or_by_force(root, extra):
    assert run_all._notebooks(run_all._parse(["1", "--in-place", *extra]))


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_committed_runs_are_safe_from_a_toy_run(name, capsys):
    assert "would replace" in refusal(capsys, name[:2], "--in-place", "--profile", "toy")


def make(*arguments, **environment):
    """The command that `make notebook` would give."""
    clean = {name: value for name, value in os.environ.items() if name != "PROFILE"}
    command = ["make", "-n", "notebook", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True)
    return re.search(r"helpers\.course\.run_all(.*)", done.stdout)[1].split()


def test_make_hands_over_what_was_asked_for_and_nothing_else():
    assert make() == ["--in-place"]
    assert make("N=4") == ["--in-place", '"4"']
    assert make("N=4", PROFILE="lite") == ["--in-place", '"4"', "--profile", '"lite"']
    assert make("N=4", "PROFILE=toy", "FORCE=1") == ["--in-place", "--force", '"4"', "--profile", '"toy"']


def test_a_failure_tells_all_and_keeps_its_traceback(root, capsys):
    write(root, "04_fourth", "raise ValueError('no data here:\\nget it from there\\n')")
    assert run_all.main(["4", "--profile", "toy"]) == 1
    assert "FAILED: ValueError: no data here:\nget it from there\n" in capsys.readouterr().out
    log = root / "build/toy/04_fourth.traceback.txt"
    assert "raise ValueError" in log.read_text()
    assert "\x1b" not in log.read_text()
    assert "get it from there" in (root / "build/toy/index.html").read_text()
    write(root, "04_fourth", "1")
    assert run_all.main(["4", "--profile", "toy"]) == 0
    assert not log.exists()


def test_failures_are_the_last_thing_said(root, capsys):
    write(root, "01_first", "x = 1\nraise ValueError('no data here')")
    assert run_all.main(["--profile", "toy"]) == 1
    said = capsys.readouterr().out
    last = said[said.index("in a browser") :]
    assert "01_first FAILED" in last
    assert "----> 2 raise ValueError" in last
    assert last.rstrip().endswith("ValueError: no data here")
    assert "04_fourth" not in last


def test_ctrl_c_ends_the_kernel_and_all_notebooks(root):
    mark = root / "kernel"
    write(root, "01_first", f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(100)")
    before = (root / "notebooks/01_first.ipynb").read_bytes()
    code = (
        "import pathlib, sys; from helpers.course import run_all\n"
        f"run_all.project_root = lambda: pathlib.Path({str(root)!r})\n"
        "sys.exit(run_all.main(['--profile', 'lite']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or (mark.exists() and mark.read_text()), 240)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].startswith("Stopped; the notebook is as it was. Give the same command again")
    assert "Traceback" not in err
    assert "04_fourth" not in out + err
    wait_until(lambda: not alive(int(mark.read_text())), 5)
    assert (root / "notebooks/01_first.ipynb").read_bytes() == before


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
