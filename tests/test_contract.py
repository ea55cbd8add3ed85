"""The rules of the house."""

import importlib.util
import sys
import warnings

import tqdm as plain

from helpers import contract


def in_a_kernel(monkeypatch):
    """`helpers.contract`, read anew as a notebook's kernel would."""
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", plain)
    __import__("IPython")
    spec = importlib.util.spec_from_file_location("helpers.contract_again", contract.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def test_a_notebook_without_ipywidgets_gets_a_bar_of_text_and_no_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fresh = in_a_kernel(monkeypatch)
    assert [str(warning.message) for warning in said] == []
    assert issubclass(fresh.tqdm, plain.tqdm)
    assert sys.modules["tqdm.autonotebook"].tqdm is plain.tqdm


def test_a_silenced_notebook_shows_no_widget(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert in_a_kernel(monkeypatch).tqdm is plain.tqdm
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert in_a_kernel(monkeypatch).tqdm is not plain.tqdm
