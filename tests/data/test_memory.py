"""Loading a set costs little more memory than the set itself, whatever it is read from."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made import LEAF, write, write_pickle
from PIL import Image

# A process of its own, as the peak of memory is the process's; each set's peak is counted anew.
LOAD = """
import json, sys
import pyarrow, pyarrow.parquet as parquet, torchvision
from PIL import Image
from helpers.data import hub, load

def memory(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

Image.init()
parquet.write_table(pyarrow.table({"a": [{"bytes": b"1"}]}), sink := pyarrow.BufferOutputStream())
parquet.read_table(pyarrow.BufferReader(sink.getvalue())).to_pydict()  # pyarrow's own first memory is not the set's
torchvision.datasets.utils.check_integrity = lambda *arguments: True
hub.SETS["tomato-leaf-hub"].rows["train"] = int(sys.argv[1])
costs = {}
for name in sys.argv[2:]:
    peaks = []
    for _ in range(2):  # what the process needs once (pools, threads' stacks) is not the set's
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = memory("VmRSS")
        data = load(name, "train", download=False)
        peaks.append((memory("VmHWM") - before) / data.images.nbytes)
        del data
    costs[name] = min(peaks)
print(json.dumps(costs))
"""
COUNT, SIZE = 1_000, 192  # 111 MB
SETS = {"folder": "in-a-folder", "zip": "in-a-zip", "parquet": LEAF, "torchvision": "cifar100"}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """Peak growth of memory by the size of the set, for each way to keep it."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of memory")
    root = tmp_path_factory.mktemp("sets")
    file = io.BytesIO()
    Image.fromarray(np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)).save(file, "JPEG")
    image = file.getvalue()
    (root / SETS["folder"] / "train" / "ant").mkdir(parents=True)
    for number in range(COUNT):
        (root / SETS["folder"] / "train" / "ant" / f"{number:04d}.jpg").write_bytes(image)
    with zipfile.ZipFile(root / f"{SETS['zip']}.zip", "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"{SETS['zip']}/train/ant/{number:04d}.jpg", image)
    rows = {"image": [{"bytes": image, "path": None}] * COUNT, "label": [*range(10)] * (COUNT // 10)}
    write(root / LEAF / "train.parquet", rows | {"disease_name": list("abcdefghij") * (COUNT // 10)}, group=100)
    folder = root / SETS["torchvision"] / "cifar-100-python"
    folder.mkdir(parents=True)
    pixels = np.zeros((COUNT * SIZE * SIZE // 1024, 3072), np.uint8)
    write_pickle(folder / "train", {b"data": pixels, b"fine_labels": [0] * len(pixels)})
    write_pickle(folder / "meta", {b"fine_label_names": [b"%d" % number for number in range(100)]})
    command = [sys.executable, "-c", LOAD, str(COUNT), *SETS.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(root))
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("kept", SETS)
def test_loading_costs_at_most_a_fifth_more_than_the_set(costs, kept):
    assert 0.9 < costs[SETS[kept]] < 1.2
