# Thin on purpose: everything else is cargo.
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench docs fmt lint fuzz clean

# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 5

help: ## List these targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Install what the demo and the tests need (Debian; root or sudo)
	@scripts/setup test

demo: ## Set up, then show the main job on a real QEMU
	@scripts/setup demo
	cargo build --release --locked -p keyhaul
	@scripts/demo

# What `cargo test` builds of keyhaul itself serves the tests on QEMU too: alone, they would build it
# with fewer features of its dependencies, and so all of these anew.
test: export KEYHAUL = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/keyhaul
# Most tests wait for a server, a disk or a limit.
test: export RUST_TEST_THREADS ?= 4
# cargo's own closing lines come last.
test: setup docs fuzz ## Set up, then run every test
	cargo test --workspace --locked --doc
	cargo test --workspace --locked --tests

bench: setup ## Measure speed and memory, as a table
	cargo build --release --locked -p keyhaul -p keyhaul-bench
	target/release/keyhaul-bench

docs: setup ## Build the book into target/book
	scripts/docs

fmt: ## Format the code
	cargo fmt --all

lint: ## Clippy, with warnings as errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

fuzz: setup ## Run each fuzz target for FUZZ_SECONDS
	scripts/fuzz $(FUZZ_SECONDS)

clean: ## Remove everything built, tools included
	cargo clean
