"""A scripted person labels through a real Label Studio server: by its interface, and once by its page.

`make label-studio` installs the server in an environment of its own; without it the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import run
from envs.sources import open_dataset
from labelling.api import LabellingProject
from labelling.label_studio.server import TOKEN
from labelling.state import SKIP
from tests.support.label_studio import CLASSES
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
PROGRAM = ROOT / ".label-studio" / "bin" / "label-studio"
EMAIL, PASSWORD = "person@example.com", "a-password-for-tests"


@pytest.fixture(scope="module")
def truth() -> dict[str, str]:
    pool = open_dataset("emoji")
    return {i: pool.class_names[label] for i, label in zip(pool.ids.tolist(), pool.labels, strict=True)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with one user."""
    program = os.environ.get("LABEL_STUDIO") or str(PROGRAM)
    if not Path(program).is_file():
        pytest.skip("needs `make label-studio`, or the path of a server's program in LABEL_STUDIO")
    pytest.importorskip("label_studio_sdk")
    folder = tmp_path_factory.mktemp("label_studio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
    }
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "-p", str(port)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--username", EMAIL, "--password", PASSWORD],
            stdout=log,
            stderr=log,
            env=at_home_in(folder) | settings,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 180
        while not answers(address):
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def at_home_in(folder: Path) -> dict[str, str]:
    """An environment for programs that note things in the user's own folder."""
    places = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    return os.environ | places


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/user/login/", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def token(server: str) -> str:
    """A personal access token, as a user makes one on the page of their account; the server gives out one."""
    session = requests.Session()
    session.get(f"{server}/user/login/", timeout=30)
    form = {"email": EMAIL, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    session.post(f"{server}/user/login/", data=form, headers={"Referer": server}, timeout=30)
    headers = {"Referer": server, "X-CSRFToken": session.cookies["csrftoken"]}
    return session.post(f"{server}/api/token/", headers=headers, timeout=30).json()["token"]


@pytest.fixture(autouse=True)
def token_is_set(token: str, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN, token)


def command(*words: str | Path) -> None:
    assert run.main([str(word) for word in words]) == 0


def init(folder: Path) -> LabellingProject:
    command("init", folder, "--samples", "emoji", "--classes", ",".join(CLASSES), "--budget", "120")
    return LabellingProject(folder)


def annotate(server: str, token: str, truth: dict[str, str], skipped: set[str]) -> int:
    """What a person does with the tasks that wait, through the server's own interface."""
    from label_studio_sdk import LabelStudio

    client = LabelStudio(base_url=server, api_key=token)
    number = max(project.id for project in client.projects.list())
    done = 0
    for task in client.tasks.list(project=number, fields="all"):
        if task.total_annotations or task.cancelled_annotations:
            continue
        sample = task.data["sample"]
        value = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [truth[sample]]}}
        skip = sample in skipped
        client.annotations.create(task.id, result=[] if skip else [value], was_cancelled=skip)
        done += 1
    return done


def test_labels_of_the_server_are_those_of_the_files(server, token, truth, tmp_path, capsys):
    """Three batches by CSV and through the server: the same batches, labels and figures."""
    by_file, by_server = init(tmp_path / "by_file"), init(tmp_path / "by_server")
    for number in (1, 2, 3):
        batch = by_file.ask(15)
        skipped = {batch[0]["id"]} if number == 2 else set()
        told = by_file.tell({row["id"]: SKIP if row["id"] in skipped else truth[row["id"]] for row in batch})
        command("ask", by_server.project.path, "--batch", "15", "--label-studio", server)
        command("ask", by_server.project.path, "--label-studio", server)  # again: nothing twice
        assert "(0 new tasks)" in capsys.readouterr().out
        assert annotate(server, token, truth, skipped) == 15
        command("tell", by_server.project.path, "--label-studio", server)
        said = capsys.readouterr().out
        assert "15 answers (0 corrections)" in said and f"; {15 * (number - 1)} were known" in said
        assert ("1 say 'cannot tell'" in said) == bool(skipped)
        votes = [
            {sample: next(iter(said.values())) for sample, said in p.project.state().votes.items()}
            for p in (by_file, by_server)
        ]
        assert votes[0] == votes[1] and len(votes[0]) == 15 * number
        assert by_server.status() == by_file.status() and told.progress.accuracy == by_server.status().accuracy
    files = [path for path in by_server.project.path.rglob("*") if path.is_file()]
    assert files and not any(token.encode() in path.read_bytes() for path in files)


def test_a_token_that_is_none(server, tmp_path, capsys, monkeypatch):
    project = init(tmp_path / "shop")
    monkeypatch.setenv(TOKEN, "0123456789abcdef0123456789abcdef01234567")
    assert run.main(["ask", str(project.project.path), "--label-studio", server]) == 2
    error = capsys.readouterr().err
    assert "answers 401" in error and TOKEN in error and "0123456789" not in error


def test_by_the_page(server, token, truth, tmp_path):
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs Chromium and chromedriver on the PATH")
    project = init(tmp_path / "shop")
    project.tell({row["id"]: truth[row["id"]] for row in project.ask(40)})
    command("ask", project.project.path, "--batch", "10", "--label-studio", server)
    number = json.loads((project.project.path / "label_studio.json").read_text())["project"]
    from label_studio_sdk import LabelStudio

    task = next(iter(LabelStudio(base_url=server, api_key=token).tasks.list(project=number))).id
    options = ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'browser'}")
    browser = Chrome(options=options, service=Service(driver, env=at_home_in(tmp_path)))
    try:
        wait = WebDriverWait(browser, 60)
        browser.get(f"{server}/user/login/")
        wait.until(lambda b: b.find_element(By.NAME, "email")).send_keys(EMAIL)
        browser.find_element(By.NAME, "password").send_keys(PASSWORD)
        browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        wait.until(lambda b: "login" not in b.current_url)
        browser.get(f"{server}/projects/{number}/data?task={task}")
        choices = "//label[contains(., 'Objects')]"
        wait.until(lambda b: b.find_elements(By.XPATH, choices))
        picture = "return [...document.images].some(i => i.src.startsWith('data:image/png') && i.naturalWidth > 0)"
        wait.until(lambda b: b.execute_script(picture))
        time.sleep(2)
        browser.save_screenshot(str(tmp_path / "label_studio.png"))
        browser.find_elements(By.XPATH, choices)[-1].click()
        (submit,) = browser.find_elements(By.XPATH, "//button[contains(., 'Submit') or contains(., 'Update')]")
        submit.click()
        time.sleep(3)
    finally:
        browser.quit()
    before = len(project.project.state().votes)
    command("tell", project.project.path, "--label-studio", server)
    votes = list(project.project.state().votes.items())[before:]
    assert [list(said.values()) for _, said in votes] == [["Objects"]]
    print(f"screenshot      {tmp_path / 'label_studio.png'}", file=sys.stderr)
