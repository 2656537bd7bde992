# Everything a newcomer needs; each target makes what it depends on. `make` alone lists them.
python := .venv/bin/python
# Tests on real Orthancs wait more than they compute: two files at a time. (`parallel=` for one.)
parallel := -n 2 --dist loadfile

.PHONY: help
help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1 — /'

.PHONY: setup
setup: ## Orthanc, its Python plugin and .venv, so that Orthanc loads orthanc_transfers/entry.py
	@scripts/setup.sh run
	@echo 'Ready. In the configuration of Orthanc: "PythonScript": "$(CURDIR)/orthanc_transfers/entry.py"'

.PHONY: demo
demo: ## two real Orthancs, one study pushed, one pulled, both checked (stays up until Ctrl-C)
	@scripts/setup.sh demo
	@$(python) scripts/demo.py $(DEMO_ARGS)

.PHONY: setup-test
setup-test:
	@scripts/setup.sh test

# Together the three below are all tests: each is in one of them, by its markers (see pyproject.toml).
.PHONY: test
test: setup-test ## all tests, the three below: about half an hour on two cores
	$(python) -m pytest $(parallel) $(ARGS)

.PHONY: test-fast
test-fast: ## types, style and all tests that need no Orthanc, no Chromium and no root: about 40 s on two cores
	@scripts/setup.sh fast
	$(python) -m pytest -n auto --dist worksteal -m "not (orthanc or browser or faults)" $(ARGS)

.PHONY: test-orthanc
test-orthanc: setup-test ## the tests on real Orthancs and in a real browser: about 8 min on two cores
	$(python) -m pytest $(parallel) -m "(orthanc or browser) and not faults" $(ARGS)

.PHONY: test-faults
test-faults: setup-test ## real Orthancs, with things broken on purpose: about 20 min on two cores
	$(python) -m pytest $(parallel) -m faults $(ARGS)

.PHONY: test-cluster
test-cluster: setup-test ## a node of a cluster killed, stopped and cut off at every point of a transfer: an hour on two cores, two with NFS
	EVERY_POINT=1 $(python) -m pytest tests/faults/test_cluster*.py $(ARGS)

.PHONY: test-trixie
test-trixie: ## the tests with real Orthancs, on those of Debian 13, in a tree of its own
	scripts/debian-tree.sh trixie $(ARGS)

.PHONY: test-forky
test-forky: ## the same on those of Debian testing (Orthanc 1.13)
	scripts/debian-tree.sh forky $(ARGS)

.PHONY: dist
dist: setup-test ## the wheel and the source archive, in dist/: the same bytes from the same sources
	rm -rf dist
	$(python) -m hatchling build

.PHONY: torture
torture: setup-test ## random transfers under random faults, for an hour (TORTURE_ARGS="--seed 1 --minutes 60")
	$(python) -m tests.faults.torture $(TORTURE_ARGS)

.PHONY: bench
bench: ## measures against the peer store, C-STORE and STOW (BENCH_ARGS=--help; not for a busy machine)
	@scripts/setup.sh bench
	@$(python) -m tests.bench $(BENCH_ARGS)

.PHONY: lint
lint: setup-test ## types and style only
	$(python) -m pytest tests/test_house.py

.PHONY: format
format: setup-test ## writes the code the way lint wants it
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

.PHONY: clean
clean: ## what the tests and the demo left; .venv and .cache stay
	rm -rf .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/artifacts
	find . -name __pycache__ -not -path './.cache/*' -not -path './.venv/*' -prune -exec rm -rf {} +
