"""Files as public sources lay them out, made small."""

import hashlib
import json
import pickle

import pyarrow
import pyarrow.parquet as parquet

LEAF = "tomato-leaf-hub"


def write(path, columns, classes=None, group=2):
    """A table as the hub has it; `classes` go into its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if classes:
        info = {"info": {"features": {"fine_label": {"names": list(classes)}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, path, row_group_size=group)
    return path


class AsPython2(pickle._Pickler):
    """Bytes as Python 2 wrote them, in CIFAR's files too."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def write_pickle(path, content) -> str:
    """The file's MD5."""
    with path.open("wb") as file:
        AsPython2(file, 2).dump(content)
    return hashlib.md5(path.read_bytes()).hexdigest()
