"""A really running Airflow with real runs, a login, and a headless Chromium in front of it."""

import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
USERS = {"ada": "admin", "vera": "viewer"}
PASSWORD = "correct-horse-battery"
READY_SECONDS = 240
PR_SET_PDEATHSIG = 1
"""Call of prctl(2)."""
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="session")
def airflow(tmp_path_factory):
    """The environment of an initialised Airflow with users and passwords, below a folder of its own."""
    pytest.importorskip("airflow")
    pytest.importorskip("playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Debian's package chromium")
    from corpusmill_operators.local.settings import _free_port

    folder = tmp_path_factory.mktemp("airflow")
    code = (
        "import sys; from pathlib import Path\n"
        "from corpusmill_operators.local.settings import LocalSettings\n"
        "from corpusmill_operators.local.initialise import initialise\n"
        "import json\n"
        "settings = LocalSettings(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))\n"
        "initialise(settings, print)\n"
        "print(json.dumps(settings.environment()))\n"
    )
    arguments = [str(folder / "home"), str(REPOSITORY), str(_free_port())]
    given = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "CORPUSMILL_"))}
    environment = json.loads(_run([sys.executable, "-c", code, *arguments], given | {"CORPUSMILL_HOME": arguments[0]}))
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)))
    environment |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
        "OMP_NUM_THREADS": "1",
    }
    _run([sys.executable, "-m", "airflow", "dags", "reserialize"], environment)
    return folder, environment


@pytest.fixture(scope="session")
def runs(airflow):
    """Run ids of the real runs, by name: good, hostile, broken, unplanned."""
    folder, environment = airflow
    _run([sys.executable, str(REPOSITORY / "tests/browser/make_runs.py"), str(folder)], environment)
    return json.loads((folder / "runs.json").read_text())


@pytest.fixture(scope="session")
def crawls():
    """The module that wrote the crawls, for the texts that it put into them."""
    spec = importlib.util.spec_from_file_location("browser_crawls", REPOSITORY / "tests/browser/crawls.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def server(airflow, runs):
    """Address of the API server, which is ended with everything below it."""
    folder, environment = airflow
    base = environment["AIRFLOW__API__BASE_URL"]
    log = folder / "api-server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            preexec_fn=_end_with_parent,
        )  # fmt: skip
    try:
        _await(base, process, log)
        yield base
    finally:
        _end(process)


@pytest.fixture(scope="module")
def chromium():
    """The browser alone, for pages that no server gives.

    Of one module: while Playwright runs, its event loop is the thread's, and no other test could run one.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Debian's package chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser(server, chromium):
    """The browser, with the server running."""
    return chromium


@pytest.fixture(scope="module")
def session(browser, server):
    """The cookies of a user who signed in through the login page."""
    context = browser.new_context(base_url=server, viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.goto("/", timeout=120_000)
    page.locator("input[name=username]").fill("vera")
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("button[type=submit]").click()
    page.wait_for_url(lambda url: "/auth/" not in url, timeout=120_000)
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture(params=["light"])
def page(browser, server, session, request):
    """A page of a user who is signed in; dialogs and errors of scripts fail the test."""
    context = browser.new_context(
        base_url=server, storage_state=session, viewport={"width": 1440, "height": 1000}, color_scheme=request.param
    )
    context.add_init_script(f"localStorage.setItem('theme', '{request.param}')")
    found = context.new_page()
    found.set_default_timeout(60_000)
    problems = []
    found.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    found.on("pageerror", lambda error: problems.append(f"error: {error}"))
    yield found
    assert problems == []
    context.close()


@pytest.fixture
def keep():
    """Returns a function that keeps a screenshot of the page as build output."""

    def screenshot(page, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)

    return screenshot


def _run(command, environment):
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[:4]}: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def _await(base, process, log):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            with opener.open(f"{base}/api/v2/monitor/health", timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no answer from {base}: {log.read_text(errors='replace')[-4000:]}")


def _end_with_parent():
    """Lets the kernel end the server where the tests were killed and could not (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end(process):
    for number, seconds in ((signal.SIGINT, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
