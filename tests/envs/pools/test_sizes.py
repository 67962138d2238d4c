"""What a pool takes in memory goes by what it holds, not by its longest value times its rows."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from envs.errors import ConfigError, DataError
from envs.pools import Pool, load_pool, save_pool
from labelling.creating import create_project, samples_from_table
from labelling.project import Settings
from labelling.tables import columns_of

N = 2000
LONG = "x" * 200_000


def pool(**columns: object) -> Pool:
    """A pool of N samples with one feature."""
    given = {"ids": [f"s{i}" for i in range(N)], "class_names": (), "labels": np.full(N, -1)} | columns
    return Pool(name="p", features={"a": np.zeros((N, 1))}, present=np.ones((N, 1), bool), **given)


def one_long(name: str) -> list[str]:
    return [*(f"{name}{i}" for i in range(N - 1)), LONG]


@pytest.mark.parametrize("door", ["python", "pool folder", "table"])
def test_one_long_text_takes_its_own_room(door: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        if door == "table":
            rows = "".join(f"s{i},{text},1\n" for i, text in enumerate(one_long("t")))
            (tmp_path / "t.csv").write_text("id,text,n\n" + rows)
            samples = samples_from_table(str(tmp_path / "t.csv"), ["a=columns:n"])
            create_project(tmp_path / "project", samples, Settings("p"))
        else:
            made = pool(text=one_long("t"))
            if door == "pool folder":
                made = load_pool(save_pool(made, tmp_path / "pool"))
            assert made.text is not None and made.text.tolist() == one_long("t")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30 * 2**20  # an array of str would take 1.6 GB


@pytest.mark.parametrize("field", ["ids", "group", "picture", "class_names"])
def test_what_is_no_text_is_refused_where_it_is_long(field: str) -> None:
    with pytest.raises(DataError, match=r"has 200,000 characters; at most") as error:
        pool(**{field: one_long("x")})
    assert len(str(error.value)) < 300


def test_a_long_id_of_a_table_is_named_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"id,n\na,1\n{LONG},2\n")
    with pytest.raises(DataError, match=r"t\.csv, row 3: id 'x+\.\.\.' has 200,000 characters"):
        samples_from_table(str(tmp_path / "t.csv"), ["a=columns:n"])


def names_of_a_table(folder: Path) -> object:
    (folder / "t.csv").write_text(",".join(f"n{i}" for i in range(100_000)) + "\n")
    return columns_of(folder / "t.csv")


MANY = {
    "columns": names_of_a_table,
    "classes of a pool": lambda _: pool(class_names=tuple(f"c{i}" for i in range(100_000))),
    "classes of a project": lambda _: Settings("p", tuple(f"c{i}" for i in range(100_000))),
}


@pytest.mark.parametrize("case", MANY)
def test_many_names_are_compared_at_once(case: str, tmp_path: Path) -> None:
    began = time.process_time()
    MANY[case](tmp_path)
    assert time.process_time() - began < 3  # each with each takes minutes


@pytest.mark.parametrize("encoding", ["utf-16", "unicode_escape", "utf-7", "none", "hex", "a\0b"])
def test_encodings_that_do_not_fit(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,label\na,\\ud800\n")
    with pytest.raises((DataError, ConfigError), match="encoding"):
        columns_of(tmp_path / "t.csv", encoding)
