"""`python -m helpers.captions IMAGE`: see `command`."""

from .command import main

if __name__ == "__main__":
    main()
