"""Batches that run out of memory are halved; nothing else is caught."""

import pytest

from corpusmill.modeling.halving import halving, is_out_of_memory


def doubled_up_to(limit, calls, error):
    def run(rows):
        calls.append(len(rows))
        if sum(rows) > limit:
            raise error
        return [2 * row for row in rows]

    return run


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    calls = []
    answers = halving(doubled_up_to(6, calls, MemoryError("too big")), [1, 2, 3, 4, 5])
    assert answers == [2, 4, 6, 8, 10]
    assert calls[:2] == [5, 2]
    assert len(calls) <= 9


def test_a_row_that_does_not_fit_alone_has_its_error_in_place():
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")
    answers = halving(doubled_up_to(3, [], error), [1, 9, 2])
    assert answers[0] == 2
    assert answers[1] is error
    assert answers[2] == 4
    assert error.__traceback__ is None


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="device-side assert"):
        halving(doubled_up_to(0, [], RuntimeError("device-side assert triggered")), [1, 2])
    with pytest.raises(RuntimeError, match="gave 1 answers"):
        halving(lambda rows: [0], [1, 2])


def test_no_rows_are_no_call():
    assert halving(lambda rows: pytest.fail("called"), []) == []


def test_what_counts_as_out_of_memory():
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
