"""Runs the demo DAG a few times in this process, on the metadata database that the environment names.

Model stages run here too instead of in child processes of their own: that saves a start of torch for every shard.
Called as ``python make_runs.py FOLDER [NAME...]``; writes the run ids by name to ``FOLDER/runs.json``.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

GOOD, HOSTILE, BROKEN = "MILL-DEMO-2024-10", "MILL-DEMO-2024-20", "MILL-DEMO-2024-33"


def main(folder, names):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.definitions.dag import SerializedDAG
    from crawls import broken_crawl, hostile_crawl

    import corpusmill_operators as mill

    for operator in (mill.RefineDocumentsOperator, mill.RefineChunksOperator, mill.ScoreUnitsOperator):
        operator.in_child = False
    dag = DagBag(dag_folder=str(REPOSITORY / "dags" / "corpus_refresh.py")).dags["corpus_refresh_demo"]
    for task in dag.tasks:
        task.retries = 0
    create = SerializedDAG.create_dagrun
    made = {}

    def run(name, key=None, **conf):
        def with_partition(self, **arguments):
            arguments.update(run_id=f"manual__{key or conf['crawl']}__{name}", logical_date=None, data_interval=None)
            if key is not None:
                arguments.update(partition_key=key, partition_date=self.timetable.resolve_partition_date(key))
            return create(self, **arguments)

        with patch.object(SerializedDAG, "create_dagrun", with_partition):
            # a date of its own, or `dag.test` would replace the run before it; the run itself has none
            made[name] = dag.test(logical_date=datetime.now(UTC), run_conf=conf).run_id

    hostile, broken = hostile_crawl(folder / "hostile", HOSTILE), broken_crawl(folder / "broken", BROKEN)
    wanted = {
        "good": {"key": GOOD},
        "hostile": {"crawl": HOSTILE, "source": str(hostile)},
        "broken": {"key": BROKEN, "source": str(broken)},
        "unplanned": {"crawl": "MILL-DEMO-1999-01", "source": str(hostile)},
    }
    place = folder / "runs.json"
    for name in names or wanted:
        run(name, **wanted[name])
    place.write_text(json.dumps((json.loads(place.read_text()) if place.exists() else {}) | made))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
