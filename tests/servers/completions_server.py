"""A model server on real sockets that speaks the OpenAI completions protocol, with faults on demand.

    python tests/servers/completions_server.py --script FILE [--port 0]     answers by rules
    python tests/servers/completions_server.py --model FOLDER [--port 0]    answers by a transformers model, greedily

The first line of its output is its address, ``http://127.0.0.1:PORT/v1``; it then runs until it is killed. It serves
``/v1/models``, ``/v1/completions`` (text or token ids, one prompt or several; ``max_tokens``, ``logprobs``, ``stop``)
and ``/v1/chat/completions``.

Options: ``--name`` (name of the model, default "test-model"), ``--key`` (bearer token that it asks for), ``--context``
(tokens of prompt and output together), ``--max-logprobs`` (default 20), ``--tokenizer FOLDER`` (for token ids with a
script), ``--faults FILE`` (a list as below), and ``--dialect``, whose manners it takes on:

    vllm        token ids in and out, tokens named "token_id:N" on request, logprob_token_ids, max_model_len
    vllm-0.9    the same without logprob_token_ids and without token ids out
    sglang      token ids in, tokens named by their text
    tgi         text only, no logprobs

Script, as JSON:

    {"rules": [{"pattern": REGEX, "answer": TEXT}, ...],    the first that is found in the prompt (DOTALL) answers
     "default": TEXT,                                       where none is; without it such a prompt is a 400
     "faults": [...]}

or, with a name in ``.py``, Python with ``def answer(prompt: str) -> str``. The prompt of a chat is the contents of its
messages joined by line breaks. An answer with ``"expand": true`` in its rule may hold groups of the match
(``\\1``, ``\\g<name>``). A script's tokens are words and single other characters.

Faults, in the script or posted as a list to ``/admin/faults`` (they replace what was left), each an object:

    kind     status | delay | cut | garbage | missing | trickle | huge | die
    times    how many requests it strikes (absent: all)
    after    how many requests it lets pass first (default 0)
    pattern  only requests whose prompt holds this regular expression; of token ids, their decimal numbers joined by
             blanks
    status, retry_after     of "status": the HTTP status (default 500) and its Retry-After header
    seconds                 of "delay" (before the answer) and "trickle" (between two bytes)

``cut`` closes the connection in the middle of the body, ``garbage`` sends no JSON, ``missing`` JSON without choices,
``huge`` an endless body, ``die`` ends the process at once. Posting the faults also forgets the requests so far, whose
bodies and Authorization headers ``GET /admin/requests`` returns. ``/admin/dialect`` takes another dialect.
"""

import argparse
import json
import os
import re
import runpy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT_TOKEN = re.compile(r"[^\W_]+|.", re.DOTALL)


@dataclass
class Written:
    """New tokens: their ids, what each says, and where known the log probabilities of all alternatives."""

    ids: list[int]
    texts: list[str]
    text: str
    finish_reason: str
    logprobs: list[dict[int, float]]


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ScriptedBackend:
    """Answers by rules or by a function."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.faults: list[dict[str, Any]] = []
        self.answer: Callable[[str], str] = self._by_rules
        if path.suffix == ".py":
            self.answer = runpy.run_path(str(path))["answer"]
            return
        self.script = json.loads(path.read_text(encoding="utf-8"))
        self.faults = self.script.get("faults", [])

    def _by_rules(self, prompt: str) -> str:
        for rule in self.script.get("rules", []):
            if found := re.search(rule["pattern"], prompt, re.DOTALL):
                return found.expand(rule["answer"]) if rule.get("expand") else rule["answer"]
        if "default" not in self.script:
            raise Refused(400, "no rule of the script matches this prompt")
        return self.script["default"]

    def n_tokens(self, prompt: str | list[int]) -> int:
        return len(SCRIPT_TOKEN.findall(prompt)) if isinstance(prompt, str) else len(prompt)

    def write(self, prompt: str | list[int], max_tokens: int, stop: list[str], chat: bool = False) -> Written:
        if not isinstance(prompt, str):
            if self.tokenizer is None:
                raise Refused(400, "a script takes token ids only with --tokenizer")
            prompt = self.tokenizer.decode(prompt)
        whole = self.answer(prompt)
        ended = min([whole.find(s) for s in stop if s in whole], default=len(whole))
        tokens = SCRIPT_TOKEN.findall(whole[:ended])
        reason, text = "length" if len(tokens) > max_tokens else "stop", "".join(tokens[:max_tokens])
        if self.tokenizer is None:
            return Written([], [], text, reason, [])
        end = [self.tokenizer.eos] if reason == "stop" and self.tokenizer.eos is not None else []
        return Written(self.tokenizer.encoder.encode(text) + end, [], text, reason, [])


class ModelBackend:
    """Answers by greedy decoding of one prompt at a time, without padding."""

    faults: Sequence[dict[str, Any]] = ()

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.tokenizer = tokenizer
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.lock = threading.Lock()

    def _ids(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        bos = self.tokenizer.encoder.bos
        return ([] if bos is None else [bos]) + self.tokenizer.encoder.encode(prompt)

    def n_tokens(self, prompt: str | list[int]) -> int:
        return len(self._ids(prompt))

    def write(self, prompt: str | list[int], max_tokens: int, stop: list[str], chat: bool = False) -> Written:
        if chat:
            prompt = f"[INST] {prompt} [/INST]"
        torch, tokenizer = self.torch, self.tokenizer
        new: list[int] = []
        logprobs: list[dict[int, float]] = []
        feed, cache, reason = torch.tensor([self._ids(prompt)]), None, "length"
        with self.lock, torch.inference_mode():
            while len(new) < max_tokens and reason == "length":
                out = self.model(input_ids=feed, past_key_values=cache, use_cache=True)
                cache, last = out.past_key_values, out.logits[0, -1].float().log_softmax(0)
                new.append(int(last.argmax()))
                logprobs.append(dict(enumerate(last.tolist())))
                feed = torch.tensor([new[-1:]])
                if new[-1] == tokenizer.eos or any(s in tokenizer.decode(new) for s in stop):
                    reason = "stop"
        text = tokenizer.decode([i for i in new if i != tokenizer.eos])
        ended = min([text.find(s) for s in stop if s in text], default=len(text))
        return Written(new, [tokenizer.decode([i]) for i in new], text[:ended], reason, logprobs)


class Faults:
    """The faults that are left, and the requests so far."""

    def __init__(self, faults: Sequence[dict[str, Any]]) -> None:
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.replace(faults)

    def replace(self, faults: Sequence[dict[str, Any]]) -> None:
        with self.lock:
            self.left = [dict(fault) for fault in faults]
            self.requests.clear()

    def strike(self, prompt: str) -> dict[str, Any] | None:
        """Returns the fault that this request meets."""
        with self.lock:
            for fault in self.left:
                if "pattern" in fault and not re.search(fault["pattern"], prompt, re.DOTALL):
                    continue
                if fault.get("after", 0) > 0:
                    fault["after"] -= 1
                    continue
                if fault.get("times", 1) <= 0:
                    continue
                if "times" in fault:
                    fault["times"] -= 1
                return fault
        return None


def completion_choice(server: "Server", index: int, written: Written, body: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index, "text": written.text, "finish_reason": written.finish_reason, "logprobs": None,
    }  # fmt: skip
    dialect = server.options.dialect
    if dialect == "vllm" and body.get("return_token_ids") and written.ids:
        choice["token_ids"] = written.ids
    if body.get("logprobs") is not None and written.logprobs and dialect != "tgi":
        by_id = bool(body.get("return_tokens_as_token_ids")) and dialect.startswith("vllm")

        def name(token: int) -> str:
            return f"token_id:{token}" if by_id else server.backend.tokenizer.decode([token])

        watched = body.get("logprob_token_ids") if dialect == "vllm" else None
        places = []
        for token, logprobs in zip(written.ids, written.logprobs, strict=True):
            best = sorted(logprobs, key=lambda i: -logprobs[i])[: body["logprobs"]]
            places.append({name(i): logprobs[i] for i in [token, *(watched or best)]})
        choice["logprobs"] = {
            "tokens": [name(token) for token in written.ids],
            "token_logprobs": [logprobs[i] for i, logprobs in zip(written.ids, written.logprobs, strict=True)],
            "top_logprobs": places,
            "text_offset": [0] * len(places),
        }
    return choice


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/admin/requests":
            self.reply(200, self.server.faults.requests)
        elif self.path == "/v1/models" and self.authorized():
            entry = {"id": self.server.options.name, "object": "model", "owned_by": "tests"}
            if self.server.options.context and self.server.options.dialect.startswith("vllm"):
                entry["max_model_len"] = self.server.options.context
            self.reply(200, {"object": "list", "data": [entry]})
        else:
            self.refuse(404, f"no such place: {self.path}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.path == "/admin/faults":
            self.server.faults.replace(body)
            self.reply(200, {})
            return
        if self.path == "/admin/dialect":
            self.server.options.dialect = body
            self.reply(200, {})
            return
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            self.refuse(404, f"no such place: {self.path}")
            return
        if not self.authorized():
            return
        self.server.faults.requests.append({"authorization": self.headers.get("Authorization"), "body": body})
        prompts = self.prompts(body)
        shown = "\n".join(p if isinstance(p, str) else " ".join(map(str, p)) for p in prompts)
        fault = self.server.faults.strike(shown)
        try:
            self.answer(body, prompts, fault or {"kind": None})
        except Refused as error:
            self.refuse(error.status, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def authorized(self) -> bool:
        key = self.server.options.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.refuse(401, f"wrong key {self.headers.get('Authorization')}")
        return False

    def prompts(self, body: dict[str, Any]) -> list[str | list[int]]:
        if self.path.startswith("/v1/chat"):
            return ["\n".join(message["content"] for message in body["messages"])]
        prompt = body["prompt"]
        several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
        return prompt if several else [prompt]

    def answer(self, body: dict[str, Any], prompts: list[str | list[int]], fault: dict[str, Any]) -> None:
        if fault["kind"] == "die":
            os._exit(1)
        if fault["kind"] == "status":
            status = fault.get("status", 500)
            wait = fault.get("retry_after")
            self.refuse(status, f"fault {status}", {} if wait is None else {"Retry-After": str(wait)})
            return
        if fault["kind"] == "delay":
            time.sleep(fault["seconds"])
        self.check(body, prompts)
        data = json.dumps(self.result(body, prompts)).encode()
        if fault["kind"] == "garbage":
            data = data[:-1] + b"<"
        elif fault["kind"] == "missing":
            data = b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}'
        self.send(200, data, fault)

    def check(self, body: dict[str, Any], prompts: list[str | list[int]]) -> None:
        options, backend = self.server.options, self.server.backend
        if body.get("model") != options.name:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.")
        if options.dialect == "tgi" and not all(isinstance(prompt, str) for prompt in prompts):
            raise Refused(422, "data did not match any variant of untagged enum Prompt")
        if (body.get("logprobs") or 0) > options.max_logprobs:
            raise Refused(400, f"Requested {body['logprobs']} logprobs, more than {options.max_logprobs}")
        for prompt in prompts:
            n = backend.n_tokens(prompt)
            if options.context and n + body.get("max_tokens", 16) > options.context:
                raise Refused(400, f"This model's maximum context length is {options.context} tokens, asked {n}")

    def result(self, body: dict[str, Any], prompts: list[str | list[int]]) -> dict[str, Any]:
        server, backend = self.server, self.server.backend
        chat = self.path.startswith("/v1/chat")
        stop = [body["stop"]] if isinstance(body.get("stop"), str) else list(body.get("stop") or ())
        written = [backend.write(prompt, body.get("max_tokens", 16), stop, chat) for prompt in prompts]
        if chat:
            message = {"role": "assistant", "content": written[0].text}
            choices = [{"index": 0, "message": message, "finish_reason": written[0].finish_reason}]
        else:
            choices = [completion_choice(server, i, one, body) for i, one in enumerate(written)]
        n_new = sum(len(one.ids) or len(SCRIPT_TOKEN.findall(one.text)) for one in written)
        usage = {"prompt_tokens": sum(map(backend.n_tokens, prompts)), "completion_tokens": n_new}
        return {"object": "completion", "model": body["model"], "choices": choices, "usage": usage}

    def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"error": {"message": message, "code": status}}, headers)

    def reply(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(answer).encode(), {"kind": None}, headers)

    def send(self, status: int, data: bytes, fault: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        length = 1 << 40 if fault["kind"] == "huge" else len(data)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if fault["kind"] == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault["kind"] == "trickle":
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(fault["seconds"])
        elif fault["kind"] == "huge":
            while True:
                self.wfile.write(b" " * 65536)
        else:
            self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """The server, with what all its connections share."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), Handler)
        tokenizer = None
        if options.tokenizer or options.model:
            from corpusmill.prox.prompt_tokenizer import load_tokenizer

            tokenizer = load_tokenizer(options.tokenizer or options.model)
        self.options = options
        self.backend: Any = (
            ModelBackend(options.model, tokenizer) if options.model else ScriptedBackend(options.script, tokenizer)
        )
        given = json.loads(options.faults.read_text(encoding="utf-8")) if options.faults else []
        self.faults = Faults([*self.backend.faults, *given])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that hang up are part of the tests."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--script", type=Path)
    source.add_argument("--model", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="test-model")
    parser.add_argument("--key")
    parser.add_argument("--context", type=int)
    parser.add_argument("--max-logprobs", type=int, default=20)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--dialect", choices=["vllm", "vllm-0.9", "sglang", "tgi"], default="vllm")
    server = Server(parser.parse_args())
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
