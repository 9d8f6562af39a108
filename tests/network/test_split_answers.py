"""Answers of a split run between machines: those of the whole model, also when the server is killed on the way."""

import threading

import pytest
from typer.testing import CliRunner

from fedloom.base.errors import ConfigError, DataError
from fedloom.cli.main import app
from fedloom.contracts.examples import Chat, Turn
from fedloom.network import answering
from fedloom.network.channel import Link
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import load_model
from fedloom.runs.split_answers import answered_here, trained_in
from fedloom.runs.tuning import run_of
from fedloom.split.sessions import Sessions
from network.test_split_rounds import SPLIT, split_federation
from support.models import model_folder
from support.resuming import run_to_the_end
from support.small_runs import small_run, write_records

pytestmark = pytest.mark.timeout(180)
QUESTIONS = ["What is north of the river?", "Tell a story: one day Lily went to the park and"]
NEW = 6


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    model = {"name": "causal_lm", "path": "", "lora_rank": 2}  # the embedded one, which says more than one word
    task = {"name": "sft", "max_length": 400, "template": {"name": "vicuna"}}
    made = split_federation(
        folder, policy={"max_length": 400}, model=model, task=task, local=SPLIT["local"] | {"lr": 1e-3}
    )
    made.to_the_end(folder / "run")
    return made, folder / "run"


class Serving:
    """A server of answers, which can be killed and started again at the same port."""

    def __init__(self, made, out):
        self.made, self.out = made, out

    def __enter__(self):
        self.stop, ready = threading.Event(), threading.Event()

        def listening(port):
            self.made.port = port
            ready.set()

        self.thread = threading.Thread(
            target=answering.serve_answers,
            args=(self.out,),
            kwargs={"listen": f"127.0.0.1:{self.made.port}", "on_listening": listening, "stop": self.stop},
        )
        self.thread.start()
        ready.wait()
        for name in self.made.owners:
            self.made.write_node(name)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def again(self):
        self.__exit__()
        self.__enter__()


def whole(out, client, questions=QUESTIONS):
    """What the run's own model answers, on one machine."""
    run = run_of(RunDirectory.open(out))
    model = load_model(run).model
    params = model.trainable | trained_in(run, model, out, client)
    asked = [Chat((Turn("user", text), Turn("assistant", ""))) for text in questions]
    return [one.text for one in run.task.examining().predict(model, params, [asked], max_new_tokens=NEW)[0]]


def test_a_nodes_answers_are_those_of_the_whole_model_and_its_ledger_counts_what_left(served):
    made, out = served
    with Serving(made, out):
        found = answering.ask_server(made.node("south"), QUESTIONS, adapter=out / "adapter", max_new_tokens=NEW)
    assert found == whole(out, "client1") and all(len(text.split()) > 3 for text in found)
    assert found == answered_here(run_of(RunDirectory.open(out)), out, QUESTIONS, client="client1", max_new_tokens=NEW)
    told = made.node("south").ledger.records()[-1]
    assert told["kind"] == "answered" and told["bytes_READ"] == told["bytes_TOLD"] > 0
    assert not any(question in str(told) for question in QUESTIONS)


def test_a_server_that_is_killed_while_an_answer_is_written_changes_nothing(served, monkeypatch):
    made, out = served
    answer, count = Sessions.answer, []
    with Serving(made, out) as serving:
        wanted = answering.ask_server(made.node("west"), QUESTIONS, adapter=out / "adapter", max_new_tokens=NEW)

        def dying(self, asked):
            count.append(asked)
            if len(count) == 7:  # in the middle of both answers
                threading.Thread(target=serving.again).start()
                serving.stop.wait()
            return answer(self, asked)

        monkeypatch.setattr(Sessions, "answer", dying)
        assert answering.ask_server(made.node("west"), QUESTIONS, adapter=out / "adapter", max_new_tokens=NEW) == wanted
    assert any(asked.kind == "READ" and asked.micro == 0 and asked.step == 1 for asked in count[7:])  # read anew


def test_a_node_has_no_answers_written_for_clients_of_others(served):
    made, out = served
    with Serving(made, out):
        home = made.node("north")
        with pytest.raises(ConfigError, match="allowed is one of client0"):
            answering.ask_server(home, QUESTIONS, client="client1", adapter=None, max_new_tokens=NEW)
        other = made.node("south").file
        link = Link(home.file.address, home.file.server, home.keys(), "north")
        with pytest.raises(DataError, match="no session of this node's"):
            run = run_of(RunDirectory.open(out))
            answering.answered(
                run,
                ["x"],
                lambda messages: [link.exchange("", one) for one in messages],
                client=next(iter(other.data)),
                adapter=None,
                max_new_tokens=NEW,
            )


def test_the_command_answers_from_a_run_and_refuses_in_one_line(served):
    _, out = served
    done = CliRunner().invoke(app, ["split", "generate", str(out), *QUESTIONS, "--max-new-tokens", str(NEW)])
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line] == [line for line in whole(out, "") if line]
    wrong = CliRunner().invoke(app, ["split", "generate", str(out), "x", "--adapter", str(out)])
    assert isinstance(wrong.exception, ConfigError) and "which has its own" in str(wrong.exception)
    long = CliRunner().invoke(app, ["split", "generate", str(out), "x " * 3000])
    assert isinstance(long.exception, DataError) and "longer than task.max_length" in str(long.exception)


def test_a_client_with_an_adapter_of_its_own_is_named(tmp_path):
    model_folder(tmp_path / "model", num_hidden_layers=4)
    write_records(tmp_path / "data.jsonl", clients=2)
    own = {"name": "split", "ends": "own", "adapters": "private"}
    run_to_the_end(small_run(tmp_path, protocol=own, rounds=1), tmp_path / "run")
    run = run_of(RunDirectory.open(tmp_path / "run"))
    found = answered_here(run, tmp_path / "run", ["w5 w6"], client="client1", max_new_tokens=NEW)
    assert found == whole(tmp_path / "run", "client1", ["w5 w6"])
    for client in ("", "nobody"):
        with pytest.raises(ConfigError, match=f"--client: found '{client}', allowed is one of client0, client1"):
            answered_here(run, tmp_path / "run", ["w5 w6"], client=client, max_new_tokens=NEW)
