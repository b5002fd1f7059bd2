"""Registers corpusmill with Airflow: the timetable and the operator links, here and nowhere else."""

from airflow.plugins_manager import AirflowPlugin

from corpusmill_operators.links import DataDocsLink
from corpusmill_operators.timetable import CrawlReleaseTimetable


class CorpusmillPlugin(AirflowPlugin):
    """Loaded from the plugins folder by every Airflow process."""

    name = "corpusmill"
    timetables = [CrawlReleaseTimetable]  # noqa: RUF012 - the form that Airflow documents
    operator_extra_links = [DataDocsLink()]  # noqa: RUF012
