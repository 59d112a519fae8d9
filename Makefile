# What one does with walden's sources. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check format lint tidy licences bench soak torture rehearse fuzz test-stores

CARGO ?= cargo
TOOLS := target/tools
CARGO_DENY := $(TOOLS)/bin/cargo-deny
POSTGRESQL_MAJORS := 15 16 17 18
SOAK_SECONDS ?= 600
CRASH_ROUNDS ?= 20
TORTURE_ROUNDS ?= 50
FUZZ_SECONDS ?= 600
DRILL_ROUNDS ?= 50
DRILL_KILLS ?= 30

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: ## the whole story on this machine: archive, back up, an accident, recover
	@tests/setup/packages.sh demo
	@tests/setup/postgres.sh 18
	@echo "building walden"
	@$(CARGO) build --locked --quiet
	@target/debug/walden demo --pg-bin "$$(readlink -f target/postgresql/18)/bin"

test: ## unit and integration tests, with real PostgreSQL servers and S3 stores
	@tests/setup/packages.sh test
	@tests/setup/postgres.sh $(POSTGRESQL_MAJORS)
	@tests/setup/clients.sh 17
	$(CARGO) test --locked --no-fail-fast

check: format lint tidy licences ## what needs no server: format, lint, house rules, licences

format:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	$(CARGO) fmt --check

lint:
	@tests/setup/packages.sh build
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	$(CARGO) clippy --locked --all-targets -- -D warnings

tidy:
	$(CARGO) test --locked --test tidy

# Advisories need a database from elsewhere: `cargo deny check advisories` by hand, or a timer.
licences: $(CARGO_DENY)
	$(CARGO_DENY) --locked check bans licenses sources

$(CARGO_DENY):
	$(CARGO) install cargo-deny --version 0.20.2 --locked --root $(TOOLS)

bench: ## how fast, beside cp, zstd, and the archivers that are installed
	@tests/setup/packages.sh bench
	@tests/setup/postgres.sh 15
	$(CARGO) bench --locked

# About as long again goes into the crashes, and into what is compared in the end.
soak: ## ten minutes over a store that fails, then kill -9 everywhere (SOAK_SECONDS, CRASH_ROUNDS)
	@tests/setup/packages.sh test
	@tests/setup/postgres.sh $(POSTGRESQL_MAJORS)
	WALDEN_TEST_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test it soak:: -- --nocapture
	WALDEN_TEST_CRASH_ROUNDS=$(CRASH_ROUNDS) $(CARGO) test --locked --test it crash:: -- --nocapture

# Half a minute a round for each version. `tests/it/torture.rs` says what else can be asked for.
torture: ## backups while everything changes, recovered and checked, on all versions (TORTURE_ROUNDS)
	@tests/setup/packages.sh test
	@tests/setup/postgres.sh $(POSTGRESQL_MAJORS)
	@tests/setup/clients.sh 17
	WALDEN_TEST_TORTURE_ROUNDS=$(TORTURE_ROUNDS) $(CARGO) test --locked --test it torture:: -- --nocapture

# Every repository that is healthy, every way to damage one, drills of both; then random commits.
rehearse: ## drills at random commits, killed ones, damaged repositories (DRILL_ROUNDS, DRILL_KILLS)
	@tests/setup/packages.sh test
	@tests/setup/postgres.sh $(POSTGRESQL_MAJORS)
	WALDEN_TEST_HEALTHY=23 $(CARGO) test --locked --test it sabotage:: -- --nocapture
	WALDEN_TEST_DRILL_ROUNDS=$(DRILL_ROUNDS) WALDEN_TEST_DRILL_KILLS=$(DRILL_KILLS) \
		$(CARGO) test --locked --test it rehearsal:: -- --nocapture

fuzz: ## every parser of WAL on damaged WAL, ten minutes each (FUZZ_SECONDS)
	@tests/setup/packages.sh test
	@tests/setup/postgres.sh $(POSTGRESQL_MAJORS)
	WALDEN_TEST_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --locked --test it wal_fuzz:: -- --nocapture

test-stores: ## the stores that take long to build: Garage (12 minutes the first time)
	@tests/setup/packages.sh test
	@tests/setup/garage.sh >/dev/null
	$(CARGO) test --locked --features test-stores --test it stores::
