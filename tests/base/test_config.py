"""Strict run files: nothing wrong is ignored, and what is written reads back equal."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.config import apply_override, build, differing_keys, dump, parse, read_toml, table_of
from fedloom.base.errors import ConfigError, MissingFileError, UnknownNameError
from fedloom.base.plugin import AtLeast, NonNegative, check_ranges, lookup
from fedloom.contracts.federated import LocalSettings, Rule, ServerOpt
from support.shapes import Shape
from support.shapes.circle import Circle
from support.shapes.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run with a field of every kind."""

    title: str
    rounds: AtLeast = 2
    share: float = 0.5
    quick: bool = False
    mode: Literal["slow", "fast"] = "slow"
    folder: Path = Path("out")
    limit: NonNegative | None = None
    tags: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict[str, int])
    local: LocalSettings = field(default_factory=LocalSettings)
    shape: Shape = field(default_factory=Circle)
    second: Shape | None = None
    rule: Rule = field(default_factory=lambda: lookup(Rule, "plain")())
    server_opt: ServerOpt = field(default_factory=lambda: lookup(ServerOpt, "sgd")())

    def __post_init__(self):
        check_ranges(self)
        if self.rounds > 100:
            raise ConfigError(f"rounds: found {self.rounds}, allowed is at most 100.")


def run_of(text):
    return build(Run, parse(text, "test.toml"))


# text of a run file, and what is said about it
REFUSED = {
    'titel = "x"': r"^titel: unknown key\. Did you mean 'title'\? Known: .*local, .*title\.$",
    "rounds = 2": r"^title: missing; it has no default\.$",
    'title = "x"\nrounds = "53k"': r"^rounds: found '53k', allowed is a whole number\.$",
    'title = "x"\nrounds = 2.5': r"^rounds: found 2\.5, allowed is a whole number\.$",
    'title = "x"\nrounds = 2.0': r"^rounds: found 2\.0, allowed is a whole number\.$",
    'title = "x"\nrounds = true': r"^rounds: found True, allowed is a whole number\.$",
    'title = "x"\nrounds = 0': r"^rounds: found 0, allowed is a number >= 1\.$",
    'title = "x"\nrounds = 101': r"^rounds: found 101, allowed is at most 100\.$",
    'title = "x"\nshare = "half"': r"^share: found 'half', allowed is a number\.$",
    'title = "x"\nshare = false': r"^share: found False, allowed is a number\.$",
    'title = "x"\nquick = 1': r"^quick: found 1, allowed is true or false\.$",
    'title = "x"\nquick = "true"': r"^quick: found 'true', allowed is true or false\.$",
    "title = 3": r"^title: found 3, allowed is text in quotes\.$",
    'title = "x"\nmode = "fats"': r"^mode: found 'fats'\. Did you mean 'fast'\? Known: fast, slow\.$",
    'title = "x"\nfolder = 3': r"^folder: found 3, allowed is a path in quotes\.$",
    'title = "x"\nlimit = -1': r"^limit: found -1\.0, allowed is a number >= 0\.$",
    'title = "x"\nlimit = nan': r"^limit: found nan, allowed is a number >= 0\.$",
    'title = "x"\ntags = "a"': r"^tags: found 'a', allowed is a list\.$",
    'title = "x"\ntags = ["a", 3]': r"^tags\[1\]: found 3, allowed is text in quotes\.$",
    'title = "x"\ncounts = 3': r"^counts: found 3, allowed is a table\.$",
    'title = "x"\ncounts = {a = "b"}': r"^counts\.a: found 'b', allowed is a whole number\.$",
    'title = "x"\nlocal = 3': r"^local: found 3, allowed is a table\.$",
    'title = "x"\nlocal = {lrr = 1.0}': r"^local\.lrr: unknown key\. Did you mean 'lr'\?",
    'title = "x"\nlocal = {steps = "53k"}': r"^local\.steps: found '53k', allowed is a whole number\.$",
    'title = "x"\nlocal = {lr = 0}': r"^local\.lr: found 0\.0, allowed is a number > 0\.$",
    'title = "x"\nlocal = {lr = inf}': r"^local\.lr: found inf, allowed is a number > 0\.$",
    'title = "x"\nlocal = {lr = 1e-4, lr_final = 1e-3}': r"^local\.lr_final: found 0\.001, allowed is at most",
    'title = "x"\nshape = 3': r"^shape: found 3, allowed is a table with 'name'\.$",
    'title = "x"\nshape = {width = 1}': r"^shape\.width: 'circle' has no such setting, .* 'frame'\.$",
    'title = "x"\nsecond = {radius = 1.0}': r"^second\.name: missing; name the Shape to use\.$",
    'title = "x"\nshape = "circel"': r"^shape\.name: no Shape called 'circel'\. Did you mean 'circle'\?",
    'title = "x"\nshape = {name = "circle", width = 1}': r"^shape\.width: 'circle' has no such setting, .* 'frame'\.$",
    'title = "x"\nshape = {name = "circle", radius = -1}': r"^shape\.radius: found -1\.0, allowed is a number > 0\.$",
    'title = "x"\nshape = {name = "frame", inner = {name = "circle", radius = -1}}': r"^shape\.inner\.radius: found",
    'title = "x"\nshape = {name = "frame", inner = {name = "circel"}}': r"^shape\.inner\.name: no Shape called",
    'title = "x"\nshape = {name = "frame", inner = "frame"}': r"^shape\.inner: found 'frame', allowed is any other",
    'title = "x"\nshape = {name = "frame", gaps = [0.5, 2]}': r"^shape\.gaps: found 2\.0, allowed is .* <= 1\.$",
    'title = "x"\nrule = "fedprx"': r"^rule\.name: no Rule called 'fedprx'\. .*Known: .*plain, prox, scaffold",
    'title = "x"\nrule = {name = "prox", mu = -0.1}': r"^rule\.mu: found -0\.1, allowed is a number >= 0\.$",
    'title = "x"\nrule = {name = "plain", mu = 0.1}': r"^rule\.mu: 'plain' has no such setting, .* 'prox'\.$",
    'title = "x"\nserver_opt = "adagard"': r"^server_opt\.name: no ServerOpt called .* mean 'adagrad'\?",
    'title = "x"\nserver_opt = {name = "adam", beta1 = 1.0}': r"^server_opt\.beta1: found 1, allowed is .* < 1\.$",
    'title = "x"\nserver_opt = {name = "adam", variant = "redi"}': r"^server_opt\.variant: found 'redi'\. Did you mean",
    "title = ": r"^test\.toml: not valid TOML: ",
    'title = "x"\ntitle = "y"': r"^test\.toml: not valid TOML: ",
}


@pytest.mark.parametrize("text", REFUSED)
def test_nothing_wrong_is_ignored(text):
    with pytest.raises(ConfigError, match=REFUSED[text]):
        run_of(text)


@pytest.mark.parametrize("text", ['titel = "x"', 'title = "x"\nrule = "fedprx"', 'title = "x"\nlocal = {lrr = 1.0}'])
def test_unknown_name_has_its_own_class(text):
    with pytest.raises(UnknownNameError):
        run_of(text)


def test_defaults_are_taken():
    assert run_of('title = "x"') == Run(title="x")


def test_whole_number_is_taken_for_a_number():
    assert isinstance(run_of('title = "x"\nshare = 1').share, float)


def test_plugin_may_be_given_by_its_name_alone():
    assert run_of('title = "x"\nrule = "prox"').rule == lookup(Rule, "prox")()


def test_table_without_a_name_is_of_the_default_plugin():
    assert run_of('title = "x"\nshape = {radius = 2.0}').shape == Circle(radius=2.0)


def test_plugin_takes_its_fields_from_the_table():
    assert run_of('title = "x"\nrule = {name = "prox", mu = 0.5}').rule == lookup(Rule, "prox")(mu=0.5)


def test_building_leaves_the_table_alone():
    table = parse('title = "x"\nshape = {name = "circle"}', "test.toml")
    build(Run, table)
    assert table == {"title": "x", "shape": {"name": "circle"}}


RUNS = {
    "defaults": Run(title="x"),
    "everything": Run(
        title='quotes " and \\ and \n lines, ümlaut',
        rounds=7,
        share=0.1 + 0.2,
        quick=True,
        mode="fast",
        folder=Path("a b/c"),
        limit=0.0,
        tags=("a", "b"),
        counts={"x y": 1, "z": 2},
        local=LocalSettings(lr=1e-7, optimiser="sgd"),
        shape=Frame(inner=Circle(radius=1e22), gaps=(0.0, 1.0), width=3),
        rule=lookup(Rule, "prox")(mu=1e-300),
        server_opt=lookup(ServerOpt, "yogi")(initial=0.0, variant="published"),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_dumped_run_builds_an_equal_one(name):
    assert run_of(dump(RUNS[name])) == RUNS[name]


@pytest.mark.parametrize("name", RUNS)
def test_dump_of_a_reloaded_run_is_the_same_text(name):
    assert dump(run_of(dump(RUNS[name]))) == dump(RUNS[name])


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    st.builds(
        Run,
        title=st.text(st.characters(exclude_categories=["Cs"])),
        share=st.floats(allow_nan=False),
        limit=st.none() | st.floats(0, 1e300),
        tags=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3).map(tuple),
        counts=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**60), 2**60), max_size=3
        ),
        shape=st.builds(Frame, inner=st.builds(Circle, radius=st.floats(1e-300, 1e300)), gaps=st.just((0.25,))),
    )
)
def test_any_run_round_trips(run):
    assert run_of(dump(run)) == run


def test_resolved_table_writes_out_every_default():
    assert table_of(Run(title="x"))["local"]["beta2"] == 0.999


def test_resolved_table_leaves_none_out():
    assert "limit" not in table_of(Run(title="x"))


@dataclass(frozen=True)
class WithDefault:
    limit: float | None = 1.0


def test_none_that_is_not_the_default_cannot_be_written():
    with pytest.raises(ConfigError, match=r"^limit: found None, its default is 1\.0: no run file can say None\.$"):
        dump(WithDefault(limit=None))


# override, and what becomes of {"title": "x", "local": {"lr": 1.0}, "rule": "prox"}
OVERRIDES = {
    "rounds=3": {"rounds": 3},
    " rounds = 3 ": {"rounds": 3},
    "title=y": {"title": "y"},
    'title="y z"': {"title": "y z"},
    "title=a=b": {"title": "a=b"},
    "local.lr=1e-4": {"local": {"lr": 1e-4}},
    "local.steps=5": {"local": {"lr": 1.0, "steps": 5}},
    "rule=plain": {"rule": "plain"},
    "rule.mu=0.5": {"rule": {"name": "prox", "mu": 0.5}},
    "rule.name=plain": {"rule": {"name": "plain"}},
    "shape.inner.radius=2.0": {"shape": {"inner": {"radius": 2.0}}},
    "quick=true": {"quick": True},
    'tags=["a", "b"]': {"tags": ["a", "b"]},
    "rounds=53k": {"rounds": "53k"},
}
BASE = {"title": "x", "local": {"lr": 1.0}, "rule": "prox"}


@pytest.mark.parametrize("override", OVERRIDES)
def test_override_sets_its_key_alone(override):
    assert apply_override(BASE, override) == BASE | OVERRIDES[override]


def test_override_leaves_the_table_alone():
    table = {"local": {"lr": 1.0}}
    apply_override(table, "local.lr=2.0")
    assert table == {"local": {"lr": 1.0}}


@pytest.mark.parametrize("override", ["rounds", "=3", " = 3", ""])
def test_override_that_is_no_pair_is_refused(override):
    with pytest.raises(
        ConfigError, match=rf"^override '{override}': allowed is key=value, for instance local\.lr=1e-4\.$"
    ):
        apply_override(BASE, override)


@pytest.mark.parametrize("override", ["local..lr=1", ".lr=1", "local.=1"])
def test_override_with_an_empty_part_is_refused(override):
    with pytest.raises(ConfigError, match=r"^override '.*': allowed is key=value"):
        apply_override(BASE, override)


def test_override_below_a_number_is_refused_with_the_whole_override():
    with pytest.raises(ConfigError, match=r"^override 'local\.lr\.x=1': 'local\.lr' is 1\.0, no table\.$"):
        apply_override(BASE, "local.lr.x=1")


def test_override_of_several_lines_is_no_second_override():
    table = apply_override(BASE, "rounds=3\nquick = true")
    with pytest.raises(ConfigError, match=r"^rounds: found '3"):
        build(Run, table)


def test_unknown_key_in_an_override_is_refused_like_one_in_the_file():
    with pytest.raises(UnknownNameError, match=r"^local\.lrr: unknown key\. Did you mean 'lr'\?"):
        build(Run, apply_override(BASE, "local.lrr=1e-4"))


def test_bad_number_in_an_override_is_refused_by_its_path():
    with pytest.raises(ConfigError, match=r"^rounds: found '53k', allowed is a whole number\.$"):
        build(Run, apply_override(BASE, "rounds=53k"))


def test_missing_run_file_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.toml: no such TOML file; give the path of one\.$"):
        read_toml(tmp_path / "nowhere.toml")


def test_malformed_run_file_is_refused_with_its_path(tmp_path):
    (tmp_path / "bad.toml").write_text("title = ")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML: "):
        read_toml(tmp_path / "bad.toml")


def test_run_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML: "):
        read_toml(tmp_path / "bad.toml")


def test_run_file_is_read(tmp_path):
    (tmp_path / "good.toml").write_text('title = "x"')
    assert read_toml(tmp_path / "good.toml") == {"title": "x"}


DIFFERENCES = [
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1}, {"a": 2}, ["a"]),
    ({"a": 1}, {}, ["a"]),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c"]),
    ({"a": {"b": 1}}, {"a": 3}, ["a"]),
    ({"b": 1, "a": {"z": {"y": 1}}}, {"b": 2, "a": {"z": {"y": 2}}}, ["a.z.y", "b"]),
]


@pytest.mark.parametrize(("one", "other", "keys"), DIFFERENCES)
def test_differing_keys_are_named_with_their_paths(one, other, keys):
    assert differing_keys(one, other) == keys


def test_number_out_of_range_in_python_is_refused_too():
    with pytest.raises(ConfigError, match=r"^limit: found -1\.0"):
        build(Run, {"title": "x", "limit": -1.0})


def test_infinite_number_without_a_range_is_allowed():
    assert math.isinf(run_of('title = "x"\nshare = inf').share)
