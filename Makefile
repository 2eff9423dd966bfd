# Every target sets up .venv by itself when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BUF := $(VENV)/node_modules/.bin/buf
RELEASED := proto/released.binpb
PACKAGES := service_kit mechanisms gpt_trainer inner_service outer_service clients

.PHONY: prompts cli-docs help setup demo demo-memory test test-long attacks chaos chaos-short lint format proto proto-check revision buf proto-release clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## Create .venv with everything, exact versions from constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	# torch first and by its exact version: a CPU build, where one is at hand, wins over the much larger default.
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[trainer,inner,outer,dashboard,report,researcher,postgres,examples,dev]'
	touch $(READY)

demo: $(READY) ## Bare search beside bilevel search on real CPU GPT training, offline
	$(BIN)/bilevel demo

demo-memory: $(READY) ## A second run that starts from the first one's lessons and library, on real CPU GPT training, offline
	$(BIN)/bilevel demo-memory

test: $(READY) ## The default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: $(READY) ## Tests that take longer
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile

attacks: $(READY) ## The attack corpus at three levels; rewrites the table in docs/security.md
	$(BIN)/python tests/attacks/attack_runner.py

chaos: $(READY) ## 200 kills, stalls and restarts of every process on both databases, then an audit (about 12 minutes)
	$(BIN)/python -m tests.chaos --seed 1 --kills 200 --database both --minutes 12

chaos-short: $(READY) ## The same with 20 hits (2 to 3 minutes)
	$(BIN)/python -m tests.chaos --seed 2 --kills 20 --database both --minutes 2.5

cli-docs: $(READY) ## Rewrite docs/cli.md after a change of a command, an option, a shape or an exit code
	$(BIN)/python -m clients.cli.reference >docs/cli.md.new && mv docs/cli.md.new docs/cli.md

prompts: $(READY) ## Rewrite the golden files of the prompts after a deliberate change
	BILEVEL_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/prompts -n 0

lint: $(READY) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(READY) ## Regenerate the Python code of proto/
	rm -f proto/bilevel/v1/*_pb2*.py proto/bilevel/v1/*_pb2*.pyi
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . \
	  --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. bilevel/v1/*.proto

proto-check: proto ## Fail if the committed generated code is not what proto/ generates
	git diff --exit-code -- proto
	test -z "$$(git ls-files --others --exclude-standard -- proto)"

$(BUF):
	npm install --silent --no-fund --no-audit --prefix $(VENV) @bufbuild/buf@1.75.0

revision: $(READY) ## Write the next database revision: SERVICE=inner MESSAGE="what changes"
	$(BIN)/python -m service_kit.migrations $(SERVICE)_service.tables "$(MESSAGE)"
	$(BIN)/ruff format --quiet $(SERVICE)_service/versions

buf: $(READY) $(BUF) ## buf lint, and buf breaking against the contract as last released
	$(BUF) lint proto
	$(BUF) breaking proto --against $(RELEASED)

proto-release: $(READY) $(BUF) ## Write the contract's image as part of a release: what buf breaking compares with from then on
	$(BUF) build proto --exclude-source-info --output $(RELEASED)

clean: ## Remove .venv and everything generated
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
