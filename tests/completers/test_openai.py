"""A judge behind OpenAI's interface: a real server on loopback that is made to fail, and what becomes of the key."""

import json
import logging
import socket
import sys

import pytest

from fedloom.base import config
from fedloom.base.errors import CompletionError, ConfigError
from fedloom.completers.answer_file import asking
from fedloom.completers.canned import Canned
from fedloom.completers.model import LocalModel
from fedloom.completers.openai import OpenAIServer
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from support.asking import SHORT, answers, asked_in, prompts

KEY = "sk-very-secret-0123456789"


# ------------------------------------------------------------------------------------------------------------ a server


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return "JUDGE_KEY"


def client(server, **fields):
    return OpenAIServer(**{"url": server.url, "model": "judge", "retries": 1, "parallel": 1, "timeout_s": 20} | fields)


ECHO = Canned(patterns={"(?s).*": "[[7]]"})


def test_a_server_answers(openai_server):
    assert answers(client(openai_server(ECHO)), prompts("grade this", "and this")) == ["[[7]]", "[[7]]"]


def test_a_server_over_the_embedded_model_answers_as_the_model_does(openai_server):
    asked = prompts("What is the capital of France?", "Say hi.")
    local = LocalModel(device="cpu")
    assert answers(client(openai_server(local)), asked) == answers(local, asked)


def test_tokens_that_a_server_states_are_counted(openai_server, tmp_path):
    with asking(client(openai_server(LocalModel(device="cpu"))), tmp_path / "a.jsonl") as asker:
        asker.ask([(prompt, SHORT) for prompt in prompts("Say hi.")])
    assert asker.counts.prompt_tokens > 0 and 0 < asker.counts.answer_tokens <= 8


def test_the_whole_conversation_is_sent(openai_server):
    server = openai_server(ECHO)
    turns = (Turn("system", "be brief"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    answers(client(server), [turns])
    assert [(m["role"], m["content"]) for m in server.bodies[0]["messages"]] == [(t.role, t.text) for t in turns]


def test_a_greedy_request_sends_no_more_than_it_must(openai_server):
    server = openai_server(ECHO)
    answers(client(server), prompts("a"))
    assert {**server.bodies[0], "messages": 0} == {"model": "judge", "messages": 0, "temperature": 0.0, "max_tokens": 8}


def test_sampling_is_sent(openai_server):
    server = openai_server(ECHO)
    answers(client(server), prompts("a"), Sampling(max_new_tokens=5, temperature=0.7, top_p=0.9, stop=("\n",), seed=3))
    sent = {name: server.bodies[0][name] for name in ("temperature", "top_p", "stop", "seed", "max_tokens")}
    assert sent == {"temperature": 0.7, "top_p": 0.9, "stop": ["\n"], "seed": 3, "max_tokens": 5}


def test_the_limit_of_tokens_takes_the_name_that_the_server_wants(openai_server):
    server = openai_server(ECHO)
    answers(client(server, token_limit="max_completion_tokens"), prompts("a"))
    assert "max_tokens" not in server.bodies[0] and server.bodies[0]["max_completion_tokens"] == 8


def test_parallel_requests_are_answered_each_to_its_own(openai_server):
    canned = Canned(answers={str(number): f"answer {number}" for number in range(12)})
    found = answers(client(openai_server(canned), parallel=4), prompts(*map(str, range(12))))
    assert found == [f"answer {number}" for number in range(12)]


@pytest.mark.parametrize("failure", ["rate_limit", "server_error", "closed", "cut"])
def test_what_passes_is_tried_again(openai_server, failure):
    server = openai_server(ECHO, failures={1: failure})
    assert (answers(client(server), prompts("a")), len(server.bodies)) == (["[[7]]"], 2)


def test_a_server_that_hangs_is_asked_again(openai_server):
    server = openai_server(ECHO, failures={1: "hang"})
    assert answers(client(server, timeout_s=0.3), prompts("a")) == ["[[7]]"]


def test_a_null_answer_is_an_empty_one(openai_server):
    assert answers(client(openai_server(ECHO, failures={1: "no_content"})), prompts("a")) == [""]


REFUSALS = {
    "rate_limit": "too many requests, after 1 retries too; lower parallel or wait",
    "quota": "the quota of this key is used up; raise it or use another key",
    "server_error": "the server fails, after 1 retries too; look at its log",
    "closed": "cannot be reached; start the server, or correct the url",
    "cut": "cannot be reached; start the server, or correct the url",
    "garbage": r"none that OpenAI's interface knows \(no JSON\)",
    "nested": r"none that OpenAI's interface knows \(no JSON\)",
    "page": r"none that OpenAI's interface knows \(no JSON\).*often in /v1",
    "empty": r"none that OpenAI's interface knows \(no choices\[0\]",
}


@pytest.mark.parametrize("failure", REFUSALS)
def test_what_does_not_pass_is_refused_with_advice(openai_server, failure):
    server = openai_server(ECHO, failures=lambda number: failure)
    with pytest.raises(CompletionError, match=f"{server.url}: .*{REFUSALS[failure]}"):
        answers(client(server), prompts("a"))


def test_a_server_that_always_hangs_is_refused(openai_server):
    server = openai_server(ECHO, failures=lambda number: "hang")
    with pytest.raises(CompletionError, match=r"no answer within 0\.2 s, 1 retries included; raise timeout_s"):
        answers(client(server, timeout_s=0.2), prompts("a"))


def test_an_answer_that_comes_byte_by_byte_ends_in_time(openai_server):
    server = openai_server(ECHO, failures=lambda number: "drip")
    with pytest.raises(CompletionError, match=r"no answer within 0\.4 s, 1 retries included"):
        answers(client(server, timeout_s=0.4), prompts("a"))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("endless", r"sends an answer of more than 0 MiB"),
        ("packed", r"packs its answers \(gzip\), which nobody asked for"),
        ("elsewhere", r"sends requests on to http://203\.0\.113\.1/v1/chat/completions; name that address"),
        ("here", r"sends requests on to /v1/chat/completions/; name that address"),
    ],
)
def test_an_answer_without_measure_or_from_elsewhere_is_not_taken(openai_server, monkeypatch, failure, message):
    monkeypatch.setattr("fedloom.completers._limits.MOST_BYTES", 2**18)
    server = openai_server(ECHO, failures=lambda number: failure)
    with pytest.raises(CompletionError, match=f"{server.url}: {message}.*what was answered is kept"):
        answers(client(server), prompts("a"))
    assert len(server.bodies) == 1


@pytest.mark.parametrize("failure", ["garbage", "nested", "page", "empty"])
def test_what_is_no_answer_is_asked_for_again(openai_server, failure):
    server = openai_server(ECHO, failures={1: failure})
    assert (answers(client(server), prompts("a")), len(server.bodies)) == (["[[7]]"], 2)


def test_a_server_that_is_not_there_is_refused():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        judge = OpenAIServer(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", model="judge", retries=0)
        with pytest.raises(CompletionError, match="cannot be reached; start the server"):
            answers(judge, prompts("a"))


def test_a_model_that_the_server_has_not_is_refused(openai_server):
    with pytest.raises(CompletionError, match="knows no model 'oracle', or no such path"):
        answers(client(openai_server(ECHO), model="oracle"), prompts("a"))


def test_a_url_that_ends_elsewhere_is_refused(openai_server):
    server = openai_server(ECHO)
    with pytest.raises(CompletionError, match="or no such path; correct model or url"):
        answers(client(server, url=server.url + "/more"), prompts("a"))


def test_every_refusal_is_one_line(openai_server):
    for failure in REFUSALS:
        with pytest.raises(CompletionError) as caught:
            answers(client(openai_server(ECHO, failures=lambda _, f=failure: f), retries=0), prompts("a"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("failure", ["quota", "server_error", "closed", "garbage", "empty"])
@pytest.mark.parametrize("parallel", [1, 4])
def test_what_was_answered_before_a_failure_is_kept(openai_server, tmp_path, failure, parallel):
    questions = [f"question {number}" for number in range(8)]
    failing = openai_server(ECHO, failures=lambda number: failure if number >= 6 else None)
    with pytest.raises(CompletionError):
        asked_in(tmp_path, client(failing, parallel=parallel, retries=0), *questions)
    n_kept = len((tmp_path / "answers.jsonl").read_text().splitlines())
    assert n_kept == 5


def test_a_failure_ends_prompts_that_still_wait_for_their_turn(openai_server):
    server = openai_server(ECHO, failures=lambda number: "garbage")
    with pytest.raises(CompletionError):
        answers(client(server, parallel=2), prompts(*map(str, range(40))))
    assert len(server.bodies) < 40


def test_a_count_that_is_a_truth_value_leaves_the_file_readable(openai_server, tmp_path):
    server = openai_server(ECHO, failures={1: "true_count"})
    asked_in(tmp_path, client(server), "a")
    asked_in(tmp_path, client(server), "a")
    assert len(server.bodies) == 1


def test_after_a_failure_only_the_rest_is_asked(openai_server, tmp_path):
    questions = [f"question {number}" for number in range(50)]
    server = openai_server(ECHO, failures={17: "quota"})
    judge = client(server, retries=0)
    with pytest.raises(CompletionError, match="quota"):
        asked_in(tmp_path, judge, *questions)
    asked_in(tmp_path, judge, *questions)
    assert server.prompts[17:] == questions[16:]


@pytest.mark.parametrize("failure", ["filtered", "too_long", "too_long_vllm", "too_large"])
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_prompt_that_is_refused_for_good_stops_no_other(openai_server, tmp_path, failure, parallel):
    server, questions = openai_server(ECHO, failures={3: failure}), list(map(str, range(8)))
    found = asked_in(tmp_path, client(server, parallel=parallel), *questions)
    assert (sorted(found), len(server.bodies)) == (["", *["[[7]]"] * 7], 8)


def test_a_prompt_that_is_refused_for_good_is_not_asked_again(openai_server, tmp_path):
    server = openai_server(ECHO, failures={1: "filtered"})
    for _ in range(2):
        asked_in(tmp_path, client(server), "a", "b")
    assert len(server.bodies) == 2


def test_why_a_prompt_is_refused_is_kept_without_the_key(openai_server, tmp_path, key):
    server = openai_server(ECHO, failures={1: "filtered"})
    asked_in(tmp_path, client(server, key_variable=key), "a")
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert "The response was filtered" in json.loads(line)["refused"] and KEY not in line


def test_a_wrong_setting_is_no_refusal_of_one_prompt(openai_server, tmp_path):
    server = openai_server(ECHO, failures=lambda number: "wrong_setting")
    with pytest.raises(CompletionError, match="refuses the request; change the setting that it names"):
        asked_in(tmp_path, client(server), "a")
    assert (tmp_path / "answers.jsonl").read_text() == ""


# ------------------------------------------------------------------------------------------------------------ secrets


def test_the_key_of_the_named_variable_is_sent(openai_server, key):
    server = openai_server(ECHO, key=KEY)
    assert answers(client(server, key_variable=key), prompts("a")) == ["[[7]]"]


def test_no_other_key_is_sent(openai_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = openai_server(ECHO)
    answers(client(server), prompts("a"))
    assert KEY not in json.dumps(server.headers)


def test_a_wrong_key_is_refused_by_the_name_of_its_variable(openai_server, key):
    server = openai_server(ECHO, key="sk-another-key-000000")
    with pytest.raises(CompletionError, match=r"refuses the key \(from JUDGE_KEY\); put a valid one there"):
        answers(client(server, key_variable=key), prompts("a"))


def test_a_key_that_the_server_repeats_is_not_in_the_refusal(openai_server, key):
    server = openai_server(ECHO, key="sk-another-key-000000")
    with pytest.raises(CompletionError, match=r"API key provided: \[key\]") as caught:
        answers(client(server, key_variable=key), prompts("a"))
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_a_key_that_an_answer_repeats_is_not_kept(openai_server, key, tmp_path):
    server = openai_server(Canned(patterns={".": f"your key is {KEY}."}), key=KEY)
    asked_in(tmp_path, client(server, key_variable=key), "a")
    assert KEY not in (tmp_path / "answers.jsonl").read_text()


def test_the_key_is_in_no_log(openai_server, key, caplog):
    caplog.set_level(logging.DEBUG)
    answers(client(openai_server(ECHO, key=KEY, failures={1: "server_error"}), key_variable=key), prompts("a"))
    assert caplog.records and KEY not in caplog.text


def test_the_key_is_in_no_text_of_an_opened_completer(openai_server, key):
    judge = client(openai_server(ECHO), key_variable=key)
    with judge.opened() as answer:
        assert KEY not in f"{answer!r} {judge!r} {judge.identity()} {config.dump(judge)}"


def test_a_missing_key_is_refused_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="no key in the environment variable JUDGE_KEY; export it"):
        answers(OpenAIServer(url="http://127.0.0.1:9/v1", model="judge", key_variable="JUDGE_KEY"), prompts("a"))


def test_a_missing_key_is_told_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="no key in the environment variable JUDGE_KEY"):
        OpenAIServer(url="http://127.0.0.1:9/v1", model="judge", key_variable="JUDGE_KEY").require()


@pytest.mark.parametrize("wrong", ["sk-secret-01234\n", "sk-secret 01234", "sk-sécret-01234"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(wrong, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", wrong)
    with pytest.raises(ConfigError, match="the key in JUDGE_KEY holds a blank, a line's end") as caught:
        answers(OpenAIServer(url="http://127.0.0.1:9/v1", model="judge", key_variable="JUDGE_KEY"), prompts("a"))
    assert "01234" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://anna:secret@host/v1", "https://host/v1?key=secret", "https://host/v1#secret"])
def test_a_secret_in_the_url_is_refused_without_being_repeated(url):
    with pytest.raises(
        ConfigError, match="url: holds more than host and path, which is no place for a secret"
    ) as caught:
        OpenAIServer(url=url, model="judge")
    assert url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://host/v1", "http://", "http://[::1/v1", "http://localhost:abc/v1"),
        *("http://host:99999/v1", "http://ex..invalid/v1", "http://.host/v1", f"http://{'a' * 64}/v1"),
        *("http://ho st/v1", "http://host/v1 ", "http://host\n/v1", "http://ho\x00st/v1", "http://host/\ud800"),
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=r"url: found .*, allowed is http\(s\)://host/path") as caught:
        OpenAIServer(url=url, model="judge")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("url", ["http://anna:secret@ex..invalid/v1", "http://host:abc/v1?key=secret"])
def test_a_secret_in_an_address_that_is_none_is_not_repeated(url):
    with pytest.raises(ConfigError, match="url: found one that is none") as caught:
        OpenAIServer(url=url, model="judge")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1]:8000/v1", "http://127.0.0.1/v1", "https://host.example./v1", "http://a"])
def test_an_address_is_taken(url):
    OpenAIServer(url=url, model="judge").require()


@pytest.mark.parametrize("url", ["http://\u2024/v1", "http://[v1.x]/v1"])
def test_an_address_that_only_the_client_refuses_is_told_before_anything_is_asked(url):
    with pytest.raises(
        ConfigError, match=r"url: found .*, of which no client can be made \(InvalidURL: .*; correct it"
    ):
        OpenAIServer(url=url, model="judge").require()


def test_a_proxy_that_is_none_is_told_before_anything_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "nothing://at:all")
    with pytest.raises(ConfigError, match=r"no client can be made .* or the proxy that the environment names"):
        OpenAIServer(url="http://host/v1", model="judge").require()


def test_a_secret_of_a_proxy_is_not_repeated(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://anna:secret@host:port")
    with pytest.raises(ConfigError, match="of which no client can be made") as caught:
        OpenAIServer(url="http://host/v1", model="judge").require()
    assert "secret" not in str(caught.value)


def test_a_prompt_that_the_client_cannot_send_is_refused_in_one_line(openai_server):
    with pytest.raises(
        CompletionError, match=r"cannot send the request \(UnicodeEncodeError: .*\); what was"
    ) as caught:
        answers(client(openai_server(ECHO)), prompts("half \ud800 a pair"))
    assert "\n" not in str(caught.value)


def test_a_quota_that_is_used_up_is_not_asked_again(openai_server):
    server = openai_server(ECHO, failures=lambda number: "quota")
    with pytest.raises(CompletionError, match="the quota of this key is used up"):
        answers(client(server, retries=3), prompts("a"))
    assert len(server.bodies) == 1


def test_a_server_without_a_model_is_refused():
    with pytest.raises(ConfigError, match="model: missing; name the model as the server calls it"):
        OpenAIServer(url="http://host/v1")


def test_a_missing_library_is_refused_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"needs openai, which is not installed; pip install fedloom\[judge\]"):
        answers(OpenAIServer(url="http://127.0.0.1:9/v1", model="judge"), prompts("a"))
