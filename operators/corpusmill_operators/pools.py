"""Pools that the DAGs use.

They must exist before a run: Airflow leaves a task of a missing pool ``scheduled`` forever.
"""

GPU_POOL = "gpu"
"""Slots for tasks that run a model; one slot for each device (or for each worker, where there is none)."""


def pool_definitions(gpu_slots: int = 1) -> dict[str, dict[str, object]]:
    """Returns the pools in the form that ``airflow pools import`` reads.

    Args:
        gpu_slots: Model tasks that may run at the same time over all workers.
    """
    return {
        GPU_POOL: {
            "slots": gpu_slots,
            "description": "Model stages: refinement and scoring, one slot for each device",
            "include_deferred": False,
        }
    }
