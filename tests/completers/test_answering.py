"""Answers kept in a file: asked once, resumed after a failure, damage told from a kill, budgets that stop in time."""

import contextlib
import json

import pytest

from fedloom.base.errors import CompletionError, ConfigError, RunError
from fedloom.completers.answer_file import Budget, asking
from fedloom.contracts.evaluation import Completer, Completion, Sampling
from fedloom.contracts.examples import Turn


class Stub(Completer):
    """Answers with the question in capitals; fails at the given call, once."""

    def __init__(self, *, name="stub", fails_at=0, group=1, known=True):
        self.name_, self.fails_at, self.group, self.known = name, fails_at, group, known
        self.asked, self.openings = [], 0

    def identity(self):
        return self.name_

    @contextlib.contextmanager
    def opened(self):
        self.openings += 1
        yield self._answer

    def together(self):
        return self.group

    def _answer(self, prompts, sampling):
        for place, prompt in enumerate(prompts):
            if len(self.asked) + 1 == self.fails_at:
                self.fails_at = 0
                raise CompletionError("the server is gone.")
            self.asked.append(prompt[-1].text)
            tokens = (4, 3) if self.known else (0, 0)
            yield place, Completion(prompt[-1].text.upper(), *tokens)


def requests(*texts, **sampling):
    return [((Turn("user", text),), Sampling(max_new_tokens=16, **sampling)) for text in texts]


FIFTY = requests(*(f"question {number}" for number in range(50)))


def ask(completer, cache, wanted, budget=None):
    with asking(completer, cache, budget) as asker:
        return [answer.text for answer in asker.ask(wanted)]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "some" / "answers.jsonl"


# ----------------------------------------------------------------------------------------------------------- asked once


def test_answers_come_in_the_order_of_the_requests(cache):
    wanted = [*requests("a", temperature=1.0), *requests("b"), *requests("c", temperature=1.0)]
    assert ask(Stub(group=2), cache, wanted) == ["A", "B", "C"]


def test_a_completer_that_fails_at_item_17_of_50_has_34_calls_left(cache):
    stub = Stub(fails_at=17)
    with pytest.raises(CompletionError, match="the server is gone"):
        ask(stub, cache, FIFTY)
    before = len(stub.asked)
    ask(stub, cache, FIFTY)
    assert (before, len(stub.asked) - before) == (16, 34)


def test_what_is_resumed_equals_what_was_never_stopped(cache, tmp_path):
    stub = Stub(fails_at=17)
    with pytest.raises(CompletionError):
        ask(stub, cache, FIFTY)
    assert ask(stub, cache, FIFTY) == ask(Stub(), tmp_path / "whole.jsonl", FIFTY)


def test_the_file_of_a_resumed_series_is_that_of_one_never_stopped(cache, tmp_path):
    stub = Stub(fails_at=17)
    with pytest.raises(CompletionError):
        ask(stub, cache, FIFTY)
    ask(stub, cache, FIFTY)
    ask(Stub(), tmp_path / "whole.jsonl", FIFTY)
    assert cache.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_an_answered_series_opens_no_completer(cache):
    ask(Stub(), cache, FIFTY)
    stub = Stub()
    ask(stub, cache, FIFTY)
    assert stub.openings == 0


def test_a_block_opens_its_completer_once(cache):
    stub = Stub()
    with asking(stub, cache) as asker:
        asker.ask(requests("a"))
        asker.ask(requests("b"))
    assert stub.openings == 1


def test_equal_requests_are_asked_once(cache):
    stub = Stub()
    assert (ask(stub, cache, requests("a", "a", "a")), stub.asked) == (["A", "A", "A"], ["a"])


@pytest.mark.parametrize(
    "changed",
    [requests("b"), requests("a", seed=1), requests("a", temperature=0.5), requests("a", stop=(".",))],
)
def test_another_prompt_or_sampling_is_another_question(cache, changed):
    stub = Stub()
    ask(stub, cache, requests("a"))
    ask(stub, cache, changed)
    assert len(stub.asked) == 2


def test_an_earlier_turn_is_part_of_the_question(cache):
    stub = Stub()
    ask(stub, cache, requests("a"))
    ask(stub, cache, [((Turn("system", "be brief"), Turn("user", "a")), Sampling(max_new_tokens=16))])
    assert len(stub.asked) == 2


def test_another_completer_is_asked_anew(cache):
    ask(Stub(name="one"), cache, requests("a"))
    other = Stub(name="two")
    ask(other, cache, requests("a"))
    assert other.asked == ["a"]


def test_counts_tell_calls_answers_at_hand_and_tokens(cache):
    ask(Stub(), cache, requests("a"))
    with asking(Stub(), cache) as asker:
        asker.ask(requests("a", "b", "c"))
    assert vars(asker.counts) == {"calls": 2, "cached": 1, "prompt_tokens": 6, "answer_tokens": 8}


def test_prompts_without_an_answer_are_refused(cache):
    stub = Stub()
    stub._answer = lambda prompts, sampling: iter([(0, Completion("only one"))])
    stub.group = 3
    with pytest.raises(CompletionError, match="no answer came to 2 of 3 prompts"):
        ask(stub, cache, requests("a", "b", "c"))


@pytest.mark.parametrize("text", ["", "ü 漢字 \u2028 \n\r", "\ud800", "null\x00"])
def test_any_text_comes_back_as_it_was(cache, text):
    stub = Stub()
    stub._answer = lambda prompts, sampling: iter([(0, Completion(text))])
    ask(stub, cache, requests(text))
    assert ask(Stub(), cache, requests(text)) == [text]


def test_what_is_refused_for_good_is_kept_and_costs_a_request_without_tokens(cache):
    stub = Stub()
    stub._answer = lambda prompts, sampling: iter([(0, Completion("", refused="too long"))])
    with asking(stub, cache, Budget(max_requests=1, max_tokens=100)) as asker:
        asker.ask(requests("a"))
    with asking(Stub(), cache, Budget(max_requests=1)) as asker:
        assert asker.ask(requests("a")) == [Completion("", refused="too long")]
    with pytest.raises(CompletionError, match=r"\(1 requests and 0 tokens are spent"):
        ask(Stub(), cache, requests("b"), Budget(max_requests=1))


# ------------------------------------------------------------------------------------------------------------- the file


def test_a_torn_last_line_is_cut_and_asked_again(cache):
    ask(Stub(), cache, FIFTY)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-20])
    stub = Stub()
    ask(stub, cache, FIFTY)
    assert (stub.asked, cache.read_bytes()) == (["question 49"], whole)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_file_cut_anywhere_in_its_last_line_loses_that_answer_only(cache, cut):
    ask(Stub(), cache, requests("a", "b"))
    cache.write_bytes(cache.read_bytes()[:-cut])
    stub = Stub()
    ask(stub, cache, requests("a", "b"))
    assert stub.asked == ["b"]


def damaged(line, number):
    record = json.loads(line)
    return {
        "no JSON": b"{]\n",
        "no table": b"[1]\n",
        "empty": b"\n",
        "binary": b"\xff\xfe\n",
        "another question": line.replace(b"question 7", b"question 8"),
        "no answer": json.dumps({key: value for key, value in record.items() if key != "text"}).encode() + b"\n",
        "text of a number": json.dumps(record | {"text": number}).encode() + b"\n",
        "nested without end": b"[" * 200_000 + b"\n",
    }


@pytest.mark.parametrize("kind", damaged(b"{}", 7))
def test_other_damage_is_refused_by_its_line(cache, kind):
    ask(Stub(), cache, FIFTY)
    lines = cache.read_bytes().splitlines(keepends=True)
    lines[7] = damaged(lines[7], 7)[kind]
    cache.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=r"answers\.jsonl: line 8 is no answer as it was written; remove the line"):
        ask(Stub(), cache, FIFTY)


def test_damage_is_left_as_it_is(cache):
    ask(Stub(), cache, FIFTY)
    damage = cache.read_bytes().replace(b"question 7", b"question 8")
    cache.write_bytes(damage)
    with pytest.raises(RunError):
        ask(Stub(), cache, FIFTY)
    assert cache.read_bytes() == damage


def test_a_file_in_use_is_refused(cache):
    with asking(Stub(), cache), pytest.raises(RunError, match="somebody else is writing answers to it"):
        ask(Stub(), cache, requests("a"))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        ask(Stub(), tmp_path, requests("a"))


# ----------------------------------------------------------------------------------------------------------- the budget


def test_a_budget_of_requests_is_not_passed(cache):
    stub = Stub(group=8)
    with pytest.raises(CompletionError, match=r"budget of 20 requests \(20 requests and 140 tokens are spent, from"):
        ask(stub, cache, FIFTY, Budget(max_requests=20))
    assert len(stub.asked) == 20


def test_a_budget_that_suffices_changes_nothing(cache):
    assert len(ask(Stub(group=8), cache, FIFTY, Budget(max_requests=50, max_tokens=5000))) == 50


def test_what_the_budget_paid_for_is_kept(cache):
    with pytest.raises(CompletionError):
        ask(Stub(), cache, FIFTY, Budget(max_requests=20))
    stub = Stub()
    ask(stub, cache, FIFTY)
    assert len(stub.asked) == 30


def test_answers_at_hand_cost_nothing(cache):
    ask(Stub(), cache, FIFTY)
    assert len(ask(Stub(), cache, FIFTY, Budget(max_requests=1))) == 50


@pytest.mark.parametrize("budget", [Budget(max_requests=3), Budget(max_tokens=110)])
def test_a_budget_is_over_all_starts_together(cache, budget):
    stub = Stub(group=8)
    for _ in range(3):
        with pytest.raises(
            CompletionError, match=r"3 requests and 21 tokens are spent, from the first start on\); .* go on"
        ):
            ask(stub, cache, FIFTY, budget)
    assert len(stub.asked) == 3


def test_tokens_that_are_not_told_are_spent_at_the_next_start_too(cache):
    ask(Stub(known=False), cache, requests("question 0", "question 1"))
    with pytest.raises(CompletionError, match=r"\(2 requests and 180 tokens are spent, from"):
        ask(Stub(known=False), cache, FIFTY, Budget(max_tokens=200))


def test_a_raised_budget_goes_on(cache):
    stub = Stub()
    with pytest.raises(CompletionError, match="raise max_requests to go on"):
        ask(stub, cache, FIFTY, Budget(max_requests=20))
    ask(stub, cache, FIFTY, Budget(max_requests=50))
    assert len(stub.asked) == 50


def test_a_budget_below_what_is_spent_is_told_as_any_other(cache):
    ask(Stub(), cache, FIFTY[:20])
    with pytest.raises(CompletionError, match=r"budget of 5 requests \(20 requests"):
        ask(Stub(), cache, FIFTY, Budget(max_requests=5))


def test_what_another_completer_answered_is_not_spent(cache):
    ask(Stub(name="other"), cache, FIFTY)
    assert len(ask(Stub(), cache, FIFTY[:20], Budget(max_requests=20))) == 20


# A question takes 10 or 11 bytes, 64 tokens are granted to the template and 16 to the answer.
@pytest.mark.parametrize(("tokens", "asked"), [(89, 0), (90, 1), (96, 1), (97, 2), (200, 16)])
def test_a_request_is_made_only_if_it_surely_fits(cache, tokens, asked):
    stub = Stub()
    with pytest.raises(CompletionError, match=f"could pass the budget of {tokens} tokens"):
        ask(stub, cache, FIFTY, Budget(max_tokens=tokens))
    assert len(stub.asked) == asked


def test_a_group_is_made_smaller_to_fit(cache):
    stub = Stub(group=50)
    with pytest.raises(CompletionError, match="could pass"):
        ask(stub, cache, FIFTY, Budget(max_tokens=200))
    assert len(stub.asked) == 16


def test_tokens_that_are_not_told_count_as_the_most_that_they_may_be(cache):
    stub = Stub(known=False)
    with pytest.raises(CompletionError, match=r"\(2 requests and 180 tokens are spent, from"):
        ask(stub, cache, FIFTY, Budget(max_tokens=200))


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="max_requests: found 0, allowed is a number >= 1"):
        Budget(max_requests=0)


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 1.5}, {"max_new_tokens": 0}, {"stop": ("",)}])
def test_a_sampling_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match="allowed are max_new_tokens >= 1, temperature >= 0"):
        Sampling(**wrong)
