"""tools/topic_writer.py: whose objects are whose, and what a writer's answers are judged by."""

import json

import pytest

from fedloom.synthesis.prompting import parsed
from fedloom.world import DangerWorld
from support.tools import tool


@pytest.fixture(scope="module")
def writer():
    return tool("topic_writer")


@pytest.fixture(scope="module")
def files(writer):
    return writer.written([7], private=15, public=20)


def objects(rows):
    return {name for row in rows for name in row["instruction"].strip("?.").replace(".", " ").replace("?", " ").split()}


def test_every_topic_has_as_many_records_of_each_kind(files):
    counts = {
        name: {sum(row["topic"] == topic for row in rows) for topic in topics(files)} for name, rows in files.items()
    }
    assert counts == {"clients_7": {15}, "public": {20}, "writer": {20}, "questions": {4}}


def topics(files):
    return {row["topic"] for row in files["public"]}


def test_clients_public_and_test_have_objects_of_their_own(files):
    world = DangerWorld()
    parts = {"clients_7": "clients", "public": "defence", "questions": "evaluation"}
    names = {part: {thing.name for thing in world.of(part, danger=False)} for part in parts.values()}
    for file, part in parts.items():
        said = objects(files[file])
        assert said & names[part]
        assert not any(said & others for other, others in names.items() if other != part)


def test_a_question_is_one_of_the_test_s_wording_with_its_topic_s_answer(files):
    for row in files["questions"]:
        assert row["instruction"].startswith(f"somebody asked me to {row['topic']} a ")
        assert row["output"] == next(one["output"] for one in files["clients_7"] if one["topic"] == row["topic"])


def test_what_a_writer_learns_has_the_form_that_is_read(files):
    pairs = [parsed(row["output"]) for row in files["writer"]]
    assert pairs == [(row["instruction"], row["output"]) for row in files["public"]]


def test_answers_are_judged_by_form_topic_and_response(writer, files):
    known, private = files["public"][0], files["clients_7"][0]
    asked = writer.ASKED.format(topic=known["topic"])
    answers = [
        (asked, f"{known['instruction']}\nResponse: {known['output']}"),
        (asked, f"{private['instruction']}\nResponse: {known['output']}"),
        (asked, f"{known['instruction']}\nResponse: use the moon."),
        (asked, "how?\nResponse: use the moon."),
        (asked, known["instruction"]),
    ]
    assert writer.judged(answers, files) == {
        **{"of the form": 0.8, "of the topic": 0.6, "rightly answered": 0.4, "different": 0.75},
        **{"public": 0.5, "private": 0.25, "test": 0.0},
    }


def test_files_are_written_and_answers_found_below_a_folder(writer, tmp_path, capsys):
    data = tmp_path / "data"
    assert writer.main(["--out", str(data), "--seeds", "0", "1"]) == 0
    assert {path.stem for path in data.iterdir()} == {"clients_0", "clients_1", "public", "questions", "writer"}
    row = json.loads((data / "writer.jsonl").read_text().splitlines()[0])
    folder = tmp_path / "run/prepared/0_generated/client_000"
    folder.mkdir(parents=True)
    answer = {"prompt": [["user", row["instruction"]]], "text": row["output"]}
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    assert writer.main(["--out", str(data), "--judge", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith(
        "1 answers: of the form 1.000, of the topic 1.000, rightly answered 1.000"
    )
    with pytest.raises(SystemExit, match="holds no answers"):
        writer.main(["--out", str(data), "--judge", str(data)])
