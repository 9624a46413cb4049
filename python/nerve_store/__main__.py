"""`python -m nerve_store`."""

from nerve_store.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
