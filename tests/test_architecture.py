"""The design as tests: who imports whom, what is forbidden, what must be documented."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from support.paths import ROOT
from support.plugins import shipped

PACKAGE = ROOT / "src" / "fedloom"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
LEVELS = [
    {"base"},
    {"contracts"},
    {"text", "world", "secure_sum"},
    {"data", "models", "evaluation"},
    {"tasks", "completers", "federated"},
    {"judged", "lm_eval", "people", "split", "synthesis"},
    {"runs"},
    {"results", "diversity"},
    {"api"},
    {"session", "network"},
    {"benchmark"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
LIBRARIES = ("fedloom.runs.log_forwarding", "fedloom.session")
"""Call libraries of which nobody knows what they raise."""
FORBIDDEN_CALLS = {"getattr", "hasattr", "setattr", "eval", "exec", "print"}


def home(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fedloom":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found |= set(names)
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("fedloom.")}
    return found


def where(found):
    """What was found by file, where anything was: one test for all files, as hundreds take seconds to set up."""
    return {str(path.relative_to(PACKAGE)): what for path in FILES if (what := found(path))}


def test_modules_import_only_lower_levels_and_their_own_folder():
    def upwards(path):
        here = home(path)
        return here != "__init__" and {name for name in imports(path) if name != here and LEVEL[name] >= LEVEL[here]}

    assert not where(upwards)


def test_every_module_has_a_level():
    assert {home(path) for path in FILES} - {"__init__"} == set(LEVEL)


def test_modules_have_a_docstring_and_all():
    def missing(path):
        tree = ast.parse(path.read_text())
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
        named = any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
        return [] if ast.get_docstring(tree) and named else ["docstring or __all__"]

    assert not where(missing)


def module_name(path):
    return ".".join(["fedloom", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def test_public_names_exist():
    def missing(path):
        module = importlib.import_module(module_name(path))
        return [name for name in module.__all__ if not hasattr(module, name)]

    assert not where(missing)


def test_one_module_alone_imports_flower():
    """Interfaces that Flower keeps to itself change from month to month: what is to be looked at is in one place."""
    named = re.compile(r"(import|from|library\(f?\")\s*flwr")
    assert [module_name(path) for path in FILES if named.search(path.read_text())] == ["fedloom.network.flower"]


def test_importing_every_module_is_silent():
    code = f"import {', '.join(module_name(path) for path in FILES)}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_forbidden_constructs_are_absent():
    assert not where(forbidden_in)


def forbidden_in(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assert):
            found.append(f"assert in line {node.lineno}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            forbidden = FORBIDDEN_CALLS - ({"print"} if module_name(path) == "fedloom.cli.main" else set())
            found += [f"{node.func.id} in line {node.lineno}"] * (node.func.id in forbidden)
        broad = isinstance(node, ast.ExceptHandler) and (
            node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
        )
        # tokenizers raises no narrower class; a user's program, and foreign libraries, may raise anything, and so may
        # Flower over what a stranger has sent
        if broad and module_name(path) not in (
            "fedloom.text.tokenizer",
            "fedloom.base.outside",
            "fedloom.lm_eval._apart",
            "fedloom.network.flower",
            *LIBRARIES,
        ):
            found.append(f"broad except in line {node.lineno}")
    text = path.read_text()
    drawing = r"manual_seed|np\.random\b(?!\.Generator\b)|random\.seed|import random\b"  # naming the type draws nothing
    if module_name(path) != "fedloom.base.rng" and re.search(drawing, text):
        found.append("randomness without a name")
    # One module reads pickles of arrays, answering every name that they ask for from a table of its own.
    pickles = "" if module_name(path) == "fedloom.people.unpickle" else r"|(import|from) pickle"
    leftovers = r"register_\w*hook|torch\.load\(|trust_remote_code=True|TODO|FIXME|NotImplementedError"
    if re.search(leftovers + pickles, text):
        found.append("hook, pickle, remote code or leftover")
    return found


def test_everything_pretrained_is_loaded_through_one_door_without_code_of_its_own():
    calls = [
        (module_name(path), node.lineno)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
    ]
    assert [name for name, _ in calls] == ["fedloom.text.pretrained"]
    assert "trust_remote_code=False" in (PACKAGE / "text" / "pretrained.py").read_text()


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            yield f"{path.relative_to(PACKAGE)}:{node.name}", body[-1].end_lineno - body[0].lineno + 2


def test_no_function_is_longer_than_60_lines():
    assert not [(name, length) for path in FILES for name, length in functions(path) if length > 60]


def test_median_function_is_at_most_8_lines():
    lengths = sorted(length for path in FILES for _, length in functions(path))
    assert lengths[len(lengths) // 2] <= 8


def test_no_module_is_longer_than_400_lines():
    assert not [str(path) for path in FILES if len(path.read_text().splitlines()) > 400]


BUDGET = {
    "api": 110,
    "base": 1_860,
    "benchmark": 3_150,
    "cli": 2_580,
    "completers": 1_290,
    "contracts": 3_175,
    "data": 4_180,
    "diversity": 1_100,
    "evaluation": 2_620,
    "federated": 6_200,
    "judged": 1_600,
    "session": 340,
    "lm_eval": 2_300,
    "models": 4_640,
    "network": 7_250,
    "people": 7_950,
    "results": 1_520,
    "runs": 8_860,
    "secure_sum": 1_650,
    "split": 3_780,
    "tasks": 1_010,
    "synthesis": 2_980,
    "text": 930,
    "world": 1_830,
}
"""Lines of a folder: one that grows says so here."""


def test_every_folder_has_a_budget():
    assert set(BUDGET) == set(LEVEL) - {"__main__"}


@pytest.mark.parametrize("room", BUDGET)
def test_folder_stays_under_its_budget(room):
    assert sum(len(path.read_text().splitlines()) for path in FILES if home(path) == room) < BUDGET[room]


def test_no_private_module_is_imported_across_folders():
    def private(path):
        here = module_name(path).split(".")
        for name in targets(path):
            parts = name.split(".")
            first = next((n for n, part in enumerate(parts) if part.startswith("_")), None)
            if first is not None and here[:first] != parts[:first]:
                yield name

    assert not where(lambda path: list(private(path)))


def targets(path):
    """All that a module imports from the package, to the last name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fedloom":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_outside_their_families_compares_arrangements_or_units_of_privacy_with_words():
    """What differs between them is asked of them: a new one is one file."""
    families = ("fedloom.runs.arrangements", "fedloom.federated.privacy", "fedloom.contracts.privacy")
    words = {"federated", "local_only", "centralised", "clustered", "client_local"}

    def compared(path):
        if module_name(path).startswith(families):
            return
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                told = ast.unparse(node)
                literal = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                asked = re.search(r"\bprotocol\.name|\.covers\(\)\.name|\bunit\b|\['(unit|protocol)'\]", told)
                if literal & words or (literal and asked):
                    yield told

    assert not where(lambda path: list(compared(path)))


MEASURING = {"results", "benchmark", "cli"}
"""Rooms that may read the truth of a simulation, beside tools and tests."""


def test_the_truth_of_a_simulation_is_written_once_and_read_by_those_who_measure_alone():
    """No aggregator, filter, generator, selector, preparation or refinement gets at what it is measured by."""
    written, read, asked, named = [], [], [], []
    for path in FILES:
        tree, name = ast.parse(path.read_text()), module_name(path)
        taken = set(targets(path))
        written += [name] * ("fedloom.runs.truth.write_truth" in taken)
        read += [name] * any(one.startswith("fedloom.results.truth") for one in taken)
        asked += [name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "truth"]
        named += [name for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value == "truth.json"]
    assert (written, asked, named) == (["fedloom.runs.execute"], ["fedloom.runs.execute"], ["fedloom.runs.truth"])
    assert {name.split(".")[1] for name in read} <= MEASURING


def families():
    from fedloom.base.plugin import Family
    from fedloom.contracts import arrangement, diversity, evaluation, federated, generation, stages, synthesis

    public = {
        name: value
        for one in (arrangement, diversity, evaluation, federated, generation, stages, synthesis)
        for name, value in vars(one).items()
    }
    return [value for value in public.values() if isinstance(value, type) and Family in value.__bases__]


def test_documents_list_exactly_the_registered_plugins():
    listed = set(re.findall(r"^\| `(\w+)/(\w+)` \|", (ROOT / "docs" / "algorithms.md").read_text(), re.MULTILINE))
    known = {(family.folder.split(".")[-1], name) for family in families() for name in shipped(family)}
    assert listed == known


def test_every_plugin_is_registered_under_its_module_name():
    from fedloom.base.plugin import lookup, names

    wrong = [name for family in families() for name in names(family) if lookup(family, name).name != name]
    assert not wrong


@pytest.mark.parametrize("words", [["-c", "import fedloom"], ["-m", "fedloom", "--help"]])
def test_light_entries_do_not_import_heavy_libraries(words):
    code = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "peft"}
    imported = {line.split("|")[-1].strip().split(".")[0] for line in code.stderr.splitlines()}
    assert not imported & heavy


def test_no_shipped_file_names_a_path_of_a_machine():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = {n: (ROOT / n).read_text(errors="ignore") for n in names if not n.endswith((".safetensors", "LICENSE"))}
    own = "tests/test_architecture.py"
    assert not [
        name for name, text in texts.items() if name != own and re.search(r"(?<![\w.])/(root|work|home)/", text)
    ]


def called(path, name):
    """The lines of a module that call something of that name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            own = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if own == name:
                yield f"{name} in line {node.lineno}"


def test_generators_are_asked_and_filters_carried_out_in_one_place_each():
    """Stages of all kinds share them: who opens a completer, who walks a chain, who draws clients."""
    homes = {
        "opened": {"fedloom.completers.answer_file"},
        "judged": {
            "fedloom.synthesis.record",
            "fedloom.synthesis.distilling",
            "fedloom.runs.refinements.realign",
            "fedloom.runs.preparations.generated",
        },
        "drawn_clients": {"fedloom.federated.rounds", "fedloom.runs.budgets"},
    }
    for name, allowed in homes.items():
        found = {module_name(path) for path in FILES if list(called(path, name))}
        assert found == allowed, name


def test_documents_give_no_figures_of_systems_whose_papers_nobody_has_read():
    texts = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines = [line for path in texts for line in path.read_text().splitlines()]
    told = [line for line in lines if re.search(r"U2S|FedGC", line) and re.search(r"\d\s?(%|percent|points)", line)]
    assert not told
