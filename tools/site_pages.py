"""What the documentation's site adds to `docs/`: the reference, the notebook, and links where texts name documents.

    make docs                  build it into runs/site (mkdocs calls this file)

A name in backticks, `docs/privacy.md` or `privacy.md`, becomes a link where that page is there. A page of the reference
is a room; its modules say what they hold by `__all__`. Decisions are found in their folder.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fedloom"
NOTEBOOK = "tutorials/from_python.ipynb"
FIGURES = "benchmarks/results/cpu.svg"
_FROM_PYTHON = "fedloom.api", "fedloom.session"
"""Behind the names of `import fedloom`."""
_NAMED = re.compile(r"`(?:docs/)?((?:[\w-]+/)*[\w-]+\.md)`(?!\])")


def on_config(config: Any) -> Any:
    """Add the decisions and the reference to the index: they are found, not listed."""
    decisions = [
        {_title(path): f"decisions/{path.name}"} for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))
    ]
    config.nav.append({"Decisions": decisions})
    config.nav.append(
        {"Reference": [{"fedloom": "reference/fedloom.md"}] + [{r: f"reference/{r}.md"} for r in rooms()]}
    )
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is made of the notebook, of the benchmarks and of the code's docstrings."""
    if notebook := files.get_file_from_path(NOTEBOOK):
        files.remove(notebook)
    made = {NOTEBOOK.replace(".ipynb", ".md"): in_markdown(ROOT / "docs" / NOTEBOOK)}
    made |= {f"reference/{room}.md": reference(room) for room in rooms()}
    made["reference/fedloom.md"] = "# fedloom\n\n" + "".join(f"::: {home}\n\n" for home in _FROM_PYTHON)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    files.append(File.generated(config, FIGURES, abs_src_path=str(ROOT / FIGURES)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Link the pages that a text names."""
    here = posixpath.dirname(page.file.src_uri)
    markdown = markdown.replace(f"(../{FIGURES})", f"({FIGURES})")

    def linked(match: re.Match[str]) -> str:
        for target in (match[1], posixpath.join(here, match[1])):
            if target != page.file.src_uri and files.get_file_from_path(target):
                return f"[{match[0]}]({posixpath.relpath(target, here or '.')})"
        return match[0]

    return _NAMED.sub(linked, markdown)


def rooms() -> list[str]:
    """Return the rooms of the package."""
    return sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def reference(room: str) -> str:
    """Return a page of a room's public modules."""
    said = f"# {room}\n\n"
    for path in sorted((SOURCE / room).rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if path.name == "__init__.py" or any(part.startswith("_") for part in parts):
            continue
        said += f"::: {'.'.join(parts)}\n\n"
    return said


def in_markdown(notebook: Path) -> str:
    """Return a notebook as a page: its texts, its code, what each cell printed."""
    parts: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join(
            "".join(out.get("text", out.get("data", {}).get("text/plain", ""))) for out in cell["outputs"]
        )
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
