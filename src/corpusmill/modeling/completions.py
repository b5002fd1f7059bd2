"""A client of servers that speak the OpenAI completions protocol: vLLM, SGLang, TGI, and hosted ones.

Requests run on threads, one prompt each, so that the server forms its own batches. What fails is told apart: a wrong
key, address or model ends the call; a request that the server cannot take fails alone; a busy, broken or silent server
is asked again with growing waits. Where a request's attempts are used up, one tiny request shows whether the server
still answers: if so the fault stays with the request, if not the whole call ends, to be tried again later.

It does not stream: outputs are short, and a cut stream would have to be asked for again whole.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError, PermanentDataError, TransientDataError
from corpusmill.modeling.endpoints import Endpoint as Endpoint
from corpusmill.modeling.endpoints import resolve_endpoint as resolve_endpoint
from corpusmill.modeling.http_json import ExhaustedError, JsonServer, MalformedAnswerError, RefusedError, StoppedError
from corpusmill.modeling.http_json import Usage as Usage

TOKEN_ID = "token_id:"  # noqa: S105 - no password
"""Begins the name of a token in ``logprobs`` where a server names tokens by id (vLLM, when asked to)."""

_OF_THE_REQUEST = frozenset({400, 413, 422})


class ServerUnavailableError(TransientDataError):
    """The server did not answer any more.

    Attributes:
        answers: What it had answered before, one place per request and None where there is no answer.
    """

    answers: "list[Completion | Exception | None]"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.answers = []


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: The new text.
        finish_reason: ``stop`` (end token or stop string) or ``length`` (token limit); servers have others.
        n_prompt_tokens: Tokens of the prompt as the server counted them; where it did not, those sent as ids, else 0.
        n_completion_tokens: New tokens as the server counted them, 0 where it did not.
        top_logprobs: For each new token the likeliest tokens with their log probabilities (nats), by text or, where the
            server names them so, by ``token_id:N``; empty where they were not asked for.
        token_ids: Ids of the new tokens where the server gives them; an end token may be the last.
    """

    text: str
    finish_reason: str
    n_prompt_tokens: int
    n_completion_tokens: int
    top_logprobs: tuple[Mapping[str, float], ...] = ()
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ServedModel:
    """A model that a server offers.

    Attributes:
        name: What requests call it.
        context: Tokens that prompt and output may have together, None where the server does not say.
    """

    name: str
    context: int | None


class CompletionsClient:
    """Asks one model of one server; thread-safe; close it, or use it as a context manager.

    Args:
        endpoint: Where the server is, and the limits.
        model: The model's name on the server.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint = endpoint
        self.model = model
        self._server = JsonServer(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CompletionsClient({self.endpoint!r}, {self.model!r})"

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        return self._server.usage

    def models(self) -> list[ServedModel]:
        """Returns the models that the server offers (``GET /models``).

        Raises:
            ConfigError: The server refused the key or knows no such address.
            ServerUnavailableError: The server does not answer.
        """
        try:
            return self._server.ask("/models", None, _served_models, threading.Event())
        except RefusedError as error:
            raise self._refused(error) from None
        except ExhaustedError as error:
            raise ServerUnavailableError(self._unavailable(error)) from None

    def complete(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[Completion | Exception]:
        """Returns the greedy continuation of each prompt, in order, or why there is none.

        Args:
            prompts: Texts, or token ids where the server takes them (vLLM and SGLang do, TGI does not).
            max_tokens: New tokens at most.
            stop: Strings that end the output; they are not part of it.
            logprobs: Likeliest tokens to report at each place; None reports none.
            extra: Further fields of each request, beyond the protocol.

        Raises:
            ConfigError: The server refuses the key, the address or the model.
            ServerUnavailableError: The server does not answer, or not any more; a TransientDataError.
        """
        common: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "temperature": 0}
        if stop:
            common["stop"] = list(stop)
        if logprobs is not None:
            common["logprobs"] = logprobs
        common |= extra or {}
        sent = [replace_surrogates(p)[0] if isinstance(p, str) else list(p) for p in prompts]
        asked = [
            (common | {"prompt": p}, partial(_completion, n_sent=0 if isinstance(p, str) else len(p))) for p in sent
        ]
        probe = {"model": self.model, "max_tokens": 1, "temperature": 0, "prompt": "a"}
        return self._ask_all("/completions", asked, (probe, _completion))

    def chat(
        self,
        conversations: Sequence[Sequence[Mapping[str, str]]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Completion | Exception]:
        """Returns the answer to each conversation, in order, or why there is none.

        Args:
            conversations: Messages with ``role`` and ``content``.
            max_tokens: New tokens at most.
            temperature: 0 is greedy.
            seed: For sampling; None leaves it to the server.

        Raises:
            ConfigError: The server refuses the key, the address or the model.
            ServerUnavailableError: The server does not answer, or not any more; a TransientDataError.
        """
        common: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "temperature": temperature}
        if seed is not None:
            common["seed"] = seed
        asked = [
            (
                common | {"messages": [{k: replace_surrogates(v)[0] for k, v in m.items()} for m in messages]},
                _chat_answer,
            )
            for messages in conversations
        ]
        probe = {"model": self.model, "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        return self._ask_all("/chat/completions", asked, (probe, _chat_answer))

    def _ask_all(self, path: str, asked: Sequence["_Asked"], probe: "_Asked") -> list[Completion | Exception]:
        """Returns all answers; the first fault that is not one request's alone ends the call."""
        answers: list[Completion | Exception | None] = [None] * len(asked)
        faults: list[ConfigError | ServerUnavailableError] = []
        stop = threading.Event()

        def work(index: int) -> None:
            try:
                answers[index] = self._answer(path, asked[index], probe, stop)
            except StoppedError:
                pass
            except (ConfigError, ServerUnavailableError) as error:
                faults.append(error)
                stop.set()

        with ThreadPoolExecutor(max(1, min(self.endpoint.max_concurrency, len(asked)))) as pool:
            try:
                for future in [pool.submit(work, index) for index in range(len(asked))]:
                    future.result()
            finally:
                stop.set()  # an interrupt must not wait for the whole queue
        for fault in faults:
            if isinstance(fault, ServerUnavailableError):
                fault.answers = answers
            raise fault
        return [answer for answer in answers if answer is not None]

    def _answer(
        self, path: str, request: "_Asked", probe: "_Asked", stop: threading.Event
    ) -> Completion | PermanentDataError:
        """Returns the answer to one request, or its own fault."""
        try:
            try:
                return self._server.ask(path, *request, stop)
            except ExhaustedError as error:
                self._check_alive(path, probe, stop, error)
            # The server may have come back only now.
            return self._server.ask(path, *request, stop, max_retries=0)
        except RefusedError as error:
            if error.status in _OF_THE_REQUEST:
                return PermanentDataError(f"{self._name} cannot take a request: {error}")
            raise self._refused(error) from None
        except ExhaustedError as error:
            if error.busy:
                raise ServerUnavailableError(self._unavailable(error)) from None
            return PermanentDataError(f"{self._name} fails a request every time and answers others: {error}")

    def _check_alive(self, path: str, probe: "_Asked", stop: threading.Event, reason: ExhaustedError) -> None:
        """Asks a tiny request once, since one that fails every time and a server that fails look the same."""
        try:
            self._server.ask(path, *probe, stop, max_retries=0)
        except ExhaustedError:
            raise ServerUnavailableError(self._unavailable(reason)) from None
        except RefusedError:
            return  # a server that refuses is alive

    @property
    def _name(self) -> str:
        return f"model {self.model!r} at {self.endpoint.base_url}"

    def _unavailable(self, error: Exception) -> str:
        return f"{self._name} does not answer: {error}; see whether the server runs, then try again"

    def _refused(self, error: RefusedError) -> ConfigError:
        advice = {
            401: "check the endpoint's key (CORPUSMILL_ENDPOINT_<NAME>_KEY)",
            403: "check what the endpoint's key may do",
            404: "check the address, which ends in the version as in http://host:8000/v1, and the model's name there",
        }
        return ConfigError(
            f"{self._name} refuses: {error}; {advice.get(error.status, 'check the address and what the server offers')}"
        )


_Asked = tuple[dict[str, Any], Callable[[Any], Completion]]


def _completion(answer: Any, n_sent: int = 0) -> Completion:
    choice = _first_choice(answer)
    text = _text(choice, "text")
    logprobs = choice.get("logprobs")
    logprobs = logprobs if isinstance(logprobs, dict) else {}
    top = logprobs.get("top_logprobs")
    n_prompt, n_new = _token_counts(answer, n_sent)
    return Completion(
        text,
        _text(choice, "finish_reason"),
        n_prompt,
        n_new,
        tuple(_numbers(place) for place in top) if isinstance(top, list) else (),
        _token_ids(choice.get("token_ids"), logprobs.get("tokens")),
    )


def _chat_answer(answer: Any) -> Completion:
    choice = _first_choice(answer)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedAnswerError("its first choice has no 'message'")
    return Completion(_text(message, "content"), _text(choice, "finish_reason"), *_token_counts(answer, 0))


def _first_choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedAnswerError("it has no 'choices'")
    return choices[0]


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise MalformedAnswerError(f"{name!r} is {type(value).__name__}, not a string")
    return value


def _token_counts(answer: Mapping[str, Any], n_sent: int) -> tuple[int, int]:
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    n_prompt, n_new = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (n_prompt if isinstance(n_prompt, int) else n_sent, n_new if isinstance(n_new, int) else 0)


def _numbers(place: Any) -> dict[str, float]:
    """Returns the log probabilities of one place; what is no number is left out."""
    if not isinstance(place, dict):
        return {}
    return {name: float(value) for name, value in place.items() if isinstance(value, int | float)}


def _token_ids(given: Any, names: Any) -> tuple[int, ...] | None:
    """Returns ids as the server lists them, else as it names tokens by id, else None."""
    if isinstance(given, list) and all(isinstance(i, int) for i in given):
        return tuple(given)
    if not isinstance(names, list) or not all(isinstance(n, str) and n.startswith(TOKEN_ID) for n in names):
        return None
    digits = [name.removeprefix(TOKEN_ID) for name in names]
    return tuple(int(d) for d in digits) if digits and all(d.isdecimal() for d in digits) else None


def _served_models(answer: Any) -> list[ServedModel]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise MalformedAnswerError("it has no 'data'")
    entries = [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    lengths = [entry.get("max_model_len") for entry in entries]
    return [
        ServedModel(entry["id"], length if isinstance(length, int) and length > 0 else None)
        for entry, length in zip(entries, lengths, strict=True)
    ]
