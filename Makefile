# Everything runs in .venv, which `make install` creates.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: install label-studio libraries demo test test-slow check kill fuzz results pretrained bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# A Label Studio server in an environment of its own (1 GB), and its SDK: for the slow tests that talk to it.
label-studio: install
	$(PYTHON) -m venv .label-studio
	.label-studio/bin/pip install --quiet --disable-pip-version-check label-studio==1.23.2
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[label-studio]"

# RL libraries in an environment of their own, which sees .venv and adds 50 MB, and the tests that train with them.
libraries: .libraries/installed
	.libraries/bin/python -m pytest -m slow tests/envs/test_libraries.py

.libraries/installed: .venv/installed
	$(BIN)/python -m venv .libraries
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> .libraries/venv.pth
	mv .libraries/venv.pth "$$(.libraries/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"
	.libraries/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
		stable-baselines3==2.9.2 sb3-contrib==2.9.2 torchrl==0.14.1
	@touch $@

# Train on emoji for three minutes from the policy that ships, then compare the two, and others, on rows and seeds that
# training never saw.
demo: install
	rm -rf runs/demo
	$(BIN)/python run.py train --dataset emoji --out runs/demo --minutes 3
	$(BIN)/python run.py compare --dataset emoji --policy runs/demo --seeds 20 --out runs/demo/compare
	@echo "TensorBoard     $(BIN)/tensorboard --logdir runs/demo/tensorboard"

# Two processes, each a file of tests at a time, the longest first (tests/conftest.py): many tests start processes of
# their own and wait for them.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -m slow

# Style and complexity, which folder may import which, types: all three are configured in pyproject.toml.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports pyproject.toml
	$(BIN)/mypy

# 1,000 deaths of labelling commands, full disks, I/O errors and, where this user may mount a disk, power cuts; deaths of
# train, compare and tune. About a quarter of an hour.
kill: install
	$(BIN)/python -m benchmarks.kill

# The README's table and docs/comparison.html; about an hour.
results: install
	$(BIN)/python -m benchmarks.published

# The policy in policies/pretrained, from scratch; about a quarter of an hour.
pretrained: install
	$(BIN)/python -m benchmarks.pretrained

# Rounds per second, by processes and sizes; what choosing a batch costs (40 minutes).
bench: install
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.selection --size small
	$(BIN)/python -m benchmarks.selection --size large --limit 1200

# Damage the files of every reader 20,000 times and judge what becomes of it; six minutes. Other damage: SEED=1.
SEED ?= 0
fuzz: install
	$(BIN)/python -m benchmarks.fuzz --cases 20000 --seed $(SEED)

clean:
	rm -rf runs .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache
