import pendulum
import pytest

RELEASES = [
    ("CC-MAIN-2024-18", "2024-05-02"),
    ("CC-MAIN-2024-10", "2024-03-12"),
    ("CC-MAIN-2023-50", "2023-12-20"),
    ("CC-MAIN-2099-01", "2099-01-10"),
]

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def timetable():
    from corpusmill_operators.timetable import CrawlReleaseTimetable

    return CrawlReleaseTimetable(RELEASES)


def restriction(catchup, earliest="2024-01-01", latest=None):
    from airflow.timetables.base import TimeRestriction

    return TimeRestriction(earliest=pendulum.parse(earliest), latest=latest and pendulum.parse(latest), catchup=catchup)


def keys_in_turn(timetable, rule, limit=10):
    """The crawls a scheduler would run one after the other."""
    keys, last = [], None
    while len(keys) < limit and (last := timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=rule)):
        keys.append(last.partition_key)
    return keys


def test_catchup_runs_every_release_since_the_start_date_once(timetable):
    assert keys_in_turn(timetable, restriction(catchup=True)) == [
        "CC-MAIN-2024-10",
        "CC-MAIN-2024-18",
        "CC-MAIN-2099-01",
    ]


def test_without_catchup_the_first_run_is_the_newest_release_of_the_past(timetable):
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction(catchup=False))
    assert info.partition_key == "CC-MAIN-2024-18"


def test_a_release_of_the_future_is_not_due_before_its_day(timetable):
    last = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction(catchup=False))
    following = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction(catchup=False))
    assert following.partition_key == "CC-MAIN-2099-01"
    assert following.run_after == pendulum.datetime(2099, 1, 10, tz="UTC")


def test_releases_missed_while_nothing_ran_are_made_up_for_with_catchup(timetable):
    from corpusmill_operators.timetable import CrawlReleaseTimetable

    before = CrawlReleaseTimetable([("CC-MAIN-2023-50", "2023-12-20")])
    last = before.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction(True, earliest="2023-12-01"))
    after = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction(True, earliest="2023-12-01"))
    assert after.partition_key == "CC-MAIN-2024-10"


def test_the_last_known_release_has_no_successor_until_the_list_grows(timetable):
    last = timetable._info("CC-MAIN-2099-01")
    assert timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction(True)) is None


def test_backfill_bounds_are_inclusive_and_follow_release_dates(timetable):
    infos = timetable.iter_partition_dagrun_infos(
        earliest=pendulum.datetime(2023, 12, 20, tz="UTC"), latest=pendulum.datetime(2024, 3, 12, tz="UTC")
    )
    assert [i.partition_key for i in infos] == ["CC-MAIN-2023-50", "CC-MAIN-2024-10"]


def test_an_unknown_crawl_is_refused_with_the_newest_known_ones(timetable):
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match=r"unknown crawl 'CC-MAIN-2000-01'.*CC-MAIN-2024-18"):
        timetable.resolve_partition_date("CC-MAIN-2000-01")


def test_run_ids_name_the_crawl_and_manual_runs_keep_airflows_form(timetable):
    from airflow.utils.types import DagRunType

    now = pendulum.now("UTC")
    arguments = {"run_type": DagRunType.BACKFILL_JOB, "run_after": now, "data_interval": None}
    assert timetable.generate_run_id(partition_key="CC-MAIN-2024-10", **arguments).startswith(
        "backfill__CC-MAIN-2024-10__"
    )
    assert now.isoformat() in timetable.generate_run_id(**arguments)


def test_serialisation_gives_an_equal_timetable(timetable):
    from corpusmill_operators.timetable import CrawlReleaseTimetable

    again = CrawlReleaseTimetable.deserialize(timetable.serialize())
    assert again == timetable
    assert hash(again) == hash(timetable)
    assert again.summary == "4 crawl releases"


@pytest.mark.parametrize(
    ("releases", "message"),
    [
        ([("A-2024-10", "2024-03-12"), ("B-2024-10", "2024-03-12")], "share the release day 2024-03-12"),
        ([("A-2024-10", "2024-03-12"), ("A-2024-10", "2024-03-13")], "names crawls twice: A-2024-10"),
    ],
    ids=["same day", "same id"],
)
def test_releases_that_airflow_could_not_tell_apart_are_refused(releases, message):
    from airflow.exceptions import AirflowTimetableInvalid

    from corpusmill_operators.timetable import CrawlReleaseTimetable

    with pytest.raises(AirflowTimetableInvalid, match=message):
        CrawlReleaseTimetable(releases).validate()
