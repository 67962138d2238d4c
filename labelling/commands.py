"""The commands of a labelling project: init, ask, tell, status, export, undo."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from envs.flags import given, split_list

INIT_NOTES = """\
The table has a column id, and maybe label, text, picture, audio, group, split and present_<modality>.
examples:
  python run.py init shop --samples items.csv --features image=image.npy --features text=text.npy
  python run.py init shop --samples items.parquet --features sensors=columns:s_* --classes ok,broken --budget 300
  python run.py init try --samples emoji"""
TELL_NOTES = """\
Files are CSV or Parquet with the columns id and label, and maybe annotator; the batch's own file, filled in, is one.
Label Studio's exports (JSON, JSON-MIN, CSV, TSV) are known by their columns.
Rows without a label wait; 'skip' means cannot tell. A later answer of the same annotator replaces the earlier one, and
among several annotators the majority counts.
examples:
  python run.py tell shop shop/batches/batch-0001.csv
  python run.py tell shop anna.csv ben.csv --annotator file
  python run.py tell shop --label-studio http://localhost:8080"""

SHOWN = 20  # conflicts that `tell` prints


def add_commands(commands: Any) -> None:
    """Add the subcommands to the parser's."""
    init = _add(
        commands, "init", _init, "make a labelling project of samples without labels", INIT_NOTES, settings=_settings
    )
    init.add_argument(
        "--samples", required=True, metavar="TABLE|POOL", help="CSV or Parquet with a row for each sample, or a pool"
    )
    init.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="MODALITY=FILE",
        help="MODALITY=FILE.npy, MODALITY=columns:PATTERN of the table, FILE.npz, MODALITY=FILE.npz:ARRAY; repeatable",
    )
    init.add_argument(
        "--classes", metavar="A,B,...", help="the classes, '\"A, or B\",C' if need be; without it every label makes one"
    )
    init.add_field("--budget", type=int, metavar="N")
    init.add_field("--validation", type=float, metavar="SHARE")
    init.add_argument("--with-labels", action="store_true", help="of a pool: take its labels along")
    init.add_field("--policy", metavar="DIR")
    init.add_field("--seed", type=int, metavar="S")
    init.add_argument("--encoding", metavar="NAME", help="of a CSV file that is not UTF-8")

    ask = _add(commands, "ask", _ask, "choose the samples to label next")
    ask.add_argument("--batch", type=int, default=50, metavar="N", help="how many (%(default)s)")
    ask.add_argument(
        "--label-studio",
        nargs="?",
        const="",
        metavar="URL",
        help="write a file for Label Studio's import too; with the URL of a server: send the batch there",
    )
    ask.add_argument(
        "--media-url", metavar="PREFIX", help="tasks name pictures by PREFIX and path instead of holding them"
    )

    tell = _add(commands, "tell", _tell, "take labels, retrain, say what changed", TELL_NOTES)
    tell.add_argument("files", nargs="*", metavar="FILE", help="labels; .json: Label Studio's JSON export")
    tell.add_argument("--label-studio", metavar="URL", help="fetch the annotations of a server")
    tell.add_argument("--annotator", metavar="NAME", help="who labelled; 'file': the files' names")
    tell.add_argument("--new-classes", metavar="A,B,...", help="classes to add to fixed ones")
    tell.add_argument("--encoding", metavar="NAME", help="of CSV files that are not UTF-8")

    _add(commands, "status", _status, "say where a project stands")
    export = _add(commands, "export", _export, "write labels, predictions and the model as files")
    export.add_argument("--out", metavar="DIR", help="folder (PROJECT/export); an earlier export is replaced")
    _add(commands, "undo", _undo, "take the last ask or tell back")


def _add(commands: Any, name: str, run: Any, words: str, notes: str | None = None, **options: Any) -> Any:
    command = commands.add_parser(
        name, help=words, description=words[0].upper() + words[1:] + ".", epilog=notes, **options
    )
    command.add_argument("project", metavar="PROJECT", help="folder of the project")
    command.set_defaults(run=run)
    return command


def _settings() -> type:
    from labelling.project import Settings  # imports torch

    return Settings


def _init(args: argparse.Namespace) -> int:
    from envs.errors import ConfigError
    from labelling.creating import TABLES, beginning_of, create_project, samples_from_pool, samples_from_table
    from labelling.project import Settings

    settings = Settings(
        name=Path(args.project).absolute().name,
        classes=split_list(args.classes),
        **given(budget=args.budget, validation=args.validation, policy=args.policy, seed=args.seed),
    )
    if len(settings.classes) == 1 and Path(settings.classes[0]).is_file():
        raise ConfigError(f"--classes {args.classes} is a file; give the names themselves, as in --classes red,blue.")
    if Path(args.samples).suffix.lower() in TABLES and not args.features:
        raise ConfigError(f"{args.samples} is a table; name each modality's numbers by --features MODALITY=FILE.npy.")
    if args.features:
        if args.with_labels:
            raise ConfigError("--with-labels is for pools; a table's column label is taken along by itself.")
        samples = samples_from_table(args.samples, args.features, args.encoding)
    else:
        samples = samples_from_pool(args.samples, args.with_labels)
    project = create_project(args.project, samples, settings)
    told = len(project.state().votes)
    print(f"project         {project.path}")
    pool, held = project.pool, int(project.held_out.sum())
    print(f"samples         {pool.num_samples:,}, modalities {', '.join(pool.modalities)}; {held:,} only measure")
    print(f"labels          {told} so far; the policy plans for {settings.budget}")
    if samples.short_rows:
        print(
            f"short rows      {len(samples.short_rows):,} lack their last cells, the first is row "
            f"{samples.short_rows[0]}; these count as empty"
        )
    for line in (*_warnings(project), *beginning_of(samples, settings).notes()):
        print(line)
    print(f"next            python run.py ask {shlex.quote(args.project)}")
    return 0


def _warnings(project: Any) -> list[str]:
    """Ids that a spreadsheet changes, and files that are not there."""
    from envs.pools import media
    from labelling.identity import KEY
    from labelling.spreadsheets import changes

    lines = []
    changed = [sample for sample in project.rows if changes(sample)]
    if changed:
        lines.append(
            f"ids             a spreadsheet rewrites {len(changed):,} of them ({_some(changed)}); batches have a "
            f"column {KEY}, keep it, and `tell` knows each sample"
        )
    for kind in media.FILES:
        paths = project.media.get(kind, [])
        gone = media.missing(paths)
        if gone:
            lines.append(f"missing         {len(gone):,} of {len(paths):,} files of {kind}, as {paths[gone[0]]}")
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(repr(name[:SHOWN]) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _print_left_out(left_out: list[str]) -> None:
    for what in left_out[:SHOWN]:
        print(f"left out        {what}")
    if len(left_out) > SHOWN:
        print(f"left out        {len(left_out) - SHOWN} more")


def _ask(args: argparse.Namespace) -> int:
    from envs.errors import ConfigError
    from labelling.asking import ask
    from labelling.project import Project

    if args.media_url is not None and args.label_studio is None:
        raise ConfigError("--media-url says how tasks of --label-studio name their files; give both.")
    project = Project(args.project)
    name = shlex.quote(args.project)
    waiting, left_out = project.state().waiting(), list[str]()
    event = ask(project, args.batch)
    if waiting is not None:
        print(f"Batch {event.batch} has no answer yet, so it is still the next one; undo takes it back.")
    print(f"batch           {project.batch_file(event.batch)}  ({len(event.rows)} samples)")
    if args.label_studio:
        from labelling.label_studio.server import push

        address, new = push(project, event, args.label_studio, args.media_url, left_out)
        print(f"Label Studio    {address}  ({new} new tasks)")
        _print_left_out(left_out)
        print(f"next            label there, then: python run.py tell {name} --label-studio {args.label_studio}")
    elif args.label_studio is not None:
        from labelling.label_studio.tasks import write_tasks

        tasks, interface = write_tasks(project, event, args.media_url, left_out)
        print(f"tasks           {tasks}  (Import)")
        print(f"interface       {interface}  (Settings, Labeling Interface, Code)")
        _print_left_out(left_out)
        print(f"next            label, export as JSON, then: python run.py tell {name} EXPORT.json")
    else:
        print(f"next            fill in the column label, then: python run.py tell {name} FILE")
    if left_out:
        print("                Samples that are left out get a task when the batch is asked again, their files mended.")
    return 0


def _tell(args: argparse.Namespace) -> int:
    from envs.errors import ConfigError
    from labelling.answers import Answer
    from labelling.label_studio.tasks import read_export
    from labelling.progress import history, in_lines
    from labelling.project import Project
    from labelling.state import people_of
    from labelling.telling import person_of_file, read_answers, tell_answers

    project = Project(args.project)
    if bool(args.files) == bool(args.label_studio):
        raise ConfigError("Give files with labels, or --label-studio URL.")
    sources: list[Iterable[Answer]] = []
    left_out: list[str] = []
    before = people_of(project.state())
    if args.label_studio:
        from labelling.label_studio.server import pull

        sources.append(pull(project, args.label_studio, args.annotator, left_out))
    for file in args.files:
        who = person_of_file(project, file, args.files) if args.annotator == "file" else args.annotator
        if Path(file).suffix.lower() == ".json":
            sources.append(read_export(file, who, left_out))
        else:
            sources.append(read_answers([file], who, args.encoding, left_out, project.rows))
    # Read as they are checked, so that a long file ends at its first mistake.
    told = tell_answers(project, chain.from_iterable(sources), split_list(args.new_classes))
    skipped = f"; {told.skipped} say 'cannot tell'" if told.skipped else ""
    print(
        f"recorded        {told.recorded} answers ({told.corrected} corrections){skipped}; {told.repeated} were known"
    )
    _print_left_out(left_out)
    for label, name in told.read_as:
        print(f"read as         {label} as the class {name}")
    if told.new_classes:
        print(f"new classes     {', '.join(told.new_classes)}")
    for conflict in told.conflicts[:SHOWN]:
        votes = ", ".join(f"{who}: {vote}" for who, vote in conflict["votes"].items())
        print(f"conflict        {conflict['id']}: {votes} -> {conflict['label'] or 'tied, without a label'}")
    if len(told.conflicts) > SHOWN:
        print(f"conflicts       {len(told.conflicts) - SHOWN} more; `export` lists all")
    state = project.state()
    new = [who for who in people_of(state) if who not in before]
    if new and before and told.conflicts:
        print(
            f"annotators      {_some(new)} beside {_some(before)}; if one of these is the same person, undo, and tell "
            "again with --annotator NAME"
        )
    print("\n".join(in_lines(told.progress, history(state))))
    return 0


def _status(args: argparse.Namespace) -> int:
    from labelling.progress import history, in_lines, measure
    from labelling.project import Project
    from labelling.state import conflicts

    project = Project(args.project)
    state = project.state()
    print(f"project         {project.path}")
    waiting = state.waiting()
    if waiting is not None:
        print(f"waiting         {project.batch_file(waiting.batch)}")
    print(f"batches         {len(state.batches)}, conflicts {len(conflicts(state))}")
    print("\n".join(in_lines(measure(project, state), history(state))))
    return 0


def _export(args: argparse.Namespace) -> int:
    from labelling.exporting import export
    from labelling.project import Project

    project = Project(args.project)
    out = Path(args.out or Path(args.project) / "export")
    for name in export(project, out):
        print(f"{Path(name).stem:15s} {out / name}")
    if not project.sound:
        print("predictions     none: the features are not those of init; `status` says more")
    return 0


def _undo(args: argparse.Namespace) -> int:
    from labelling.api import undo
    from labelling.project import Project

    print(f"taken back      {undo(Project(args.project))}")
    return 0
