# Each command makes the virtual environment .venv (or reuses it), installs what it needs, and does its work:
#
#   make demo    real text in, a pretrained model and its report out; options: make demo ARGS="--minutes 1"
#   make test    the whole test suite; options for pytest: make test ARGS="-k tokenizer"
#   make lint    lint, format, types, and the direction of imports
#   make fuzz    damaged inputs for every reader, new ones each time: make fuzz MINUTES=30
#   make crash   every command that writes, stopped at each of its changes to files, and resumed
#   make clean   remove .venv and the caches of the tools
#
# CONSTRAINTS=constraints-lowest.txt installs the lowest versions that pyproject.toml allows instead of the pinned ones.
#
# Needed: Python 3.11 or newer (PYTHON=... picks one), make, and the network for the first install.

CONSTRAINTS = constraints.txt

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: demo test lint fuzz crash clean

demo: .venv/.installed-demo
	@.venv/bin/palavra demo $(ARGS)

test: .venv/.installed-test
	@.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: .venv/.installed-lint
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/python -m pytest --quiet tests/test_floors.py

MINUTES = 10

fuzz: .venv/.installed-test
	@PYTHONPATH=tests:src .venv/bin/python -m fuzz --minutes $(MINUTES) $(ARGS)

crash: .venv/.installed-test
	@PYTHONPATH=tests:src .venv/bin/python -m fuzz --stops $(ARGS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A stamp holds the folder of the checkout and the constraints. Stamps of other ones are removed, because the installed
# package points to the folder: after a move or a copy it has to be installed again.
$(shell grep -LxF -e "$(CURDIR) $(CONSTRAINTS)" .venv/.installed-* 2>/dev/null | xargs rm -f)

.venv/.installed-demo: EXTRAS =
.venv/.installed-test: EXTRAS = [test]
.venv/.installed-lint: EXTRAS = [lint]

# The stamp is written last, so an install that was interrupted or failed is done again, and a .venv without
# a working pip (an interrupted one) is made anew. Twice --quiet: pip shows errors only.
.venv/.installed-%: pyproject.toml $(CONSTRAINTS) .venv/bin/python
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(MAKE_VENV)
	@echo 'Installing palavra$(EXTRAS) into .venv (the first time takes a minute or two)'
	@.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input \
		--constraint $(CONSTRAINTS) --editable '.$(EXTRAS)'
	@echo '$(CURDIR) $(CONSTRAINTS)' >$@

.venv/bin/python:
	@$(MAKE_VENV)

define MAKE_VENV
{ for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	echo "Making .venv with $$("$$python" --version)"; \
	exec "$$python" -m venv --clear .venv; \
done; \
echo 'No Python 3.11 or newer with venv was found. Install one (Debian, Ubuntu: apt install python3 python3-venv)'; \
echo 'or name it: make PYTHON=/path/to/python3.12 ...'; \
exit 1; }
endef
