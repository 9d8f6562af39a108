"""Texts with places to fill: templates of Jinja, in files beside the code that fills them."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from fedloom.base.shown import in_markdown

__all__ = ["text_template"]


@cache
def text_template(package: str, name: str) -> Template:
    """Return a template of plain text in a package; a line of a statement leaves none, what is not given is refused."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = lambda value: in_markdown(str(value))
    return environment.get_template(name)
