# make demo   the main job on the bundled network, from a bare Python to a substitute and its exact distance
# make test   the test suite (slow tests included); make test ARGS="-m 'not slow'" is the quick part
# make lint   ruff and mypy
# make plain  source distribution and wheel, the wheel with the newest versions of everything, without constraints (but for torch), and
#             in that environment the README's commands and every command with --json
# make docs   the documentation as a site, built strictly, notebooks executed: site/index.html
# make fuzz   malformed inputs for HOURS (1), in processes that are watched
# make sbom   sbom.json (CycloneDX): the package with every extra, in the versions of constraints.txt
# make hashes compares what pip would install with the hashes in constraints.txt
# make notices  THIRD_PARTY_NOTICES.md anew
# make clean  removes what the others made, except the environment
#
# PYTHON  the interpreter that makes the environment, 3.11 or newer
# VENV    where the environment lives
# JOBS    processes that share the tests, file by file; auto: one per core

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
JOBS   ?= auto
HOURS  ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint docs plain fuzz sbom hashes notices clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/onnxsub demo --output demo-out

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/docs/check.py site

# torch alone is pinned: its newest version may bring gigabytes of CUDA
plain: $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build $$(grep '^torch==' constraints.txt)
	rm -rf $(VENV)/dist
	$(BIN)/python -m build --outdir $(VENV)/dist . > /dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		"$$(ls $(VENV)/dist/*.whl)[cpu,report,bayes]" $$(grep '^torch==' constraints.txt)
	$(BIN)/python .ci/commands.py $(BIN)

fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --hours $(HOURS) $(ARGS)

# an environment of what a user has, and one of the tool, so that neither the tool nor the tests are listed
sbom:
	rm -rf $(VENV)-sbom
	$(PYTHON) -m venv $(VENV)-sbom/user
	$(PYTHON) -m venv $(VENV)-sbom/tool
	$(VENV)-sbom/user/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ".[cpu,all]"
	$(VENV)-sbom/user/bin/python -m pip uninstall --quiet --yes pip
	$(VENV)-sbom/tool/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	$(VENV)-sbom/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --of JSON \
		-o sbom.json $(VENV)-sbom/user/bin/python
	rm -rf $(VENV)-sbom

hashes: $(BIN)/pip
	$(BIN)/python scripts/supply/hashes.py check $(ARGS)

notices: $(VENV)/.test
	$(BIN)/python scripts/supply/notices.py > THIRD_PARTY_NOTICES.md

clean:
	rm -rf demo-out build dist site sbom.json .pytest_cache .mypy_cache .ruff_cache .hypothesis

# bin/pip comes last, so an environment whose making was interrupted is made again
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "onnxsub needs Python 3.11 or newer; choose one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# the wanted extras are stamped: a second run installs nothing
$(VENV)/.demo: pyproject.toml constraints.txt $(BIN)/pip
	$(PIP) -e ".[cpu,report]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(BIN)/pip
	$(PIP) -e ".[cpu,all,test]"
	@touch $@ $(VENV)/.demo

$(VENV)/.lint: pyproject.toml constraints.txt $(BIN)/pip
	$(PIP) -e ".[cpu,all,dev]"
	@touch $@ $(VENV)/.test $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt $(BIN)/pip
	$(PIP) -e ".[cpu,docs]"
	@touch $@
