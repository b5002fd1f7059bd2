"""What a task read and wrote, in OpenLineage's words; loaded only by that provider, after the task.

A table is a dataset named by its identifier in the namespace of the warehouse, with its columns and its files' place. A
commit adds the rows of the crawl's partition; the audit adds an assertion for each check that did not hold, and one for
all of them together.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpusmill.runner.table_flow import Dataset, Flow


def lineage_of(plan: str | None, stage: str | None) -> Any:
    """Returns the ``OperatorLineage`` of a stage of a run.

    Args:
        plan: URI of the run's plan; without one nothing was read or written.
        stage: A stage that writes a table, ``validate`` or ``publish``; None for a task that changes no table alone.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    if not plan or stage is None:
        return OperatorLineage()
    from corpusmill.runner.table_flow import table_flow

    flow = table_flow(plan, stage)
    return OperatorLineage(inputs=_inputs(flow), outputs=[_output(dataset) for dataset in flow.outputs])


def _inputs(flow: "Flow") -> Sequence[Any]:
    from airflow.providers.common.compat.openlineage.facet import InputDataset

    facets = {"dataQualityAssertions": _assertions(flow)} if flow.n_checks else {}
    return [InputDataset(d.namespace, d.name, facets=_facets(d), inputFacets=facets) for d in flow.inputs]


def _output(dataset: "Dataset") -> Any:
    from airflow.providers.common.compat.openlineage.facet import OutputDataset, OutputStatisticsOutputDatasetFacet

    statistics = OutputStatisticsOutputDatasetFacet(rowCount=dataset.rows)
    return OutputDataset(
        dataset.namespace, dataset.name, facets=_facets(dataset), outputFacets={"outputStatistics": statistics}
    )


def _facets(dataset: "Dataset") -> dict[str, Any]:
    from airflow.providers.common.compat.openlineage.facet import (
        Identifier,
        SchemaDatasetFacet,
        SchemaDatasetFacetFields,
        SymlinksDatasetFacet,
    )

    place = Identifier(namespace=dataset.location.rpartition("/")[0], name=dataset.location, type="LOCATION")
    found: dict[str, Any] = {"symlinks": SymlinksDatasetFacet(identifiers=[place])}
    if dataset.columns:
        columns = [SchemaDatasetFacetFields(name=name, type=kind) for name, kind in dataset.columns]
        found["schema"] = SchemaDatasetFacet(fields=columns)
    if dataset.snapshot is not None:
        from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

        found["version"] = DatasetVersionDatasetFacet(datasetVersion=str(dataset.snapshot))
    return found


def _assertions(flow: "Flow") -> Any:
    from openlineage.client.generated.data_quality_assertions_dataset import (
        Assertion,
        DataQualityAssertionsDatasetFacet,
    )

    passed = not any(check.severity == "error" for check in flow.checks)
    together = Assertion(
        assertion="all_critical_checks",
        success=passed,
        severity="error",
        expected=str(flow.n_checks),
        actual=str(flow.n_checks - len(flow.checks)),
    )
    broken = [
        Assertion(assertion=check.kind, success=False, severity=check.severity, description=check.sentence)
        for check in flow.checks
    ]
    return DataQualityAssertionsDatasetFacet(assertions=[together, *broken])
