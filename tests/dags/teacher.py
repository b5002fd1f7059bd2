"""A teacher for tests: rewrites the page in its prompt by deleting lines of fewer than 30 characters."""

import re

PAGE = re.compile(r"(-----BEGIN PAGE (\w+)-----\n)(.*)(\n-----END PAGE \2-----)", re.DOTALL)


def answer(prompt: str) -> str:
    begin, _, page, end = PAGE.search(prompt).groups()
    return begin + "\n".join(line for line in page.split("\n") if not 0 < len(line.strip()) < 30) + end
