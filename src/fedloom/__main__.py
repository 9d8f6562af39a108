"""`python -m fedloom` is the command `fedloom`."""

from fedloom.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
