# What a contributor needs; CONTRIBUTING.md says more.
.PHONY: setup fast all

setup:  ## an environment in .venv with all extras
	python3 -m venv .venv
	.venv/bin/python -m pip install -e ".[train,eval,serve,tune,line,export,optimize,ray,test,dev,docs]"

fast:  ## lint, types, and the tests that take minutes
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	.venv/bin/python -m pytest -n 2 --dist loadscope -m "not slow"

all:  ## everything that must hold before a change lands, in environments of its own
	bash .ci/run
