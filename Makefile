# Every target works on a fresh Debian 12 with a Rust toolchain.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
BIN = $${CARGO_TARGET_DIR:-target}/debug

# Rounds of make soak: twelve kills and eight power cuts each.
SOAK_ROUNDS ?= 20

.PHONY: help build test soak fuzz demo demo-live lint install-packages measure

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

build: install-packages ## the agent and the programs of the harness
	$(CARGO) build --workspace

test: build ## every test
	$(CARGO) test --workspace

soak: build ## kills and power cuts, SOAK_ROUNDS=20 rounds of them; SOAK_SEED=... repeats one
	SOAK_ROUNDS=$(SOAK_ROUNDS) $(CARGO) test --test soak -- --nocapture --test-threads=1

fuzz: install-packages ## every fuzz target, FUZZ_SECONDS=60 each
	@CARGO="$(CARGO)" FUZZ_SECONDS="$(FUZZ_SECONDS)" tests/fuzz/run

demo: build ## one card on its way from a virtual reader to CM's record
	$(BIN)/demo --agent $(BIN)/cardbridge

demo-live: build ## the same world, left running for trying things by hand
	$(BIN)/demo --agent $(BIN)/cardbridge --live

lint: install-packages ## format, clippy, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --check
	RUSTFLAGS='--cfg fuzzing' $(CARGO) clippy --locked --manifest-path tests/fuzz/Cargo.toml \
		--target-dir $${CARGO_TARGET_DIR:-target}/fuzz --target "$$(rustc --print host-tuple)" \
		--all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check licenses bans sources; \
	else \
		echo 'SKIPPED: cargo-deny is not installed; licences and sources were not checked'; \
	fi

install-packages: ## the Debian packages that all of this needs
	@tests/install-packages

measure: build ## numbers of the built agent
	tests/measure
