# Each target works from a bare clone; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv demo test lint format unit contract integration e2e faults bench binary packages docs clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /  \1	/p' $(MAKEFILE_LIST) | expand -t 18

venv: ## the virtual environment .venv with scitq and the tools
	@build/venv.sh

demo: ## a server, an agent and three tasks, in under two minutes
	@build/venv.sh --runtime $(if $(wildcard .venv/scitq-stamp),.venv,.cache/demo-venv)
	@$(if $(wildcard .venv/scitq-stamp),.venv,.cache/demo-venv)/bin/python build/demo.py

test: ## everything that CI checks: lint, every suite, real services
	@build/test.sh

lint: venv ## ruff, mypy, import-linter
	@build/lint.sh

format: venv ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: ## tests without processes or services
	@build/test.sh unit

contract: ## one suite per kind of plug-in, over every backend
	@build/test.sh contract

integration: ## real server, agent and command line
	@build/test.sh integration

e2e: ## with Docker, S3 and the other services
	@build/test.sh e2e

faults: ## kills, cuts, full disks
	@build/test.sh faults

bench: venv ## measurements beside other tools, printed
	@build/bench.sh

binary: venv ## dist/scitq, the one file
	@build/binary.sh

packages: venv ## wheel, deb, rpm in dist/
	@build/packages.sh

docs: venv ## the generated pages of docs/
	@build/docs.sh

clean: ## everything that make made, but for downloads in .cache
	rm -rf out dist .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache src/*.egg-info
