"""A running Label Studio server, through its SDK: batches go there, annotations come back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envs.errors import ConfigError, shorten
from envs.files import write_text
from envs.reading import parse_json, reading, reason, typed
from labelling.answers import Answer
from labelling.events import Asked
from labelling.label_studio.tasks import answers_of, labelling_interface, make_tasks
from labelling.project import Project

TOKEN = "LABEL_STUDIO_API_KEY"  # environment variable with the user's access token; nothing writes it down
_LINK = "label_studio.json"  # of a labelling project: which project of which server belongs to it
NO_LABEL_STUDIO = "does not answer like Label Studio ({reason})"
_SECONDS = 60
_CHUNK = 50_000_000  # bytes of tasks in a request; a server takes 200 MB


def push(
    project: Project, event: Asked, url: str, media_url: str | None = None, left_out: list[str] | None = None
) -> tuple[str, int]:
    """Import a batch into the project's own project on the server, which is made the first time.

    Samples of the batch that are there already are left alone, so an interrupted push can be repeated; so are those
    with a task of an earlier batch that nobody has answered.

    Args:
        left_out: receives the samples without a task; see `labelling.label_studio.tasks.make_tasks`.

    Returns:
        the address at which people label, and how many tasks were new.

    Raises:
        ConfigError: without the SDK, the token or the server; see also `labelling.label_studio.tasks.make_tasks`.
    """
    xml, tasks = labelling_interface(project), make_tasks(project, event, media_url, left_out)
    with _server(url) as client:
        number = linked(project, url)
        if number is None:
            number = client.projects.create(title=project.settings.name, label_config=xml).id
            write_text(project.path / _LINK, json.dumps({"url": url.rstrip("/"), "project": number}) + "\n")
        else:
            client.projects.update(number, label_config=xml)  # classes may have come since
        known = there(exported(client, url, number), event.batch)
        new = [task for task in tasks if task["data"]["sample"] not in known]
        part: list[dict[str, Any]] = []
        size = 0
        for task in new:
            part.append(task)
            size += len(json.dumps(task))
            if size > _CHUNK:
                client.projects.import_tasks(number, request=part)
                part, size = [], 0
        if part:
            client.projects.import_tasks(number, request=part)
    return f"{url.rstrip('/')}/projects/{number}", len(new)


def pull(project: Project, url: str, annotator: str | None = None, left_out: list[str] | None = None) -> list[Answer]:
    """All annotations that the server holds for a project; those that were told before change nothing.

    Args:
        annotator: who answered; None: whom Label Studio names.
        left_out: see `labelling.label_studio.tasks.read_export`.

    Raises:
        ConfigError: without the SDK, the token or the server, or where no batch was pushed there.
        DataError: where the server's answer is no list of tasks.
    """
    number = linked(project, url)
    if number is None:
        raise ConfigError(f"{project.path} has sent nothing to {url}; begin with `ask --label-studio {url}`.")
    with _server(url) as client:
        tasks = exported(client, url, number)
    return answers_of(tasks, f"{url.rstrip('/')}/projects/{number}", annotator, left_out)


def there(tasks: list[dict[str, Any]], batch: int) -> set[str]:
    """Samples that need no task: they have one of this batch, or one that waits for an answer."""
    found = set()
    for task in tasks:
        data = task.get("data")
        if isinstance(data, dict) and isinstance(sample := data.get("sample"), str):
            found |= {sample} if data.get("batch") == batch or not task.get("annotations") else set()
    return found


def linked(project: Project, url: str) -> int | None:
    """Number of the server's project; None before the first push.

    Raises:
        DataError: where that cannot be read.
        ConfigError: where it is another server's.
    """
    file = project.path / _LINK
    if not file.exists():
        return None
    with reading(file, "cannot be read ({reason}); delete it to begin a new project on the server"):
        link = parse_json(file.read_text("utf-8"))
        known, number = typed(str, link["url"]), typed(int, link["project"])
        if number < 1:
            raise ValueError(f"it names the project {shorten(number)}")
    if known != url.rstrip("/"):
        raise ConfigError(f"{project.path} belongs to {shorten(known)}, and not to {url}; delete {file} to move it.")
    return number


def exported(client: Any, url: str, number: int) -> list[dict[str, Any]]:
    """All tasks of a project with their annotations.

    Raises:
        ConfigError: where the server answers something else.
    """
    answer = b"".join(client.projects.exports.download_sync(number, export_type="JSON", download_all_tasks=True))
    with reading(url, NO_LABEL_STUDIO, ConfigError):
        tasks: list[Any] = parse_json(answer or b"[]", list)
        if not all(isinstance(task, dict) for task in tasks):
            raise ValueError("it gives a list of something other than tasks")
        return tasks


@contextmanager
def _server(url: str) -> Iterator[Any]:
    """The SDK's client; its errors become a ConfigError with advice."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no address of a server; it begins with http:// or https://.")
    try:
        import httpx
        from label_studio_sdk import LabelStudio
        from label_studio_sdk.core.api_error import ApiError
    except ImportError as error:
        raise ConfigError(
            f"Talking to a Label Studio server needs its SDK ({error}): pip install 'rl-mba[label-studio]'. Without "
            "one, `ask --label-studio` writes a file for its import, and `tell` reads its JSON export."
        ) from None
    token = os.environ.get(TOKEN)
    if not token:
        raise ConfigError(f"Set {TOKEN} to an access token of {url} (Account & Settings, Personal Access Token).")
    try:
        yield LabelStudio(base_url=url.rstrip("/"), api_key=token, timeout=_SECONDS)
    except ApiError as error:
        hint = {
            401: f" Is {TOKEN} a personal access token of this server, and still valid?",
            404: f" Was the project deleted there? Then delete {_LINK} in the project's folder to begin a new one.",
        }.get(error.status_code or 0, "")
        body = error.body.get("detail", error.body) if isinstance(error.body, dict) else error.body
        raise ConfigError(f"{url} answers {error.status_code}: {str(body)[:300].rstrip('.')}.{hint}") from None
    except httpx.HTTPError as error:
        raise ConfigError(f"{url} cannot be reached ({error}); is the server running?") from None
    except ValueError as error:  # something answers that is no Label Studio
        raise ConfigError(f"{url} {NO_LABEL_STUDIO.replace('{reason}', reason(error))}.") from None
