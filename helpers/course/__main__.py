"""`python -m helpers.course COMMAND ...`: the commands of this room by name."""

from __future__ import annotations

import sys

from . import document, publish, run_all, site, submission
from .command import Parser

COMMANDS = {
    "run": run_all.main,
    "report": document.main,
    "site": site.main,
    "submission": submission.main,
    "publish-models": publish.main,
}


def main(arguments: list[str] | None = None) -> None:
    """The command line: what stands behind the command's name is the command's own."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = Parser(prog="python -m helpers.course", description="Run, report, hand in and share a notebook's work.")
    parser.add_argument("command", choices=COMMANDS)
    COMMANDS[parser.parse_args(given[:1]).command](given[1:])


if __name__ == "__main__":
    main()
