# make run: the main job. make test: what CI runs; make test-fast: its part that
# compiles nothing and makes no page. All set up .venv first.
PYTHON ?= python3
CONFIG ?= configs/gaussian.py
BIN := .venv/bin
PACKAGED := setup.cfg setup.py pyproject.toml constraints.txt

.PHONY: run test test-fast lint docs dist format versions lock clean

run: .venv/done
	$(BIN)/python launch.py --config=$(CONFIG)

test: .venv/done
	$(BIN)/python -m pytest --nbmake notebooks tests nfp_jax

test-fast: .venv/done
	$(BIN)/python -m pytest --fast tests

lint: .venv/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in docs/site: what README, guides and docstrings say. A warning is an error.
docs: .venv/done
	$(BIN)/sphinx-build -q -W --keep-going -c docs . docs/site

# An sdist, and a wheel made of it, in dist/.
dist: .venv/done
	$(BIN)/python -m build --no-isolation

format: .venv/done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each Python with a JAX of its own, some quick tests: docs/versions.md. Not in CI.
versions: .venv/done
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/versions.py

# One lock for every Python and platform; commit what it writes.
lock: .venv/done
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra test --extra docs \
	  --no-header --no-annotate --upgrade setup.cfg -o constraints.txt

.venv/done: $(PACKAGED)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[test,docs]'
	touch $@

clean:
	rm -rf .venv build dist docs/site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
