"""Prompts from templates: one wording for all samples of a class, or several with attributes.

FedGC (arXiv 2312.05807) names single and multiple prompts as options; its texts are not public.
"""

from string import Formatter

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.contracts.generation import Place, Prompter

__all__ = ["Multiple", "Single"]


@plugin("single")
class Single(Prompter):
    """One template."""

    template: str = "a photo of {label}"
    """Words with {label} in them."""

    def check(self) -> None:
        """Refuse a template without its class."""
        check_template("template", self.template, {"label"})

    def __call__(self, label: str, count: int, seed: int, place: Place) -> list[str]:
        """Return the same words for all."""
        return [self.template.format(label=label)] * count


@plugin("multiple")
class Multiple(Prompter):
    """A template and an attribute, drawn for each sample."""

    templates: tuple[str, ...] = ("a photo of {label}, {attribute}", "a picture of {label}, {attribute}")
    """Words with {label} in them and perhaps {attribute}."""
    attributes: tuple[str, ...] = ("close up", "from afar", "in bright light", "in the dark", "as a drawing")
    """Scenes, styles, points of view."""

    def check(self) -> None:
        """Refuse templates without their class, and none."""
        if not self.templates or not self.attributes:
            raise ConfigError("templates, attributes: found none, allowed is one and more of both.")
        for at, template in enumerate(self.templates):
            check_template(f"templates[{at}]", template, {"label", "attribute"})

    def __call__(self, label: str, count: int, seed: int, place: Place) -> list[str]:
        """Return words for each sample; both draws go by seed and class."""
        random = rng.python_random("prompts", seed, label)
        return [
            random.choice(self.templates).format(label=label, attribute=random.choice(self.attributes))
            for _ in range(count)
        ]


def check_template(key: str, template: str, allowed: set[str]) -> None:
    """Refuse a template that names anything but what is allowed, or not the class."""
    try:
        named = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{key}: '{template}' is no template: {error}.") from error
    if "label" not in named or not named <= allowed:
        raise ConfigError(f"{key}: found '{template}', allowed is a text with {{label}} in it and no other braces.")
