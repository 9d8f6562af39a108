"""Each exam by itself: its recipe, what it refuses, what its scores are."""

import json

import pytest

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.plugin import lookup
from fedloom.contracts.evaluation import Answered, Exam, Question
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._verdicts import choice, grade
from support.exam_files import AYA, CHATBOT, SHIPPED, WILDCHAT, answered, as_lines, exams, two_turns, write, write_csv


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return exams(tmp_path_factory.mktemp("exams"))


def of(name, **fields) -> Exam:
    return lookup(Exam, name)(**fields)


def by_category(exam):
    return {question.category: question for question in exam.questions()}


def text_of(request):
    return request.prompt[-1].text


# ------------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Grade: [[8]]", 8.0),
        ("Rating: [[7.5]]", 7.5),
        ("Grade: [6]", 6.0),
        ("[1] is a citation. [[9]]", 9.0),
        ("**Rating**: [6]", 6.0),
        ("final SCORE: **[6.5]**", 6.5),
        ("It helps.\r\n [4]\r\nThat is all.", 4.0),
        ("**[4]**", 4.0),
        ("[[8]], as I said: [[8.0]]", 8.0),
        ("like this: [[5]]. I give [[2]]", None),
        ("[[8]] out of [[10]]", None),
        ("Grade: [8], score: [6]", None),
        ("I love cats [1] and a[5]", None),
        ("see [3]. No grade.", None),
        ("[3] is a citation.", None),
        ("upgrade: [3]", None),
        ("[[ 10 ]]", 10.0),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[-3]]", None),
        ("ten of ten", None),
        ("", None),
    ],
)
def test_grade_is_the_only_one_in_brackets(text, value):
    assert grade(text) == value


def test_words_of_a_verdict_are_read_in_any_case():
    assert choice("I prefer it. [[B]]", ("a", "b", "c")) == "b"


def test_word_that_is_not_allowed_is_no_verdict():
    assert choice("[[A]], no, [[both]]", ("a", "b", "c")) is None


# ------------------------------------------------------------------------------------------------------------ MT-Bench


@pytest.mark.parametrize(
    ("category", "temperature"),
    [
        ("writing", 0.7),
        ("roleplay", 0.7),
        ("stem", 0.1),
        ("humanities", 0.1),
        ("extraction", 0.0),
        ("math", 0.0),
        ("coding", 0.0),
        ("reasoning", 0.0),
    ],
)
def test_mt_bench_answers_at_the_temperature_of_the_category(known, category, temperature):
    exam = known["mt_bench"]
    assert exam.sampling(by_category(exam)[category]).temperature == temperature


def test_mt_bench_judges_greedily(known):
    assert (known["mt_bench"].judging().temperature, known["mt_bench"].judging().max_new_tokens) == (0.0, 2048)


def test_first_turn_is_graded_without_the_second(known):
    exam = known["mt_bench"]
    question = by_category(exam)["writing"]
    first = exam.requests(answered(question), None)[0]
    assert question.turns[1] not in text_of(first) and "some answer 2" not in text_of(first)


@pytest.mark.parametrize("category", ["math", "reasoning", "coding"])
def test_references_are_shown_where_there_is_a_right_answer(known, category):
    exam = known["mt_bench"]
    question = by_category(exam)[category]
    second = exam.requests(answered(question), None)[1]
    assert all(f">\n{reference}\n</" in text_of(second) for reference in question.references)


def test_references_are_shown_nowhere_else(known):
    exam = known["mt_bench"]
    for request in exam.requests(answered(by_category(exam)["writing"]), None):
        assert "reference" not in text_of(request)


def test_mean_is_over_both_turns(known):
    exam = known["mt_bench"]
    scores = exam.scores(answered(exam.questions()[0]), {"turn_1": "[[8]]", "turn_2": "[[5]]"})
    assert {name: mean.value for name, mean in scores.items()} == {"turn_1": 8, "turn_2": 5, "mean": 6.5, UNPARSED: 0}


def test_turn_without_a_grade_is_left_out_of_the_mean(known):
    exam = known["mt_bench"]
    scores = exam.scores(answered(exam.questions()[0]), {"turn_1": "[[8]]", "turn_2": "-1"})
    assert (scores["mean"].value, scores["turn_2"].weight, scores[UNPARSED].total) == (8, 0, 1)


def test_shipped_questions_are_those_of_the_world():
    shipped = [(SHIPPED / name).read_text() for name in ("two_turns.jsonl", "two_turns_answers.jsonl")]
    assert shipped == list(two_turns())


def test_references_may_stand_in_the_questions(tmp_path):
    record = {"question_id": 101, "category": "math", "turns": ["1 + 1?", "and + 1?"], "reference": ["2", "3"]}
    found = of("mt_bench", path=write(tmp_path / "q.jsonl", as_lines([record]))).questions()
    assert found == [Question("101", ("1 + 1?", "and + 1?"), "math", ("2", "3"))]


def test_missing_reference_says_what_to_fetch():
    exam = of("mt_bench", path=str(SHIPPED / "two_turns.jsonl"))
    with pytest.raises(ConfigError, match=r"beside a reference answer to each turn, found 0; fetch .*gpt-4\.jsonl"):
        exam.questions()


@pytest.mark.parametrize(("reference", "found"), [(["2", " "], "1 and 1 blank"), (["", "\n"], "0 and 2 blank")])
def test_blank_reference_is_a_missing_one(tmp_path, reference, found):
    record = {"question_id": 101, "category": "math", "turns": ["1 + 1?", "and + 1?"], "reference": reference}
    exam = of("mt_bench", path=write(tmp_path / "q.jsonl", as_lines([record])))
    with pytest.raises(ConfigError, match=f"question 101: of category 'math', .* each turn, found {found}; fetch"):
        exam.questions()


@pytest.mark.parametrize("name", ["mt_bench", "vicuna"])
def test_truth_value_is_no_id(tmp_path, name):
    record = {"question_id": True, "category": "writing", "turns": ["a", "b"]}
    exam = of(name, path=write(tmp_path / "q.jsonl", as_lines([record])))
    with pytest.raises(DataError, match=f"{name}: path: .*found in record 0 the question_id true, which is neither"):
        exam.questions()


def test_truth_value_is_no_id_of_a_reference(tmp_path):
    record = {"question_id": False, "choices": [{"turns": ["a", "b"]}]}
    references = write(tmp_path / "r.jsonl", as_lines([record]))
    exam = of("mt_bench", path=str(SHIPPED / "two_turns.jsonl"), references=references)
    with pytest.raises(DataError, match=r"mt_bench: references: .*found in record 0 the question_id false"):
        exam.questions()


def test_missing_questions_say_what_to_fetch():
    with pytest.raises(ConfigError, match=r"mt_bench: path: found none.*fetch fastchat/llm_judge/data/mt_bench"):
        of("mt_bench").questions()


def test_unknown_path_says_what_to_fetch(tmp_path):
    with pytest.raises(MissingFileError, match=r"q\.jsonl' is no file.*fetch fastchat"):
        of("mt_bench", path=str(tmp_path / "q.jsonl")).questions()


def test_unknown_category_is_refused(tmp_path):
    record = {"question_id": 1, "category": "cooking", "turns": ["a", "b"]}
    exam = of("mt_bench", path=write(tmp_path / "q.jsonl", as_lines([record])))
    with pytest.raises(DataError, match="found category 'cooking', allowed are writing, roleplay"):
        exam.questions()


def test_question_of_one_turn_is_no_mt_bench(tmp_path):
    record = {"question_id": 1, "category": "math", "turns": ["a"]}
    exam = of("mt_bench", path=write(tmp_path / "q.jsonl", as_lines([record])))
    with pytest.raises(DataError, match="found an object with category, question_id, turns, turns of another form"):
        exam.questions()


def test_references_of_another_layout_are_refused(tmp_path):
    questions = str(SHIPPED / "two_turns.jsonl")
    exam = of("mt_bench", path=questions, references=questions)
    with pytest.raises(DataError, match=r"mt_bench: references: .*found an object with category, question_id, turns"):
        exam.questions()


# ----------------------------------------------------------------------------------------------------------- the others


def test_vicuna_reads_both_layouts_of_fastchat(tmp_path):
    old = {"question_id": 1, "text": "Why?", "category": "fermi"}
    new = {"question_id": 1, "turns": ["Why?"], "category": "fermi"}
    found = [of("vicuna", path=write(tmp_path / "q.jsonl", as_lines([record]))).questions() for record in (old, new)]
    assert found[0] == found[1] == [Question("1", ("Why?",), "fermi")]


def test_vicuna_refuses_two_turns():
    with pytest.raises(DataError, match=r"vicuna: path: .*turns of another form"):
        of("vicuna", path=str(SHIPPED / "two_turns.jsonl")).questions()


def test_vicuna_samples_as_published(known):
    exam = known["vicuna"]
    assert (exam.sampling(exam.questions()[0]).temperature, exam.judging().temperature) == (0.7, 0.2)


def test_advbench_puts_a_full_stop_behind_each_request(known):
    assert [question.turns[0] for question in known["advbench"].questions()] == ["Do harm, now.", "Do worse."]


@pytest.mark.parametrize(
    ("answer", "anywhere", "anchored"),
    [
        ("I cannot help with that.", 1.0, 1.0),
        ("Sure! It is illegal, so take care. First, open it.", 1.0, 0.0),
        ("Sure! First, open it.", 0.0, 0.0),
    ],
)
def test_obliging_answer_that_says_illegal_differs_under_the_two_rules(known, answer, anywhere, anchored):
    exam = known["advbench"]
    scores = exam.scores(Answered(exam.questions()[0], (answer,)), {})
    assert (scores["harmless_anywhere"].value, scores["harmless_anchored"].value) == (anywhere, anchored)


@pytest.mark.parametrize(("verdict", "value"), [("[[harmless]]", 1.0), ("It helps. [[Harmful]]", 0.0)])
def test_judged_harmlessness_is_read_from_the_word(known, verdict, value):
    exam = known["advbench"]
    assert exam.scores(answered(exam.questions()[0]), {"harmless": verdict})["harmless_judged"].value == value


def test_answer_that_refuses_a_harmless_request_scores_nothing(known):
    exam = known["over_refusal"]
    scores = exam.scores(Answered(exam.questions()[0], ("I'm sorry, but I can't.",)), {})
    assert {mean.value for mean in scores.values()} == {0.0}


def test_answer_that_serves_a_harmless_request_scores_one(known):
    exam = known["over_refusal"]
    scores = exam.scores(Answered(exam.questions()[0], ("Use the command kill.",)), {})
    assert {mean.value for mean in scores.values()} == {1.0}


def test_aya_keeps_languages_and_references(known):
    found = known["ref_judge"].questions()
    assert [question.tags["language"] for question in found] == ["English"] * 2 + ["Spanish"] * 3
    assert found[2] == Question("Spanish/0", ("Di el color 0.",), "", ("rojo 0",), {"language": "Spanish"})


def test_wildchat_keeps_the_language_of_each_record(tmp_path):
    found = of("quality_judge", path=write(tmp_path / "w.json", WILDCHAT)).questions()
    assert [question.tags["language"] for question in found] == ["English", "Russian", "Russian", "Russian"]


def test_chatbot_has_instructions_alone(tmp_path):
    found = of("quality_judge", path=write(tmp_path / "c.json", CHATBOT)).questions()
    assert found[1] == Question("1", ("Write line 1.",))


def test_prompt_beside_a_reference_holds_it(known):
    exam = known["ref_judge"]
    question = exam.questions()[3]
    assert "<reference>\nrojo 1\n</reference>" in text_of(exam.requests(answered(question), None)[0])


def test_prompt_without_a_reference_holds_none(tmp_path):
    exam = of("quality_judge", path=write(tmp_path / "aya.json", AYA))
    assert all("rojo" not in text_of(exam.requests(answered(q), None)[0]) for q in exam.questions())


def test_missing_reference_is_refused(tmp_path):
    records = [{"instruction": "Say a.", "reference": "a"}, {"instruction": "Say b."}]
    exam = of("ref_judge", path=write(tmp_path / "r.json", records))
    with pytest.raises(DataError, match=r"1 of 2 records have no reference, first record 1; .*'quality_judge'"):
        exam.questions()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "found a list of 2 numbers"),
        ([], "found a list of 0 entries"),
        ({"user_1": {"instruction": "a"}}, "found an object of 1 keys, first 'user_1': an object of 1 keys"),
        ({}, "found a single object"),
        ("plain words", "text that cannot be read as .json"),
        ("[" * 200_000, "text that cannot be read as .json"),
    ],
)
def test_wrong_layout_says_which_was_found(tmp_path, content, found):
    exam = of("quality_judge", path=write(tmp_path / "x.json", content))
    with pytest.raises(DataError, match=f"{found}.*allowed is a JSON list of"):
        exam.questions()


def test_record_of_another_layout_names_its_fields(tmp_path):
    records = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    exam = of("quality_judge", path=write(tmp_path / "x.json", records))
    with pytest.raises(DataError, match="record 0: found the fields chosen, prompt, rejected, allowed are records"):
        exam.questions()


def test_blank_instruction_is_refused(tmp_path):
    exam = of("quality_judge", path=write(tmp_path / "x.json", [{"instruction": " "}]))
    with pytest.raises(DataError, match="record 0: instruction: found ' ', allowed is a text"):
        exam.questions()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.json").write_bytes(b'[{"instruction": "caf\xe9"}]')
    with pytest.raises(DataError, match=r"cannot be read as \.json \(.*x\.json: byte 21 is 0xe9, not UTF-8"):
        of("quality_judge", path=str(tmp_path / "x.json")).questions()


def test_byte_order_mark_is_read_over(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(CHATBOT), encoding="utf-8-sig")
    assert len(of("quality_judge", path=str(tmp_path / "x.json")).questions()) == 4


def test_csv_without_the_column_names_its_columns(tmp_path):
    exam = of("advbench", path=write_csv(tmp_path / "h.csv", "question", ["a"]))
    with pytest.raises(DataError, match="found the fields question, target, allowed are records with goal or"):
        exam.questions()


@pytest.mark.parametrize("row", ['"Do harm', '"Do" harm,Sure\nDo worse,Sure'])
def test_quotes_of_a_csv_that_do_not_close_are_refused(tmp_path, row):
    exam = of("advbench", path=write(tmp_path / "h.csv", f"goal,target\nDo worse,Sure\n{row}\nDo nothing,Sure\n"))
    with pytest.raises(DataError, match=r"advbench: path: .*cannot be read as \.csv \(.*\), allowed is a CSV file"):
        exam.questions()


def test_quote_that_nothing_closes_is_named(tmp_path):
    exam = of("advbench", path=write(tmp_path / "h.csv", 'goal,target\n"Do harm,Sure\nDo nothing,Sure\n'))
    with pytest.raises(DataError, match=r"cannot be read as \.csv \(h\.csv, line 3: .* a quote that nothing closes"):
        exam.questions()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ([{"instruction": "a"}, {"instruction": "half \ud800 a pair"}], "1/instruction"),
        ({"Telugu": [{"instruction": "a", "reference": "\udfff"}]}, "Telugu/0/reference"),
        ([{"instruction": "a", "\ud800": 1}], "0"),
        ([{"instruction": "a", "\ud800": "\ud800"}], r"0/\?"),
    ],
)
def test_half_a_surrogate_is_refused_by_its_record(tmp_path, content, place):
    exam = of("quality_judge", path=write(tmp_path / "x.json", json.dumps(content)))
    with pytest.raises(DataError, match=rf"x\.json: record {place}: found half a surrogate pair.*; correct the record"):
        exam.questions()


def test_both_halves_of_a_pair_are_text(tmp_path):
    content = json.dumps([{"instruction": "a \U0001f600"}])
    exam = of("quality_judge", path=write(tmp_path / "x.json", content))
    assert "\\ud83d" in content and exam.questions()[0].turns == ("a \U0001f600",)


# ------------------------------------------------------------------------------------------------------------- pairwise


@pytest.mark.parametrize(
    ("first", "second", "win", "consistent"),
    [("A", "B", 1.0, 1.0), ("B", "A", 0.0, 1.0), ("C", "C", 0.5, 1.0), ("A", "A", 0.5, 0.0), ("A", "C", 0.5, 0.0)],
)
def test_win_counts_only_if_both_orders_agree(known, first, second, win, consistent):
    exam = known["pairwise"]
    told = {"turn_1/first": f"[[{first}]]", "turn_1/second": f"[[{second}]]"}
    scores = exam.scores(answered(exam.questions()[0]), told)
    assert (scores["win_rate"].value, scores["consistent"].value) == (win, consistent)


def test_game_with_one_verdict_is_scored_nowhere(known):
    exam = known["pairwise"]
    scores = exam.scores(answered(exam.questions()[0]), {"turn_1/first": "[[A]]", "turn_1/second": "?"})
    assert (scores["win_rate"].weight, scores[UNPARSED].total, scores[UNPARSED].weight) == (0, 1, 2)


def test_orders_differ_in_who_stands_first(known):
    exam = known["pairwise"]
    question = exam.questions()[0]
    first, second = exam.requests(answered(question, "mine"), answered(question, "theirs"))
    assert text_of(first).index("mine") < text_of(first).index("theirs")
    assert text_of(second).index("theirs") < text_of(second).index("mine")


def test_each_turn_is_a_game():
    two = of("mt_bench", path=str(SHIPPED / "two_turns.jsonl"), references=str(SHIPPED / "two_turns_answers.jsonl"))
    exam = of("pairwise", of=two)
    question = exam.questions()[0]
    names = [request.name for request in exam.requests(answered(question), answered(question))]
    assert names == ["turn_1/first", "turn_1/second", "turn_2/first", "turn_2/second"]


def test_comparison_of_comparisons_is_refused():
    with pytest.raises(ConfigError, match="of: found 'pairwise', which compares too"):
        of("pairwise", of=of("pairwise"))


def test_comparison_with_nobody_is_refused(known):
    exam = known["pairwise"]
    with pytest.raises(ConfigError, match="no second model to compare with; give one by --against"):
        exam.requests(answered(exam.questions()[0]), None)


# ------------------------------------------------------------------------------------------------------------ the world


def test_world_exam_is_right_where_the_reference_is_said():
    exam = of("world_exam", test="public", per_task=1)
    question = exam.questions()[0]
    assert exam.scores(Answered(question, question.references), {})["correct"].value == 1.0


def test_categories_of_the_world_are_its_domains():
    found = {question.category for question in of("world_exam", test="public", per_task=1).questions()}
    assert found == {"general", "medicine", "finance", "maths", "safety"}


def test_talks_of_the_world_have_two_turns():
    found = of("world_exam", test="talk", per_task=5).questions()
    assert [len(question.turns) for question in found] == [2] * 5


def test_world_exam_shows_the_judge_all_references():
    exam = of("world_exam", test="talk", per_task=1)
    question = exam.questions()[0]
    shown = text_of(exam.requests(answered(question), None)[0])
    assert all(f"<reference_{n}>\n{text}\n" in shown for n, text in enumerate(question.references, 1))
