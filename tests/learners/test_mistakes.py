"""What a user gets for a mistake: one clear line, before anything begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.training import command, run, run_here


def npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_a": rng.standard_normal((120, 4)).astype(np.float32),
        "x_b": rng.standard_normal((120, 3)).astype(np.float32),
        "y": np.arange(120) % 3,
    }
    np.savez(path, **(arrays | changes))
    return path


def bad_inputs(tmp_path: Path) -> dict[str, tuple[list[str], list[str]]]:
    nan = np.zeros((120, 4), np.float32)
    nan[7, 2] = np.nan
    lonely = np.arange(120) % 3
    lonely[5] = 3
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "policy.json").write_text("{")
    (broken / "policy.safetensors").write_bytes(b"nothing")
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    out = ["--out", str(tmp_path / "out")]
    good = str(npz(tmp_path / "good.npz"))
    return {
        "nan": (["train", "--dataset", str(npz(tmp_path / "nan.npz", x_a=nan)), *out], ["'a'", "7"]),
        "rows": (["train", "--dataset", str(npz(tmp_path / "r.npz", x_b=np.zeros((9, 3)))), *out], ["'b'", "9", "120"]),
        "one sample": (["train", "--dataset", str(npz(tmp_path / "o.npz", y=lonely)), *out], ["3", "5"]),
        "budget": (["train", "--dataset", good, *out], ["budget", "120", "protocol.rounds"]),
        "data set": (["train", "--dataset", "emojo", *out], ["emojo", "emoji"]),
        "strategy": (["compare", "--dataset", "emoji", "--strategies", "bagde", *out], ["bagde", "'badge'"]),
        "policy": (["compare", "--dataset", "emoji", "--policy", str(broken), *out], ["policy.json"]),
        "setting": (["train", "--set", "learner.copys=3", *out], ["learner.copys", "'copies'"]),
        "type": (["train", "--set", "protocol.rounds=many", *out], ["protocol.rounds", "many"]),
        "preset": (["train", "--preset", "papper", *out], ["papper", "'paper'"]),
        "algorithm": (["train", "--algorithm", "evolutio", *out], ["evolutio", "'evolution'"]),
        "family": (["train", "--dataset", "synthetic-family:classes=1", *out], ["classes is 1"]),
        "paper by evolution": (["train", "--algorithm", "evolution", "--preset", "paper", *out], ["policy.mlp"]),
        "gpu": (["train", "--dataset", "emoji", "--num-gpus-per-env-runner", "4", *out], ["8 GPUs"]),
        "folder in use": (["train", "--dataset", "emoji", "--out", str(used)], ["not empty", "--resume"]),
        "nothing to resume": (["train", "--resume", *out], ["resume"]),
    }


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    cases = bad_inputs(tmp_path)
    # One as a user meets it, which must be met where no Ray runs; a process for each takes a minute.
    done = run(command(*cases["gpu"][0]))
    said = {"gpu": (done.returncode, done.stderr)}
    for name, (arguments, _) in cases.items():
        if name not in said:
            said[name] = run_here(command(*arguments)), capsys.readouterr().err
    for name, (status, errors) in said.items():
        assert status == 2, (name, errors)
        message = errors.strip().splitlines()[-1]
        assert message.startswith("error: ") and "Traceback" not in errors, (name, errors)
        for word in cases[name][1]:
            assert word in message, (name, message)
    assert not (tmp_path / "out").exists()  # nothing was begun
