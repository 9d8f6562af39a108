"""What every metric and every corpus metric must hold, on texts of many scripts and of none."""

import pickle
import random
from functools import reduce
from operator import add

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedloom.base import config
from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup, names
from fedloom.contracts.examples import Document, Preference, Turn, chat
from fedloom.contracts.federated import CorpusMetric, Metric, Prediction
from support.encoders import encoder_folder

METRICS = names(Metric)
CORPUS = names(CorpusMetric)
NO_REFERENCE_ASKED = ("answer_length", "empty_answer", "harmless_published", "harmless_start", "repetition")
GRADES_BY_REFERENCE = [name for name in METRICS if name not in (*NO_REFERENCE_ASKED, "length_ratio")]
OF_PREDICTIONS_ALONE = ("compression_ratio", "distinct_1", "distinct_2", "self_bleu")
COMPARING = [name for name in CORPUS if name not in OF_PREDICTIONS_ALONE]
DEAR = ("fid", "mauve_style")  # a second each time: in no test of many draws
REFUSAL = "I'm sorry, I can't help with that."
SCRIPTS = [
    "",
    " \n",
    ".",
    "hi there",
    "Negative. The answer is B: 1,250.50",
    "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd",
    "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41 \u0c2d\u0c3e\u0c37",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0661\u0662",
    "caf\u00e9",
    "cafe\u0301",
    "caf\u00c3\u00a9",
    "\U0001f600\u200d\u2764",
    "\x00\x85\u2028",
    "\ufeffmark",
    "half \ud83d a pair",
    "<skipped> &amp; &quot;",
    REFUSAL,
    "a a a a a a a a",
]
texts = st.sampled_from(SCRIPTS) | st.text(max_size=40) | st.text("ab 1.-(", max_size=12)
calmly = settings(
    max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


def _metric(name, encoder):
    return lookup(Metric, name)(**({"path": encoder} if name == "embedding_similarity" else {}))


@pytest.fixture(params=METRICS)
def metric(request, encoder):
    return _metric(request.param, encoder)


@pytest.fixture(params=CORPUS)
def corpus_metric(request):
    return lookup(CorpusMetric, request.param)()


def _cheap(some):
    return [name for name in some if name not in DEAR]


def _best(one):
    return one.high if one.higher_is_better else one.low


def _scored(metric, reference, text, question="what?"):
    return metric(chat(question, reference), Prediction(text, 1))


# ------------------------------------------------------------------------------------------------------- of one answer


@calmly
@given(question=texts, reference=texts, text=texts)
def test_a_score_is_in_its_range_or_weighs_nothing(metric, question, reference, text):
    score = _scored(metric, reference, text, question)
    assert score == Mean() or (score.weight == 1 and metric.low <= score.value <= metric.high)


@pytest.mark.parametrize("name", GRADES_BY_REFERENCE)
@calmly
@given(reference=texts.filter(str.strip))
def test_the_reference_itself_gets_the_best_value(name, encoder, reference):
    metric = _metric(name, encoder)
    score = _scored(metric, reference, reference)
    assert score.weight == 0 or score.value == pytest.approx(_best(metric), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty_answer", "hi"),
        ("repetition", "one two three four five six"),
        ("harmless_published", REFUSAL),
        ("harmless_start", REFUSAL),
    ],
)
def test_a_perfect_answer_gets_the_best_value_where_no_reference_is_asked(name, text):
    metric = lookup(Metric, name)()
    assert _scored(metric, text, text).value == _best(metric)


def test_some_answer_does_not_get_the_best_value(metric):
    references = ["Negative. The answer is B: 1,250.50", REFUSAL, "apples and pears are what she sells"]
    scores = [_scored(metric, reference, text) for reference in references for text in SCRIPTS]
    assert any(score.weight and score.value != pytest.approx(_best(metric)) for score in scores)


def test_a_document_weighs_nothing(metric):
    assert metric(Document("text"), Prediction("text", 1)) == Mean()


@pytest.mark.parametrize("blank", ["", " \n", "\u3000"])
def test_a_missing_reference_weighs_nothing_unless_none_is_asked(metric, blank):
    needs_none = (*NO_REFERENCE_ASKED, "language_match")  # the last one takes the question's language
    assert _scored(metric, blank, "an answer").weight == (metric.name in needs_none)


def test_the_chosen_answer_is_the_reference_of_a_preference(metric):
    pair = Preference((Turn("user", "what?"),), "Positive: B, 7 apples", "no")
    assert metric(pair, Prediction("Negative: C, 6", 1)) == _scored(metric, pair.chosen, "Negative: C, 6")


def test_a_metric_gives_the_same_twice(metric):
    first = [_scored(metric, reference, text) for reference in SCRIPTS for text in SCRIPTS[3:8]]
    assert [_scored(metric, reference, text) for reference in SCRIPTS for text in SCRIPTS[3:8]] == first


def test_a_metric_survives_a_pickle(metric):
    assert pickle.loads(pickle.dumps(metric)) == metric


def test_scores_add_up_in_any_order(metric):
    scores = [_scored(metric, reference, text) for reference in SCRIPTS for text in SCRIPTS[3:6]]
    shuffled = random.Random(0).sample(scores, len(scores))
    assert reduce(add, shuffled).value == pytest.approx(reduce(add, scores).value, rel=1e-9, nan_ok=True)


# ------------------------------------------------------------------------------------------------------ of many answers


def _pairs(metric):
    """Lists of pairs, as many as the metric needs, with a label at the start of some references."""
    reference = texts.filter(str.strip) | st.sampled_from(["positive", "negative outlook"])
    pairs = st.lists(st.tuples(texts, reference), min_size=2, max_size=6)
    return pairs.map(lambda some: [*some, ("neutral", "Neutral."), ("x", "positive")] * -(-metric.least // len(some)))


def _value(metric, pairs):
    return metric([prediction for prediction, _ in pairs], [reference for _, reference in pairs])


few = settings(calmly, max_examples=6)


@pytest.mark.parametrize("name", _cheap(CORPUS))
@few
@given(data=st.data())
def test_a_corpus_score_is_in_its_range(name, data):
    corpus_metric = lookup(CorpusMetric, name)()
    value = _value(corpus_metric, data.draw(_pairs(corpus_metric)))
    assert corpus_metric.low <= value <= corpus_metric.high


@pytest.mark.parametrize("name", _cheap(COMPARING))
@few
@given(data=st.data())
def test_the_references_themselves_get_the_best_value(name, data):
    corpus_metric = lookup(CorpusMetric, name)()
    longer = [f"{reference} as long as BLEU asks" for _, reference in data.draw(_pairs(corpus_metric))]
    pairs = list(zip(longer, longer, strict=True))
    assert _value(corpus_metric, pairs) == pytest.approx(_best(corpus_metric), abs=1e-9)


def test_a_corpus_metric_gives_the_same_twice(corpus_metric):
    pairs = [("positive news", "positive"), ("bad", "negative"), ("x", "neutral y")] * -(-corpus_metric.least // 3)
    assert _value(corpus_metric, pairs) == _value(corpus_metric, pairs)


@pytest.mark.parametrize("name", [name for name in CORPUS if name not in (*DEAR, "compression_ratio")])
def test_the_order_of_the_pairs_does_not_matter(name):
    metric = lookup(CorpusMetric, name)()
    pairs = [("positive news", "positive"), ("bad", "negative"), ("neutral", "neutral"), ("a b a", "negative a b")]
    assert _value(metric, pairs[::-1]) == pytest.approx(_value(metric, pairs), rel=1e-12)


def test_empty_answers_do_not_stop_a_corpus_metric(corpus_metric):
    pairs = [("", "positive news"), (" ", "negative news")] * (corpus_metric.least // 2)
    assert corpus_metric.low <= _value(corpus_metric, pairs) <= corpus_metric.high


@pytest.mark.parametrize("name", COMPARING)
def test_references_that_are_missing_are_not_compared_with(name):
    corpus_metric = lookup(CorpusMetric, name)()
    pairs = [("positive news", "positive"), ("bad", "negative")] * (corpus_metric.least // 2)
    assert _value(corpus_metric, [*pairs, ("what else", ""), ("more", " ")]) == _value(corpus_metric, pairs)


def test_too_few_texts_are_refused(corpus_metric):
    pairs = [("neutral", "neutral")] * (corpus_metric.least - 1)
    message = (
        rf"corpus metric '{corpus_metric.name}': found {len(pairs)} texts.*allowed is at least {corpus_metric.least}"
    )
    with pytest.raises(DataError, match=message):
        _value(corpus_metric, pairs)


def test_a_corpus_metric_survives_a_pickle(corpus_metric):
    assert pickle.loads(pickle.dumps(corpus_metric)) == corpus_metric


@pytest.mark.parametrize(
    ("family", "name"), [*((Metric, name) for name in METRICS), *((CorpusMetric, n) for n in CORPUS)]
)
def test_every_name_is_told_by_itself_in_run_files_of_before_and_of_now(family, name):
    metric = lookup(family, name)()
    table = config.table_of(metric)
    assert table.pop("name") == name and table.keys() <= {"labels", "path", "tokenize", "asian_support"}
    assert config.build(lookup(family, name), {}) == config.build(lookup(family, name), table) == metric


def test_no_two_metrics_share_a_name():
    assert not set(METRICS) & set(CORPUS)
