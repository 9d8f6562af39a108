"""Libraries that some of lm-eval's tasks need and that lm-eval itself does not: told by name, with how to get them."""

import contextlib
import importlib.util
import re
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, requires

from fedloom.base.errors import ConfigError, one_line

__all__ = ["libraries"]


@contextlib.contextmanager
def libraries(name: str) -> Generator[None]:
    """Turn a library that the task of that name lacks into a ConfigError."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"task '{name}' {_lack(error)}") from error


def _lack(error: ImportError) -> str:
    module = _module(error)
    line = one_line(error)[:200]
    if not module:
        return f"needs a library that cannot be imported ({line}); install it."
    if importlib.util.find_spec(module):
        return f"needs another version of the library '{module}' ({line}); install that, or leave the task out."
    return f"needs the library '{module}', which is not installed; {_install(module)}."


def _module(error: BaseException | None) -> str:
    """Return the module that was looked for; lm-eval often raises anew without its name."""
    while error is not None:
        if isinstance(error, ImportError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__ or error.__context__
    return ""


def _install(module: str) -> str:
    """Return the command that brings a module: the extra of lm-eval that has it, or the module's own name."""
    wanted = _plain(module)
    with contextlib.suppress(PackageNotFoundError):
        for line in requires("lm-eval") or []:
            found = re.match(r"([\w.-]+).*;\s*extra == [\"']([\w-]+)[\"']", line)
            # The module antlr4 is in the distribution antlr4-python3-runtime.
            if found and f"{_plain(found[1])}-".startswith(f"{wanted}-"):
                return f"pip install 'lm-eval[{found[2]}]' or {found[1]}"
    return f"pip install {module}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
