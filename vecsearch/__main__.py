"""`python -m vecsearch` is `vecsearch`."""

from vecsearch.cli import main

if __name__ == "__main__":
    main()
