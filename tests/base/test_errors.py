"""The exception tree and its messages."""

import pickle

import pytest

from fedloom.base import errors
from fedloom.base.errors import FedloomError, UnknownNameError, one_line, suggest

PARENTS = {
    errors.ConfigError: ValueError,
    errors.UnknownNameError: KeyError,
    errors.DataError: ValueError,
    errors.MissingFileError: FileNotFoundError,
    errors.ModelError: ValueError,
    errors.TrainingError: ArithmeticError,
    errors.MemoryExceededError: MemoryError,
    errors.CompletionError: RuntimeError,
    errors.RunError: RuntimeError,
}
every = pytest.mark.parametrize("kind", PARENTS)


def test_every_public_class_is_in_the_table():
    public = {errors.__dict__[name] for name in errors.__all__}
    assert {one for one in public if isinstance(one, type)} == {*PARENTS, FedloomError}


def test_what_others_say_is_one_line():
    assert one_line(ValueError("a \n  b\tc\n")) == "a b c"


@every
def test_refusal_derives_from_the_root(kind):
    assert issubclass(kind, FedloomError)


@every
def test_refusal_derives_from_a_class_of_the_standard_library(kind):
    assert issubclass(kind, PARENTS[kind])


@every
def test_message_is_printed_as_given(kind):
    assert str(kind("rule.mu: found -1.")) == "rule.mu: found -1."


@every
def test_refusal_without_a_message_prints_nothing(kind):
    assert str(kind()) == ""


@every
def test_refusal_survives_pickling(kind):
    again = pickle.loads(pickle.dumps(kind("a message")))
    assert (type(again), str(again)) == (kind, "a message")


def test_unknown_name_is_a_config_error():
    assert issubclass(UnknownNameError, errors.ConfigError)


def test_missing_file_is_a_data_error():
    assert issubclass(errors.MissingFileError, errors.DataError)


def test_docstring_draws_every_class():
    assert not [kind.__name__ for kind in PARENTS if kind.__name__ not in errors.__doc__]


def test_suggestion_names_the_nearest_and_all():
    assert suggest("medan", ["mean", "median"]) == "Did you mean 'median'? Known: mean, median."


def test_no_suggestion_for_a_name_far_from_all():
    assert suggest("xyz", ["mean", "median"]) == "Known: mean, median."


def test_suggestion_without_known_names():
    assert suggest("xyz", []) == "Known: none."


def test_suggestion_takes_any_iterable():
    assert suggest("b", iter(["b2", "a"])) == "Did you mean 'b2'? Known: a, b2."
