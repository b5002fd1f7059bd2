"""Registers corpusmill with Airflow: timetable, operator links, UI pages, the look at pools, here and nowhere else."""

from airflow.plugins_manager import AirflowPlugin

from corpusmill_operators import missing_pools
from corpusmill_operators.links import DataDocsLink
from corpusmill_operators.timetable import CrawlReleaseTimetable, DailyWatchTimetable
from corpusmill_operators.ui.registration import FASTAPI_APPS, REACT_APPS, register_once

register_once(__file__)


class CorpusmillPlugin(AirflowPlugin):
    """Loaded from the plugins folder by every Airflow process."""

    name = "corpusmill"
    timetables = [CrawlReleaseTimetable, DailyWatchTimetable]  # noqa: RUF012 - the form that Airflow documents
    operator_extra_links = [DataDocsLink()]  # noqa: RUF012
    listeners = [missing_pools]  # noqa: RUF012
    fastapi_apps = FASTAPI_APPS
    react_apps = REACT_APPS
