"""Where kernels are kept: another folder for other sources, wherever the folders stand; one process compiles."""

import fcntl
import subprocess
import sys

import pytest

from corpusmill.kernel_folder import (
    LAST_COMPILED,
    SOURCES,
    cache_base,
    cache_folder,
    compiling_rules,
    kernels_digest,
    rules_are_compiled,
)


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_the_digest_is_in_the_path_wherever_kernels_are_kept(base, tmp_path, monkeypatch):
    assert cache_folder() == base / kernels_digest(SOURCES)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    assert cache_base() == tmp_path / "home" / "kernels"
    assert cache_folder() == tmp_path / "home" / "kernels" / kernels_digest(SOURCES)


@pytest.mark.parametrize(
    "changed", ["rules/compiled/a.py", "rules/fineweb.py", "dedup/shingles.py", "prox/piece_merging.py"]
)
def test_a_change_of_a_kernel_or_of_a_constant_that_it_froze_changes_the_digest(tmp_path, changed):
    digests = []
    for number, value in enumerate(("30", "40", "40")):
        sources = tmp_path / str(number)
        for name in ("rules/compiled/a.py", "rules/fineweb.py", "dedup/shingles.py", "prox/piece_merging.py"):
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_text(f"SHORT_LINE_CHARS = {value if name == changed else 30}\n")
        digests.append(kernels_digest(sources))
    assert digests[0] != digests[1] == digests[2]


def test_numba_keeps_kernels_in_that_folder(base):
    code = (
        "import numba; from corpusmill.kernel_folder import cache_folder, keep_kernels; keep_kernels(); "
        "print(numba.config.CACHE_DIR == str(cache_folder()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_one_compiles_and_nobody_waits_for_kernels_that_are_there(base):
    lock = cache_folder() / "compiling.lock"
    with compiling_rules(), lock.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    kept = cache_folder() / "compiled_0" / LAST_COMPILED.replace("*", "70.py311.1")
    kept.parent.mkdir()
    kept.touch()
    assert rules_are_compiled()
    with lock.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with compiling_rules():
            pass


def test_a_folder_that_cannot_be_written_lets_everybody_compile(base):
    base.touch()
    with compiling_rules():
        assert not rules_are_compiled()
