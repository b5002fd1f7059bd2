"""The client of model servers, against a server of our own on real sockets."""

import json
import logging
import pickle
import threading
import urllib.request

import pytest

from corpusmill.errors import ConfigError, PermanentDataError, Transient, TransientDataError
from corpusmill.modeling.completions import (
    Completion,
    CompletionsClient,
    Endpoint,
    ServerUnavailableError,
    resolve_endpoint,
)
from corpusmill.modeling.http_json import Pace, retry_delay

KEY = "sk-very-secret-0001"
RULES = {
    "rules": [
        {"pattern": "^\\[.*\\]$", "answer": "list"},
        {"pattern": "say (\\w+)", "answer": "\\1 it is", "expand": True},
        {"pattern": "nothing matches without a default", "answer": ""},
        {"pattern": "^(a|poison)$", "answer": "fine"},
        {"pattern": "surrogate (.)", "answer": "got \\1", "expand": True},
    ]
}


@pytest.fixture(scope="module")
def url(completions_server, tmp_path_factory):
    script = tmp_path_factory.mktemp("script") / "rules.json"
    script.write_text(json.dumps(RULES))
    return completions_server("--script", script, "--key", KEY, "--context", "60")


@pytest.fixture
def client(url):
    """Makes clients of a server that has forgotten all faults and requests of other tests."""
    opened = []
    set_faults(url, [])

    def make(*faults, model="test-model", key=KEY, **limits):
        set_faults(url, list(faults))
        slow = any(fault["kind"] in ("delay", "trickle") for fault in faults)
        limits = {"timeout_seconds": 0.4 if slow else 30, "max_retries": 1, **limits}
        opened.append(CompletionsClient(Endpoint(url, key, **limits), model))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    set_faults(url, [])


def set_faults(url, faults):
    request = urllib.request.Request(url.removesuffix("/v1") + "/admin/faults", json.dumps(faults).encode())
    urllib.request.urlopen(request).close()


def texts(answers):
    return [answer.text if isinstance(answer, Completion) else type(answer) for answer in answers]


def test_completions_come_back_in_order_with_their_counts(client):
    asked = [f"say word{n}" for n in range(20)]
    with client() as one:
        answers = one.complete(asked, max_tokens=50)
    assert texts(answers) == [f"word{n} it is" for n in range(20)]
    assert answers[3] == Completion("word3 it is", "stop", 3, 5)
    assert (one.usage.n_requests, one.usage.n_retries) == (20, 0)
    assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (60, 100)


def test_outputs_end_at_the_token_limit_or_in_front_of_a_stop_string(client):
    one = client()
    cut = one.complete(["say river"], max_tokens=2)[0]
    assert (cut.text, cut.finish_reason) == ("river ", "length")
    stopped = one.complete(["say river"], max_tokens=9, stop=[" is"])[0]
    assert (stopped.text, stopped.finish_reason) == ("river it", "stop")


def test_chats_are_answered(client):
    one = client()
    answers = one.chat(
        [[{"role": "system", "content": "be short"}, {"role": "user", "content": "say water"}]] * 2,
        max_tokens=20, temperature=0.7, seed=3,
    )  # fmt: skip
    assert texts(answers) == ["water it is"] * 2


def test_no_prompts_ask_nothing(client):
    one = client()
    assert one.complete([], max_tokens=3) == []
    assert one.usage.n_requests == 0


def test_lone_surrogates_are_replaced_before_they_are_sent(client):
    one = client()
    assert texts(one.complete(["surrogate \ud800"], max_tokens=9)) == ["got \ufffd"]
    assert texts(one.chat([[{"role": "user", "content": "surrogate \udfff"}]], max_tokens=9)) == ["got \ufffd"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 429, "retry_after": 0},
        {"kind": "delay", "seconds": 0.6},
        {"kind": "trickle", "seconds": 0.05},
        {"kind": "cut"},
        {"kind": "garbage"},
        {"kind": "missing"},
        {"kind": "huge"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_a_fault_that_passes_is_asked_again(client, fault):
    one = client({**fault, "times": 1})
    assert texts(one.complete(["say river", "say water"], max_tokens=9)) == ["river it is", "water it is"]
    assert (one.usage.n_requests, one.usage.n_retries) == (3, 1)


def test_tokens_of_unusable_answers_are_counted(client):
    one = client({"kind": "missing", "times": 1})
    one.complete(["say river"], max_tokens=9)
    assert one.usage.prompt_tokens == 5 + 3
    assert one.usage.completion_tokens == 1 + 5


@pytest.mark.parametrize(
    "fault",
    [{"kind": "status", "status": 500}, {"kind": "garbage"}, {"kind": "cut"}, {"kind": "delay", "seconds": 0.6}],
    ids=lambda fault: fault["kind"],
)
def test_a_request_that_fails_every_time_fails_alone(client, fault):
    one = client({**fault, "pattern": "^poison$"})
    answers = one.complete(["say river", "poison", "say water"], max_tokens=9)
    assert texts(answers) == ["river it is", PermanentDataError, "water it is"]
    assert "fails a request every time and answers others" in str(answers[1])
    assert one.usage.n_requests == 2 + 2 + 1 + 1, "two answers, two attempts, a look whether it lives, a last attempt"


def test_a_request_that_the_server_cannot_take_fails_alone_and_at_once(client):
    one = client()
    answers = one.complete(["say river", "no rule for this", "say " + "long " * 60], max_tokens=9)
    assert texts(answers) == ["river it is", PermanentDataError, PermanentDataError]
    assert "no rule of the script" in str(answers[1])
    assert "maximum context length is 60" in str(answers[2])
    assert one.usage.n_retries == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "retry_after": 0},
        {"kind": "delay", "seconds": 0.6},
        {"kind": "cut"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_a_server_that_stops_answering_ends_the_call_and_keeps_what_it_answered(client, fault):
    one = client({**fault, "after": 2}, max_concurrency=1)
    with pytest.raises(ServerUnavailableError, match="does not answer") as caught:
        one.complete(["say a", "say b", "say c", "say d"], max_tokens=9)
    assert isinstance(caught.value, TransientDataError)
    assert [answer and answer.text for answer in caught.value.answers] == ["a it is", "b it is", None, None]


def test_a_busy_server_is_never_the_fault_of_a_request(client):
    one = client({"kind": "status", "status": 429, "retry_after": 0, "pattern": "^poison$"})
    with pytest.raises(ServerUnavailableError, match="429"):
        one.complete(["poison"], max_tokens=9)


def test_a_server_that_came_back_late_is_asked_once_more(client):
    one = client({"kind": "status", "status": 500, "times": 2, "pattern": "^poison$"})
    assert texts(one.complete(["poison"], max_tokens=9)) == ["fine"]


def test_a_server_that_dies_in_the_middle_of_a_batch(completions_server, tmp_path):
    script = tmp_path / "rules.json"
    script.write_text(json.dumps(RULES | {"faults": [{"kind": "die", "after": 3}]}))
    address = completions_server("--script", script)
    with CompletionsClient(Endpoint(address, max_retries=1, max_concurrency=1), "test-model") as one:
        with pytest.raises(ServerUnavailableError, match="does not answer") as caught:
            one.complete([f"say {n}" for n in range(6)], max_tokens=9)
        assert [answer is not None for answer in caught.value.answers] == [True] * 3 + [False] * 3
        with pytest.raises(ServerUnavailableError, match="ConnectError"):
            one.models()


@pytest.mark.parametrize(("status", "advice"), [(401, "key"), (403, "key"), (404, "model's name"), (302, "address")])
def test_a_refusal_that_concerns_every_request_ends_the_call(client, status, advice):
    one = client({"kind": "status", "status": status, "after": 1}, max_concurrency=1)
    with pytest.raises(ConfigError, match=advice):
        one.complete(["say a"] * 50, max_tokens=9)
    assert one.usage.n_requests == 2


def test_an_unknown_model_is_named(client):
    with pytest.raises(ConfigError, match=r"'other'.*does not exist"):
        client(model="other").complete(["say a"], max_tokens=9)


def test_the_key_never_shows(client, caplog):
    caplog.set_level(logging.DEBUG, logger="corpusmill")
    wrong = "sk-wrong-0002"
    one = client(key=wrong)
    assert wrong not in f"{one!r} {one.endpoint!r} {one.endpoint}"
    with pytest.raises(ConfigError) as caught:  # this server repeats the key that it got
        one.models()
    assert wrong not in str(caught.value)
    assert "wrong key Bearer ***" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        one.complete(["say a"], max_tokens=9)
    assert wrong not in repr(caught.value) + caplog.text


def test_an_unusable_key_is_refused_without_repeating_it():
    for key in ("", "sk two", "sk-line\n", "sk-\u00e4"):
        with pytest.raises(ConfigError, match="key of endpoint") as caught:
            Endpoint("http://localhost/v1", key)
        assert not key or key.strip() not in str(caught.value)


def test_served_models_come_with_their_context(client):
    [model] = client().models()
    assert (model.name, model.context) == ("test-model", 60)


def test_several_threads_share_one_client(client):
    one = client(max_concurrency=4)
    results = {}

    def work(name):
        results[name] = texts(one.complete([f"say {name}{n}" for n in range(10)], max_tokens=9))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [f"{name}{n} it is" for n in range(10)] for name in "abc"}
    assert one.usage.n_requests == 30


def test_requests_start_at_an_even_pace():
    pace = Pace(120)
    assert [pace.reserve(10.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert pace.reserve(11.25) == 0.25
    assert pace.reserve(60.0) == 0.0, "a pause is not made up for by a burst"
    assert pace.reserve(60.0) == 0.5
    unlimited = Pace(None)
    assert [unlimited.reserve(1.0) for _ in range(3)] == [0.0] * 3


def test_waits_grow_and_are_bounded():
    assert [retry_delay(n, 0.999999) for n in (1, 2, 3)] == pytest.approx([0.5, 1, 2], rel=1e-5)
    assert retry_delay(1, 0.0) == 0.25
    assert retry_delay(10**6, 0.5) <= 60
    assert retry_delay(1, 0.0, retry_after=7) == 7.25
    assert retry_delay(1, 0.5, retry_after=1e9) == 300
    assert retry_delay(1, 0.0, retry_after=-5) == 0.25


def test_an_endpoint_is_an_address_or_a_name_from_the_environment():
    assert resolve_endpoint("http://host:8000/v1/") == Endpoint("http://host:8000/v1")
    environment = {
        "CORPUSMILL_ENDPOINT_BIG_TEACHER": "https://models.example/v1/",
        "CORPUSMILL_ENDPOINT_BIG_TEACHER_KEY": "sk-1\n",
        "CORPUSMILL_ENDPOINT_BIG_TEACHER_MAX_CONCURRENCY": "64",
        "CORPUSMILL_ENDPOINT_BIG_TEACHER_REQUESTS_PER_MINUTE": "90.5",
        "CORPUSMILL_ENDPOINT_BIG_TEACHER_TIMEOUT_SECONDS": "",
    }
    assert resolve_endpoint("big-teacher", environment) == Endpoint(
        "https://models.example/v1", "sk-1", requests_per_minute=90.5, max_concurrency=64
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "CORPUSMILL_ENDPOINT_ABSENT "),
        ("a b", "neither an address"),
        ("limits", "MAX_RETRIES='many' is no whole number"),
        ("broken", "max_retries=-1"),
        ("nan", "requests_per_minute=nan"),
        ("fractional", "MAX_CONCURRENCY='1.5' is no whole number"),
        ("ftp://host/v1", "is no address"),
        ("http://host:99999/v1", "is no address"),
        ("http://user:pass@host/v1", "user, a password"),
        ("http://host/v1?key=1", "user, a password"),
    ],
)
def test_an_unusable_endpoint_is_refused(name, message):
    environment = {
        "CORPUSMILL_ENDPOINT_LIMITS": "http://host/v1",
        "CORPUSMILL_ENDPOINT_LIMITS_MAX_RETRIES": "many",
        "CORPUSMILL_ENDPOINT_BROKEN": "http://host/v1",
        "CORPUSMILL_ENDPOINT_BROKEN_MAX_RETRIES": "-1",
        "CORPUSMILL_ENDPOINT_NAN": "http://host/v1",
        "CORPUSMILL_ENDPOINT_NAN_REQUESTS_PER_MINUTE": "nan",
        "CORPUSMILL_ENDPOINT_FRACTIONAL": "http://host/v1",
        "CORPUSMILL_ENDPOINT_FRACTIONAL_MAX_CONCURRENCY": "1.5",
    }
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_endpoint(name, environment)
    assert "pass" not in str(caught.value).replace("password", "")


def test_the_error_survives_pickling():
    error = ServerUnavailableError("gone")
    error.answers = [None]
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, Transient)
    assert (str(copy), copy.answers) == ("gone", [None])
