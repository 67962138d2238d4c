"""A project that people label in while commands die, and the judgement after each death."""

from __future__ import annotations

import csv
import random
import re
import shutil
from collections import Counter
from pathlib import Path

from benchmarks.kill.commands import SYNTHETIC, Outcome, run
from benchmarks.kill.found import Faults
from benchmarks.kill.ledger import Ledger, Votes, samples_of, seen_in

CLASSES = ("class 0", "class 1", "class 2")
COMMANDS = ("ask", "ask", "tell", "tell", "tell", "undo", "export", "status", "init")
_SAYS = {"ask": "batch   ", "tell": "recorded   ", "undo": "taken back   ", "export": "labels   ", "init": "project   "}
_NOTHING_DONE = ("it is as it was", "Nothing was recorded", "nothing to undo")
_FULL = 70  # answered samples of 120 from which a new project is begun


class Session:
    """A project, what its people were told, and what happened so far.

    Args:
        place: folder for the project and its exports.
        aside: folder for answers and for what commands say, which no fault reaches.
    """

    def __init__(self, place: Path, aside: Path, rng: random.Random):
        self.place, self.aside, self.rng = place, aside, rng
        self.tally: Counter[str] = Counter()
        self.faults = Faults()
        self.projects = 0
        self.seconds: dict[str, float] = {}
        self.begin()

    @property
    def project(self) -> Path:
        return self.place / f"shop{self.projects}"

    @property
    def fresh(self) -> Path:
        return self.place / "fresh"

    @property
    def out(self) -> Path:
        return self.place / "out"

    def begin(self) -> None:
        """Begin a new project, with a batch that is answered and an export, and know how long commands take."""
        shutil.rmtree(self.project, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        self.projects += 1
        faults = self.faults.total()
        self.ledger, self.exported = Ledger(), Ledger()
        self._in_peace("init", ["init", str(self.project), "--samples", SYNTHETIC])
        for command in ("ask", "tell", "ask", "tell", "status", "export"):
            arguments, after = self.prepare(command)
            outcome = self._in_peace(command, arguments)
            self.judge(command, outcome, after)
        self.seconds["undo"] = self.seconds["status"]
        if self.faults.total() > faults:
            raise RuntimeError("commands do not work in peace")

    def next(self) -> str:
        """The command that comes next."""
        return self.rng.choice(COMMANDS)

    def prepare(self, command: str) -> tuple[list[str], Ledger]:
        """Arguments of a command, and the ledger where it is done."""
        project = str(self.project)
        if command == "ask":
            return ["ask", project, "--batch", str(self.rng.choice([3, 8]))], self.ledger.asked()
        if command == "tell":
            answers = self._answers()
            return ["tell", project, str(self._written(answers))], self.ledger.told(answers)
        if command == "undo":
            return ["undo", project], self.ledger.undone()
        if command == "export":
            return ["export", project, "--out", str(self.out)], self.ledger
        if command == "init":
            shutil.rmtree(self.fresh, ignore_errors=True)
            return ["init", str(self.fresh), "--samples", SYNTHETIC, "--with-labels"], self.ledger
        return ["status", project], self.ledger

    def judge(self, command: str, outcome: Outcome, after: Ledger, place: Path | None = None) -> None:
        """Compare what is there now with what people know.

        Args:
            place: a copy of the session's folder that is looked at in its place, and left behind.
        """
        copy, place = place is not None, place or self.place
        if outcome.traceback:
            self.faults.add("traceback", f"{command} ended with {outcome.status}: {outcome.said[-1500:]}")
        done = command in _SAYS and re.search(f"^{_SAYS[command]}", outcome.said, re.MULTILINE) is not None
        if done or "answers are recorded" in outcome.said:
            possible = [after]
        elif outcome.status == 2 and any(words in outcome.said for words in _NOTHING_DONE):
            possible = [self.ledger]
        else:
            possible = [self.ledger, after]
        found = self._found(command, place / self.project.name, possible, outcome)
        if command == "init":
            self._judge_init(place / self.fresh.name, done)
        elif command == "export":
            self._judge_export(place / self.out.name, done)
        if found is None or copy:
            return
        self.ledger = found
        if command == "ask" and found.batches:
            self._learn_batch(outcome)
        if len({sample for sample, _ in self.ledger.votes}) > _FULL:
            self.begin()

    def _found(self, command: str, project: Path, possible: list[Ledger], outcome: Outcome) -> Ledger | None:
        """Which of the possible ledgers is that of the project; None, and a fault, where none is."""
        out = self.aside / "seen"
        looked = self._run(["export", str(project), "--out", str(out)], ["status", str(project)])
        if looked.status:
            kind = "traceback" if looked.traceback else "lost"
            self.faults.add(kind, f"after {command} nothing opens: {looked.said[-1500:]}")
            return None
        try:
            seen = seen_in(out / "labels.csv", looked.said)
        except (ValueError, KeyError, OSError) as error:
            self.faults.add("other", f"after {command} the export cannot be read: {error!r}")
            return None
        found = next((ledger for ledger in possible if ledger.same(seen)), None)
        if found is None:
            wanted = possible[0]
            missing = {k: v for k, v in wanted.votes.items() if seen.votes.get(k) != v}
            kind = "lost" if missing or seen.batches < wanted.batches else "other"
            more = {k: v for k, v in seen.votes.items() if wanted.votes.get(k) != v}
            self.faults.add(
                kind,
                f"{command} ({outcome.status}, {outcome.said[-400:]!r}): {missing} are not there, {more} are; "
                f"{seen.batches} batches for {wanted.batches}",
            )
        return found

    def _judge_init(self, fresh: Path, done: bool) -> None:
        """A project is there, whole, or not at all; then it can be made."""
        if not fresh.exists():
            if done:
                self.faults.add("lost", "a project that was there for init")
                return
            self.tally["init: nothing was there"] += 1
            self._must(["init", str(fresh), "--samples", SYNTHETIC, "--with-labels"])
        out = self.aside / "fresh_seen"
        if self._must(["export", str(fresh), "--out", str(out)], ["status", str(fresh)]):
            with open(out / "labels.csv", newline="") as file:
                count = sum(1 for _ in csv.DictReader(file))
            if count != 120:
                self.faults.add("lost", f"init took {count} of 120 labels along")
        shutil.rmtree(fresh, ignore_errors=True)

    def _judge_export(self, out: Path, done: bool) -> None:
        """An export is there, whole; between two renames the older one is under a hidden name."""
        if not out.exists():
            if done:
                self.faults.add("lost", "an export that was said to be there")
            self.tally["export: killed between two renames"] += 1
        elif not (out / "export.json").is_file() or not (out / "labels.csv").is_file():
            self.faults.add("other", f"half an export: {sorted(path.name for path in out.iterdir())}")
        else:
            with open(out / "labels.csv", newline="") as file:
                samples = {row["id"] for row in csv.DictReader(file)}
            if samples not in [{s for s, _ in ledger.votes} for ledger in (self.exported, self.ledger)[done:]]:
                self.faults.add("other", "an export of another time")
        self._must(["export", str(self.project), "--out", str(self.out)])
        self.exported = self.ledger

    def _must(self, *commands: list[str]) -> bool:
        """Run commands that have to work."""
        outcome = self._run(*commands)
        if outcome.status:
            self.faults.add("traceback" if outcome.traceback else "other", f"{commands} fails: {outcome.said[-1500:]}")
        return not outcome.status

    def _learn_batch(self, outcome: Outcome) -> None:
        """The samples of the batch that waits; after a death, ask gives it again."""
        if outcome.status != 0 and self.ledger.waits is False and not self.ledger.batch:
            outcome = self._run(["ask", str(self.project)])
            if "has no answer yet" not in outcome.said:
                self.faults.add("other", f"ask does not give the batch again: {outcome.said[-800:]}")
        found = re.search(r"^batch +(.*\.csv)  \(", outcome.said, re.MULTILINE)
        if outcome.status == 0 and found:
            self.ledger = Ledger(self.ledger.votes, self.ledger.batches, samples_of(Path(found[1])), self.ledger.before)

    def _answers(self) -> Votes:
        """Answers to what waits, or corrections and further opinions on what is answered."""
        rng = self.rng
        if self.ledger.waits and rng.random() < 0.7:
            samples = list(self.ledger.batch)
        else:
            samples = rng.sample([f"s{i:03d}" for i in range(120)], 4)
        who = rng.choice(["annotator", "ann", "ben"])
        return {(sample, who): rng.choice([*CLASSES, *CLASSES, "skip"]) for sample in samples}

    def _written(self, answers: Votes) -> Path:
        file = self.aside / "answers.csv"
        with open(file, "w", newline="") as text:
            table = csv.writer(text)
            table.writerow(["id", "label", "annotator"])
            table.writerows([sample, label, who] for (sample, who), label in answers.items())
        return file

    def _run(self, *commands: list[str]) -> Outcome:
        return run(*commands)

    def _in_peace(self, command: str, arguments: list[str]) -> Outcome:
        outcome = self._run(arguments)
        self.seconds[command] = outcome.seconds
        return outcome
