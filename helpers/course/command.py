"""Command lines that refuse in one line."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before each complaint."""

    def error(self, message: str) -> NoReturn:
        """Stop with one line and exit status 2."""
        self.exit(2, f"{message}; --help explains\n")
