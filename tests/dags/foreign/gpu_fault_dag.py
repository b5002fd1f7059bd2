"""A DAG whose one task works in a child process on a GPU that has no memory left."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from corpusmill_operators.child_step import ChildStepOperator


class FullGpuOperator(ChildStepOperator):
    """Calls a function that fails as torch does on a full GPU."""

    in_child = True

    def work(self, context):
        """Runs the function in a child process."""
        return self.call("gpu_fault:run_out_of_memory", {})


with DAG(
    dag_id="gpu_fault",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=0.1)},
) as dag:
    FullGpuOperator(task_id="work")
