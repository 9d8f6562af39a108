"""Puts one line of mutants.txt into a copy of the tree and prints the file changed: `mutate.py COPY LINE`."""

import sys
from pathlib import Path


def main() -> None:
    """Replace the one place; a line that fits nowhere, or twice, is stale and ends the run."""
    copy, line = Path(sys.argv[1]), sys.argv[2]
    name, file, old, new, _ = (part.strip() for part in line.split("@@"))
    text = (copy / file).read_text(encoding="utf-8")
    if text.count(old) != 1:
        sys.exit(f"{name}: '{old}' stands {text.count(old)} times in {file}; update tools/mutants.txt")
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    sys.stdout.write(file)


if __name__ == "__main__":
    main()
