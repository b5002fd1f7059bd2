"""What a child process does in ``foreign/gpu_fault_dag.py``: it takes a device and finds no memory on it."""

from corpusmill.runner.device import device_slot


def run_out_of_memory():
    """Raises what torch raises on a full GPU, while it holds a device."""
    import torch

    with device_slot(print) as device:
        assert device
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 79.1 GiB.")
