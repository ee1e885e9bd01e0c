"""`python -m textladder` is the command `textladder`."""

from textladder.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
