"""A teacher by rules for `completions_server.py --script`: it scores pages, and edits them as a careful reader would.

Debris is any line that begins with a word of `DEBRIS`, and any ``[edit]`` or address inside a line. A page that holds
the word GARBAGE is answered with garbage, one that holds REFUSED gets no answer.
"""

import re

DEBRIS = ("Home", "Log in", "Share", "(c)", "http://")
INLINE = re.compile(r" ?\[edit\]| ?https?://\S+")


def answer(prompt: str) -> str:
    begin = re.search(r"^-----BEGIN PAGE (\w+)-----$", prompt, re.MULTILINE)
    if begin is None:
        return "What page?"
    end = f"-----END PAGE {begin[1]}-----"
    page = prompt[begin.end() + 1 : prompt.index(end) - 1]
    if "GARBAGE" in page:
        return "I cannot say. remove_lines(start=0, end=99999) import os"
    for question, reply in (
        ("Educational score:", educational),
        ("Extraction Quality Score:", layout),
        ("navigation at the top", navigation),
        ("addresses and links", links),
        ("what follows the main text", footers),
    ):
        if question in prompt[: begin.start()]:
            return reply(page)
    return f"{begin[0]}\n{rewrite(page)}\n{end}"


def educational(page: str) -> str:
    n = sum(word in page for word in ("theorem", "proof", "because", "equation", "survey"))
    return f"It explains {n} things.\nEducational score: {min(5, n + 1)}"


def layout(page: str) -> str:
    return f"Some debris is left.\nExtraction Quality Score: {5 - min(5, sum(word in page for word in DEBRIS))}"


def numbered(page: str) -> list[tuple[int, str]]:
    return [(int(m[1]), m[2]) for m in re.finditer(r"^\[(\d+)\](.*)$", page, re.MULTILINE)]


def program(lines: list[tuple[int, str]], strings: list[str]) -> str:
    calls = [f"# [{n:03d}]{line[:20]}\nremove_lines(start={n}, end={n})" for n, line in lines]
    calls += [f'normalize(source_str="{text}", target_str="")' for text in dict.fromkeys(strings)]
    return "I looked at every line.\n```python\n" + "\n".join(calls or ["untouch_doc()"]) + "\n```"


def navigation(page: str) -> str:
    return program([(n, line) for n, line in numbered(page) if line.startswith(("Home", "Log in"))], [])


def links(page: str) -> str:
    whole = [(n, line) for n, line in numbered(page) if line.startswith("http://")]
    inside = [found for n, line in numbered(page) if (n, line) not in whole for found in INLINE.findall(line)]
    return program(whole, inside)


def footers(page: str) -> str:
    return program([(n, line) for n, line in numbered(page) if line.startswith(("Share", "(c)"))], [])


def rewrite(page: str) -> str:
    return "\n".join(INLINE.sub("", line) for line in page.split("\n") if not line.startswith(DEBRIS))
