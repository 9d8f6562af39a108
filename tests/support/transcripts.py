"""Documents as transcripts: files they show, commands they run, what these print.

```lang NAME       a file of that name
```console         lines "$ command", each followed by what it prints; "..." stands for any lines, "[exit code N]" for a
                   code other than 0
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"^```(\S+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Step:
    """A command with what it is to print, or a file to write."""

    command: str = ""
    told: list = field(default_factory=list)
    code: int = 0
    name: str = ""
    text: str = ""


def steps(document):
    """The files and commands of a document, in their order."""
    for language, name, text in BLOCK.findall(Path(document).read_text(encoding="utf-8")):
        if language == "console":
            yield from _commands(text)
        elif name:
            yield Step(name=name, text=text)


def _commands(text):
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Step(command=line.removeprefix("$ ")))
        elif code := re.fullmatch(r"\[exit code (\d+)\]", line):
            found[-1].code = int(code[1])
        elif line.strip() != "...":
            found[-1].told.append(line)
    return found


def words(text):
    """The words of a text without numbers and rules of tables: what does not depend on a machine."""
    return set(re.findall(r"[^\W\d]{2,}", re.sub(r"[─│┃]", " ", text)))


def follow(document, folder):
    """Write the files of a document and run its commands in a folder; what they print is what it says."""
    for step in steps(document):
        if step.name:
            (folder / step.name).write_text(step.text, encoding="utf-8")
            continue
        done = carried_out(step.command, folder)
        assert done.returncode == step.code, f"$ {step.command}\n{done.stdout}{done.stderr}"
        missing = words("\n".join(step.told)) - words(done.stdout + done.stderr)
        assert not missing, f"$ {step.command}\nnot printed: {missing}\nprinted:\n{done.stdout}{done.stderr}"


def carried_out(command, folder):
    """Run a command of the shell, where `fedloom` and `python` are those of this environment."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    environment |= {"OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
