"""Families, registration, ranges."""

import math
import pickle
import sys
from dataclasses import FrozenInstanceError, dataclass, fields
from types import ModuleType

import pytest

from fedloom.base.errors import ConfigError, UnknownNameError
from fedloom.base.plugin import AtLeast, Family, Fraction, Range, lookup, names, plugin
from support.shapes import Shape
from support.shapes.circle import Circle
from support.shapes.frame import Frame


class Colour(Family):
    """A family whose plug-ins are only registered."""

    folder = "support.shapes"


class Taste(Family):
    """Another one."""

    folder = "support.shapes"


def test_names_are_the_modules_of_the_folder():
    assert names(Shape) == ["circle", "frame"]


def test_lookup_finds_the_class():
    assert lookup(Shape, "circle") is Circle


def test_lookup_imports_only_the_module_of_that_name(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_for_tests"
    folder.mkdir()
    family = "from fedloom.base.plugin import Family\nclass Lazy(Family):\n    folder = 'lazy_for_tests'\n"
    (folder / "__init__.py").write_text(family)
    for name in ("one", "two"):
        lines = "from fedloom.base.plugin import plugin\nfrom lazy_for_tests import Lazy\n"
        (folder / f"{name}.py").write_text(f"{lines}@plugin('{name}')\nclass It(Lazy):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import lazy_for_tests

    lookup(lazy_for_tests.Lazy, "one")
    assert "lazy_for_tests.two" not in sys.modules


def test_names_of_one_module_are_found_by_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "pairs_for_tests"
    folder.mkdir()
    family = "from fedloom.base.plugin import Family\nclass Pair(Family):\n    folder = 'pairs_for_tests'\n"
    (folder / "__init__.py").write_text(family)
    text = "from fedloom.base.plugin import plugin\nfrom pairs_for_tests import Pair\nclass Either(Pair):\n    n = 0\n"
    text += "".join(
        f"@plugin('{name}')\nclass {name}(Either):\n    n = {n}\n" for n, name in enumerate(("left", "right"))
    )
    (folder / "either.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    import pairs_for_tests

    found = [lookup(pairs_for_tests.Pair, name)() for name in names(pairs_for_tests.Pair)]
    assert [(one.name, one.n) for one in found] == [("left", 0), ("right", 1)]


def test_settings_of_a_class_between_a_plugin_and_its_family_are_settings():
    @dataclass(frozen=True, kw_only=True)
    class Hue(Colour):
        depth: AtLeast = 1

    dark = plugin("dark")(type("Dark", (Hue,), {}))
    with pytest.raises(ConfigError, match="depth: found 0"):
        dark(depth=0)
    assert lookup(Colour, "dark")(depth=2).depth == 2


def test_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(
        UnknownNameError, match=r"^no Shape called 'circel'\. Did you mean 'circle'\? Known: circle, frame\.$"
    ):
        lookup(Shape, "circel")


def test_helper_module_is_no_plugin():
    with pytest.raises(UnknownNameError, match="no Shape called '_helper'"):
        lookup(Shape, "_helper")


def test_plugin_knows_its_name():
    assert Circle().name == "circle"


def test_plugin_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Circle().radius = 2.0


def test_plugin_takes_keywords_only():
    with pytest.raises(TypeError):
        Circle(2.0)


def test_plugins_of_equal_fields_are_equal():
    assert Frame(inner=Circle(radius=2.0)) == Frame(inner=Circle(radius=2.0))


def test_plugin_prints_its_settings():
    assert repr(Circle(radius=2.0)) == "Circle(radius=2.0)"


def test_nested_plugin_survives_pickling():
    frame = Frame(inner=Circle(radius=2.0), gaps=(0.5, 1.0))
    assert pickle.loads(pickle.dumps(frame)) == frame


def test_class_variables_are_no_fields():
    assert [item.name for item in fields(Circle)] == ["radius"]


def test_plugin_of_two_families_is_refused():
    with pytest.raises(TypeError, match=r"^plug-in Sweet must derive from exactly one family and from nothing else\.$"):

        @plugin("sweet")
        class Sweet(Colour, Taste):
            pass


def test_plugin_of_no_family_is_refused():
    with pytest.raises(TypeError, match="plug-in Nothing must derive from exactly one family"):

        @plugin("nothing")
        class Nothing:
            pass


def test_plugin_that_derives_from_a_plugin_is_refused():
    with pytest.raises(TypeError, match="plug-in BigCircle must derive from exactly one family"):

        @plugin("big_circle")
        class BigCircle(Circle):
            pass


def test_refused_plugin_is_not_registered():
    with pytest.raises(TypeError):
        plugin("ghost")(type("Ghost", (Circle,), {}))
    assert "ghost" not in names(Shape)


def test_two_plugins_of_one_name_in_two_modules_are_refused():
    plugin("red")(type("Red", (Colour,), {"__module__": "somewhere"}))
    with pytest.raises(ConfigError, match=r"^two plug-ins of family Colour are called 'red': rename one\.$"):
        plugin("red")(type("Red", (Colour,), {"__module__": "elsewhere"}))


def test_two_plugins_of_one_name_in_one_module_are_refused():
    plugin("green")(type("Green", (Colour,), {"__module__": "somewhere"}))
    with pytest.raises(ConfigError, match=r"^two plug-ins of family Colour are called 'green': rename one\.$"):
        plugin("green")(type("AlsoGreen", (Colour,), {"__module__": "somewhere"}))


def test_module_that_is_imported_anew_may_register_again():
    plugin("blue")(type("Blue", (Colour,), {"__module__": "somewhere"}))
    again = plugin("blue")(type("Blue", (Colour,), {"__module__": "somewhere"}))
    assert lookup(Colour, "blue") is again


def test_one_name_in_two_families_is_allowed():
    first = plugin("rich")(type("Rich", (Colour,), {}))
    second = plugin("rich")(type("Rich", (Taste,), {}))
    assert (lookup(Colour, "rich"), lookup(Taste, "rich")) == (first, second)


def test_registered_plugin_is_named_beside_the_shipped_ones():
    plugin("sour")(type("Sour", (Taste,), {}))
    assert {"sour", "circle"} <= set(names(Taste))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_value_out_of_range_is_refused(radius):
    with pytest.raises(ConfigError, match=r"^radius: found .*, allowed is a number > 0\.$"):
        Circle(radius=radius)


def test_item_of_a_tuple_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"^gaps: found 1\.5, allowed is a number >= 0 and <= 1\.$"):
        Frame(gaps=(0.5, 1.5))


def test_count_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"^width: found 0, allowed is a number >= 1\.$"):
        Frame(width=0)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"^inner: found 'frame'"):
        Frame(inner=Frame())


def test_optional_number_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"^share: found 2\.0, allowed"):
        plugin("mild")(type("Mild", (Taste,), {"__annotations__": {"share": Fraction | None}, "share": None}))(
            share=2.0
        )


def test_optional_number_may_be_left_out():
    kind = plugin("plain")(type("PlainTaste", (Taste,), {"__annotations__": {"many": AtLeast | None}, "many": None}))
    assert kind().many is None


@pytest.mark.parametrize(("value", "inside"), [(0, False), (0.1, True), (1, True), (1.1, False)])
def test_range_with_an_excluded_end(value, inside):
    assert (value in Range(0, 1, low_excluded=True)) == inside


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_range_holds_a_number_that_is_not_finite(value):
    assert value not in Range(-math.inf)


def test_lookup_needs_no_module_for_a_registered_plugin(monkeypatch):
    registered = plugin("made")(type("Made", (Taste,), {}))
    monkeypatch.setitem(sys.modules, "support.shapes.made", ModuleType("empty"))
    assert lookup(Taste, "made") is registered
