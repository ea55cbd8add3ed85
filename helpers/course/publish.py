"""Trained models to share: `python -m helpers.course publish-models FOLDER --hub OWNER/NAME`.

Without `--hub` the folder can be put on a model hub as it is. Whoever puts its content into `$DATA_ROOT/models` starts
the notebooks that need these models without training them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi

from ..contract import tqdm
from ..models.saved import CARD, WEIGHTS, load_model
from ..training.checkpoints import CheckpointError, replacing
from .code_hash import hash_until_saved
from .command import Parser
from .run import checkpoint_root, notebook_path

MOST_MEGABYTES = 25


class Shared(NamedTuple):
    """A model in the folder: `notebook.profile/name`, its size, and the card that says how it was trained."""

    place: str
    megabytes: float
    card: dict


def publish(target: Path, most: float = MOST_MEGABYTES) -> tuple[list[Shared], list[str]]:
    """Copy every model that notebooks saved, is small enough and was trained by the code they have now.

    Returns:
        What was copied, and a line for each that was not.

    Raises:
        ValueError: there is nothing to copy; nothing is written then.
    """
    found = [path.parent for path in sorted(checkpoint_root().glob(f"*/*/{CARD}"))]
    reasons = {folder: _why_not(folder, most) for folder in found}
    left = [f"{_place(folder)} was left out: {reason}" for folder, reason in reasons.items() if reason]
    if len(left) == len(found):
        raise ValueError("; ".join(left) or f"no model was saved in {checkpoint_root().name}: run notebook 01 first")
    shared = [_copied(folder, target) for folder, reason in reasons.items() if not reason]
    with replacing(target / "README.md") as temporary:
        temporary.write_text(_readme(shared))
    return shared, left


def _why_not(folder: Path, most: float) -> str:
    """Empty if the model can be shared."""
    notebook = folder.parent.name.rpartition(".")[0]
    try:
        card = load_model(folder).card
    except CheckpointError as error:
        return str(error)
    if card.get("code") != hash_until_saved(notebook_path(notebook), folder.name):
        return f"its notebook has changed since: make notebook N={notebook[:2]}"
    size = (folder / WEIGHTS).stat().st_size / 2**20
    return f"{size:.0f} MB are more than {most:g}" if size > most else ""


def _copied(folder: Path, target: Path) -> Shared:
    for name in (WEIGHTS, CARD):
        with replacing(target / _place(folder) / name) as temporary:
            shutil.copyfile(folder / name, temporary)
    card = json.loads((folder / CARD).read_text())
    return Shared(_place(folder), (folder / WEIGHTS).stat().st_size / 2**20, card)


def _place(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _readme(shared: list[Shared]) -> str:
    rows = [
        f"| {place} | `{card['build']}` | {size:.1f} | {', '.join(f'{k} {v}' for k, v in card['settings'].items())} |"
        for place, size, card in shared
    ]
    head = [
        "# Trained models",
        "Put these folders into `$DATA_ROOT/models`: the notebooks that need them find them there.",
    ]
    return "\n".join([*head, "", "| model | network | MB | trained with |", "|---|---|---|---|", *rows, ""])


def upload(folder: Path, hub: str) -> str:
    """Put the folder on the Hugging Face hub as the model `hub`, `OWNER/NAME`; returns its address.

    Raises:
        ValueError: the hub cannot be reached, or does not let you write there.
    """
    try:
        api = HfApi()
        address = api.create_repo(hub, exist_ok=True)
        api.upload_folder(repo_id=hub, folder_path=folder)
    except Exception as error:  # whatever the network or the hub does, the answer is the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{hub} was not written ({reason}): `hf auth login`, or put {folder} there by hand") from error
    return str(address)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        prog="python -m helpers.course publish-models", description="Copy trained models that are small enough."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=float, default=MOST_MEGABYTES, metavar="MB", help="size of the largest")
    parser.add_argument("--hub", metavar="OWNER/NAME", help="put the folder there, on the Hugging Face hub")
    options = parser.parse_args(arguments)
    try:
        shared, left = publish(options.folder, options.most)
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f"Nothing was published: {error}")
    for line in [*(f"{one.place}: {one.megabytes:.1f} MB" for one in shared), *left]:
        tqdm.write(line)
    if options.hub:
        try:
            tqdm.write(upload(options.folder, options.hub))
        except ValueError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
