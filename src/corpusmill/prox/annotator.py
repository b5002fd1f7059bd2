"""Teachers: large models that answer questions about seed documents, behind one protocol.

`EndpointTeacher` asks an OpenAI-compatible chat server, `corpusmill.prox.local_teacher.LocalTeacher` a causal language
model in this process. Both answer greedily.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError
from corpusmill.modeling.completions import CompletionsClient, resolve_endpoint
from corpusmill.prox.annotation_config import TeacherConfig


@dataclass(frozen=True)
class Answer:
    """What a teacher wrote.

    Attributes:
        text: The answer; lone surrogates are replaced.
        finish_reason: ``stop``, or ``length`` where the token limit cut it.
        n_prompt_tokens: Tokens of the question, 0 where the teacher does not count.
        n_completion_tokens: Tokens of the answer, 0 where the teacher does not count.
    """

    text: str
    finish_reason: str = "stop"
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0


class Teacher(Protocol):
    """Answers conversations."""

    @property
    def name(self) -> str:
        """Name and version, for keys and provenance; never a machine path or an address."""
        ...

    @property
    def batch_requests(self) -> int:
        """Conversations that are best given to one call: what a kill can lose, times the calls at once."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls that may run at once, from different threads."""
        ...

    @property
    def n_retries(self) -> int:
        """Requests that were sent again so far."""
        ...

    def ask(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[Answer | Exception]:
        """Returns an answer for each conversation, in order, or why there is none and never will be.

        Raises:
            ConfigError: The teacher refuses everybody (key, address, model).
            TransientDataError: The teacher does not answer now.
        """
        ...

    def close(self) -> None:
        """Frees connections or memory."""
        ...


def load_teacher(config: TeacherConfig) -> Teacher:
    """Returns the teacher that the settings name; close it at the end.

    Raises:
        ConfigError: The endpoint is not known.
        ModelError: A local model cannot be loaded.
    """
    if config.kind == "endpoint":
        return EndpointTeacher(config)
    from corpusmill.prox.local_teacher import LocalTeacher

    return LocalTeacher(config)


class EndpointTeacher:
    """A chat model behind an OpenAI-compatible server; each conversation is a call of its own, several at once.

    Raises:
        ConfigError: The endpoint is not known.
    """

    batch_requests = 1

    def __init__(self, config: TeacherConfig) -> None:
        if config.endpoint is None:
            raise ConfigError("endpoint=None; expected a URL or the name of an endpoint from the environment")
        endpoint = resolve_endpoint(config.endpoint)
        if config.max_concurrency is not None:
            endpoint = replace(endpoint, max_concurrency=config.max_concurrency)
        if config.requests_per_minute is not None:
            endpoint = replace(endpoint, requests_per_minute=config.requests_per_minute)
        self.config = config
        self.name = config.model
        self.concurrency = endpoint.max_concurrency
        self._client = CompletionsClient(endpoint, config.model)

    @property
    def n_retries(self) -> int:
        """Returns how many requests were sent again so far."""
        return self._client.usage.n_retries

    def ask(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[Answer | Exception]:
        """Returns the server's answers, in order, or why there is none for good; see `Teacher.ask`."""
        given = self._client.chat(conversations, max_tokens=self.config.max_new_tokens, seed=self.config.seed)
        return [
            item
            if isinstance(item, Exception)
            else Answer(
                replace_surrogates(item.text)[0], item.finish_reason, item.n_prompt_tokens, item.n_completion_tokens
            )
            for item in given
        ]

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()
