"""The program of an answer: what a model wrote, put where it belongs, with or without talk around it.

An answer that goes on where the prompt ended stays as it is. Of one in a code fence the fence's content counts, and a
function that is written out again replaces the prompt's beginning of it; what the prompt has above it stays.
"""

import re
from collections.abc import Sequence

__all__ = ["program_of"]

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_FUNCTION = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


def program_of(before: str, answer: str, stop: Sequence[str] = ()) -> str:
    r"""Return the program of what the task puts before an answer and the answer.

    A text of `stop` ends an answer that is in no fence; of a function written out again, behind its first line.

    >>> program_of("import math\ndef f(x):\n", "So:\n```python\ndef f(x):\n    return x\n```")
    'import math\ndef f(x):\n    return x\n'
    """
    fence = _FENCE.search(answer)
    code = fence[1] if fence else answer
    heads = list(_FUNCTION.finditer(before))
    again = re.search(rf"^(?:async )?def {heads[-1][1]}\b", code, re.MULTILINE) if heads else None
    if not fence:
        begin = again.end() if again else 0
        code = code[: min((place for text in stop if (place := code.find(text, begin)) >= 0), default=len(code))]
    return (before[: heads[-1].start()] if again else before) + code
