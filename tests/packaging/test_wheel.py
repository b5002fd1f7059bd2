"""What the wheel holds, and what an installation of it adds to an environment."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_two_packages_and_no_generic_top_level_name(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"corpusmill", "corpusmill_operators"}


def test_every_source_file_is_in_the_wheel_and_nothing_compiled(names):
    for root in ("src/corpusmill", "operators/corpusmill_operators"):
        package = Path(root).name
        sources = {f"{package}/{p.relative_to(REPOSITORY / root)}" for p in (REPOSITORY / root).rglob("*.py")}
        assert sources <= set(names)
    assert [name for name in names if name.endswith(".pyc")] == []
    assert {"corpusmill/py.typed", "corpusmill_operators/py.typed"} <= set(names)


def test_the_prompts_of_annotation_travel_with_the_package(names):
    texts = {path.name for path in (REPOSITORY / "src/corpusmill/prox/prompt_texts").glob("*.txt")}
    assert len(texts) == 9
    assert {f"corpusmill/prox/prompt_texts/{name}" for name in texts} <= set(names)


def test_the_scripts_and_styles_of_the_ui_travel_with_the_package(names):
    folder = REPOSITORY / "operators/corpusmill_operators/ui/static"
    files = {f"corpusmill_operators/ui/static/{path.name}" for path in folder.iterdir()}
    assert {"corpusmill_operators/ui/static/corpus_quality.js", "corpusmill_operators/ui/static/data_docs.css"} <= files
    assert files <= set(names)


def test_the_demo_crawls_and_models_travel_with_the_package(names):
    assert "corpusmill/demo/crawls/collinfo.json" in names
    assert any(name.startswith("corpusmill/demo/crawls/crawl-data/") and name.endswith(".warc.gz") for name in names)
    assert any(name.startswith("corpusmill/demo/models/") and name.endswith(".safetensors") for name in names)


def test_the_plugin_has_no_entry_point_because_the_plugins_folder_registers_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (place,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        text = archive.read(place).decode()
    groups = configparser.ConfigParser(delimiters=("=",))
    groups.read_string(text)
    assert set(groups.sections()) == {"apache_airflow_provider", "console_scripts"}
    assert groups["console_scripts"]["corpusmill"] == "corpusmill.cli:main"


def test_an_installation_adds_nothing_that_shadows_a_folder_of_the_user(installed):
    added = {path.name for path in installed.iterdir()}
    assert not added & {"operators", "plugins", "dags", "docker", "tests", "docs"}
    packages = {name for name in added if not name.endswith(".dist-info")}
    assert packages <= {"corpusmill", "corpusmill_operators", "bin", "__pycache__"}


def test_the_installed_operators_are_importable_without_loading_airflow(installed):
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import corpusmill, corpusmill_operators\n"
        f"assert corpusmill_operators.__file__.startswith({str(installed)!r}), corpusmill_operators.__file__\n"
        "assert 'airflow' not in sys.modules and 'pyarrow' not in sys.modules\n"
        "print(' '.join(corpusmill_operators.__all__))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PlanRunOperator" in done.stdout.split()


@pytest.mark.airflow
def test_every_exported_name_exists_and_only_operators_are_called_so(tmp_path):
    code = (
        "import corpusmill_operators as mill\n"
        "from airflow.sdk import BaseOperator\n"
        "for name in mill.__all__:\n"
        "    value = getattr(mill, name)\n"
        "    assert name in dir(mill)\n"
        "    assert name.endswith('Operator') == (isinstance(value, type) and issubclass(value, BaseOperator)), name\n"
        "try:\n    mill.NoSuchOperator\nexcept AttributeError as error:\n    print(error)\n"
    )
    environment = {"AIRFLOW_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "has no attribute 'NoSuchOperator'" in done.stdout


@pytest.mark.airflow
def test_the_type_checkers_list_of_exports_is_the_one_at_run_time():
    text = (REPOSITORY / "operators" / "corpusmill_operators" / "__init__.py").read_text()
    import corpusmill_operators

    typed = {
        line.split(" as ")[-1].strip() for line in text.splitlines() if line.startswith("    from corpusmill_operators")
    }
    assert typed == set(corpusmill_operators.__all__)


def test_operator_files_are_short_and_name_one_operator_each():
    folder = REPOSITORY / "operators" / "corpusmill_operators"
    bases = {"base.py", "child_step.py", "map_stage.py", "build_step.py", "ablation_step.py", "reference_step.py"}
    for path in (p for p in folder.glob("*.py") if p.name not in bases):
        text = path.read_text()
        n_operators = text.count("Operator(StageOperator") + text.count("Operator(MapStageOperator")
        assert n_operators <= 1, path.name
        if n_operators:
            assert len(text.splitlines()) <= 80, path.name
            assert "Second run:" in " ".join(text.split()), path.name
