"""A model of ours on this machine, with the template that it was trained in."""

import contextlib
import json
from collections.abc import Generator
from dataclasses import field
from functools import partial

from fedloom.base.machine import Device, device_of
from fedloom.base.plugin import AtLeast, default, plugin
from fedloom.completers._identity import template_table
from fedloom.contracts.evaluation import Answer, Completer
from fedloom.contracts.federated import ModelFamily, Template
from fedloom.contracts.language import language_model
from fedloom.models.generation import complete_with

__all__ = ["LocalModel"]


@plugin("model")
class LocalModel(Completer):
    """A model by its settings; it is loaded when it is opened, and let go afterwards."""

    model: ModelFamily = field(default_factory=default(ModelFamily, "causal_lm"))
    """The model, as a run file names one."""
    template: Template = field(default_factory=default(Template, "own"))
    """How turns become text."""
    batch: AtLeast = 16
    """Prompts answered together."""
    device: Device = "auto"
    """What answers."""

    def identity(self) -> str:
        """Return the hashes of model and template; device and batch move answers by rounding only."""
        known = {"model": json.loads(self.model.identity()), "template": template_table(self.template)}
        return json.dumps(known, sort_keys=True)

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Load the model; a prompt too long for it never has an answer, a template that does not fit is refused."""
        model = language_model(self.model.build(seed=0, device=device_of(self.device)))
        yield partial(complete_with, model, model.trainable, self.template, batch=self.batch)

    def together(self) -> int:
        """Return several batches, so that prompts of like length share one."""
        return 8 * self.batch
