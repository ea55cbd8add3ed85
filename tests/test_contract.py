"""The rules of the house."""

import importlib.util
import sys
import warnings

import tqdm as plain

from helpers import contract


def test_a_notebook_without_ipywidgets_gets_a_bar_of_text_and_no_advice(monkeypatch):
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", plain)  # as in a kernel
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    __import__("IPython")
    spec = importlib.util.spec_from_file_location("helpers.contract_again", contract.__file__)
    fresh = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        spec.loader.exec_module(fresh)
    assert [str(warning.message) for warning in said] == []
    assert issubclass(fresh.tqdm, plain.tqdm)
    assert sys.modules["tqdm.autonotebook"].tqdm is plain.tqdm
