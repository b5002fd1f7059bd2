"""Airflow operators of corpusmill: one operator for each stage, a timetable with one run per crawl release.

Names are loaded when they are first used, so that ``import corpusmill_operators`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpusmill_operators.ablation_step import ARM_LABEL as ARM_LABEL
    from corpusmill_operators.ablation_step import REFERENCE_LABEL as REFERENCE_LABEL
    from corpusmill_operators.alerts import read_alerts as read_alerts
    from corpusmill_operators.annotate_seed import AnnotateSeedOperator as AnnotateSeedOperator
    from corpusmill_operators.approve_publication import ApprovePublicationOperator as ApprovePublicationOperator
    from corpusmill_operators.assemble_corpus import AssembleCorpusOperator as AssembleCorpusOperator
    from corpusmill_operators.assets import corpus_asset as corpus_asset
    from corpusmill_operators.assets import reference_model_asset as reference_model_asset
    from corpusmill_operators.assets import refiner_asset as refiner_asset
    from corpusmill_operators.assets import releases_asset as releases_asset
    from corpusmill_operators.clean_rules import CleanRulesOperator as CleanRulesOperator
    from corpusmill_operators.commit_stage import CommitStageOperator as CommitStageOperator
    from corpusmill_operators.count_scores import CountScoresOperator as CountScoresOperator
    from corpusmill_operators.deduplicate import DeduplicateOperator as DeduplicateOperator
    from corpusmill_operators.evaluate_reference import EvaluateReferenceModelOperator as EvaluateReferenceModelOperator
    from corpusmill_operators.evaluate_refiner import EvaluateRefinerOperator as EvaluateRefinerOperator
    from corpusmill_operators.index_bands import IndexBandsOperator as IndexBandsOperator
    from corpusmill_operators.ingest_crawl import IngestCrawlOperator as IngestCrawlOperator
    from corpusmill_operators.join_bands import PART_LABEL as PART_LABEL
    from corpusmill_operators.join_bands import JoinBandsOperator as JoinBandsOperator
    from corpusmill_operators.links import DataDocsLink as DataDocsLink
    from corpusmill_operators.list_arms import ListArmsOperator as ListArmsOperator
    from corpusmill_operators.maintain_lakehouse import NAMESPACE_LABEL as NAMESPACE_LABEL
    from corpusmill_operators.maintain_lakehouse import MaintainLakehouseOperator as MaintainLakehouseOperator
    from corpusmill_operators.map_stage import SHARD_LABEL as SHARD_LABEL
    from corpusmill_operators.pack_reference_text import PackReferenceTextOperator as PackReferenceTextOperator
    from corpusmill_operators.pack_sequences import PackSequencesOperator as PackSequencesOperator
    from corpusmill_operators.plan_reference_model import PlanReferenceModelOperator as PlanReferenceModelOperator
    from corpusmill_operators.plan_run import PlanRunOperator as PlanRunOperator
    from corpusmill_operators.pools import GPU_POOL as GPU_POOL
    from corpusmill_operators.prepare_ablation import PrepareAblationOperator as PrepareAblationOperator
    from corpusmill_operators.publish_corpus import PublishCorpusOperator as PublishCorpusOperator
    from corpusmill_operators.recipes import read_ablations as read_ablations
    from corpusmill_operators.recipes import read_recipes as read_recipes
    from corpusmill_operators.recipes import read_reference_model_recipes as read_reference_model_recipes
    from corpusmill_operators.recipes import read_refiner_recipes as read_refiner_recipes
    from corpusmill_operators.refine_chunks import RefineChunksOperator as RefineChunksOperator
    from corpusmill_operators.refine_documents import RefineDocumentsOperator as RefineDocumentsOperator
    from corpusmill_operators.register_reference import RegisterReferenceModelOperator as RegisterReferenceModelOperator
    from corpusmill_operators.register_refiner import RegisterRefinerOperator as RegisterRefinerOperator
    from corpusmill_operators.releases import releases_of as releases_of
    from corpusmill_operators.releases import watched_sources as watched_sources
    from corpusmill_operators.report_ablation import ReportAblationOperator as ReportAblationOperator
    from corpusmill_operators.report_run import ReportRunOperator as ReportRunOperator
    from corpusmill_operators.retries import RETRY_POLICY as RETRY_POLICY
    from corpusmill_operators.retries import TASK_DEFAULTS as TASK_DEFAULTS
    from corpusmill_operators.sample_seed import SampleSeedOperator as SampleSeedOperator
    from corpusmill_operators.score_pool import ScorePoolOperator as ScorePoolOperator
    from corpusmill_operators.score_units import ScoreUnitsOperator as ScoreUnitsOperator
    from corpusmill_operators.select_units import SelectUnitsOperator as SelectUnitsOperator
    from corpusmill_operators.synthesise_examples import SynthesiseExamplesOperator as SynthesiseExamplesOperator
    from corpusmill_operators.timetable import CrawlReleaseTimetable as CrawlReleaseTimetable
    from corpusmill_operators.timetable import DailyWatchTimetable as DailyWatchTimetable
    from corpusmill_operators.train_arm import TrainArmOperator as TrainArmOperator
    from corpusmill_operators.train_reference_model import TrainReferenceModelOperator as TrainReferenceModelOperator
    from corpusmill_operators.train_refiner import TrainRefinerOperator as TrainRefinerOperator
    from corpusmill_operators.validate_table import ValidateTableOperator as ValidateTableOperator
    from corpusmill_operators.watch_releases import WatchReleasesOperator as WatchReleasesOperator

_MODULE_OF = {
    "ARM_LABEL": "ablation_step",
    "AnnotateSeedOperator": "annotate_seed",
    "ApprovePublicationOperator": "approve_publication",
    "AssembleCorpusOperator": "assemble_corpus",
    "CleanRulesOperator": "clean_rules",
    "CommitStageOperator": "commit_stage",
    "CountScoresOperator": "count_scores",
    "CrawlReleaseTimetable": "timetable",
    "DailyWatchTimetable": "timetable",
    "DataDocsLink": "links",
    "DeduplicateOperator": "deduplicate",
    "EvaluateReferenceModelOperator": "evaluate_reference",
    "EvaluateRefinerOperator": "evaluate_refiner",
    "GPU_POOL": "pools",
    "IndexBandsOperator": "index_bands",
    "IngestCrawlOperator": "ingest_crawl",
    "JoinBandsOperator": "join_bands",
    "ListArmsOperator": "list_arms",
    "MaintainLakehouseOperator": "maintain_lakehouse",
    "NAMESPACE_LABEL": "maintain_lakehouse",
    "PART_LABEL": "join_bands",
    "PackReferenceTextOperator": "pack_reference_text",
    "PackSequencesOperator": "pack_sequences",
    "PlanReferenceModelOperator": "plan_reference_model",
    "PlanRunOperator": "plan_run",
    "PrepareAblationOperator": "prepare_ablation",
    "PublishCorpusOperator": "publish_corpus",
    "REFERENCE_LABEL": "ablation_step",
    "RETRY_POLICY": "retries",
    "RefineChunksOperator": "refine_chunks",
    "RefineDocumentsOperator": "refine_documents",
    "RegisterReferenceModelOperator": "register_reference",
    "RegisterRefinerOperator": "register_refiner",
    "ReportAblationOperator": "report_ablation",
    "ReportRunOperator": "report_run",
    "SHARD_LABEL": "map_stage",
    "SampleSeedOperator": "sample_seed",
    "ScorePoolOperator": "score_pool",
    "ScoreUnitsOperator": "score_units",
    "SelectUnitsOperator": "select_units",
    "SynthesiseExamplesOperator": "synthesise_examples",
    "TASK_DEFAULTS": "retries",
    "TrainArmOperator": "train_arm",
    "TrainReferenceModelOperator": "train_reference_model",
    "TrainRefinerOperator": "train_refiner",
    "ValidateTableOperator": "validate_table",
    "WatchReleasesOperator": "watch_releases",
    "corpus_asset": "assets",
    "read_ablations": "recipes",
    "read_alerts": "alerts",
    "read_recipes": "recipes",
    "read_reference_model_recipes": "recipes",
    "read_refiner_recipes": "recipes",
    "reference_model_asset": "assets",
    "refiner_asset": "assets",
    "releases_asset": "assets",
    "releases_of": "releases",
    "watched_sources": "releases",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
