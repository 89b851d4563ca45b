# Every target works on a fresh Debian 12 or 13 with a Rust toolchain.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
BIN = $${CARGO_TARGET_DIR:-target}/debug

# Rounds of make soak: twelve kills, eight power cuts and 700 steps of the chaos each.
SOAK_ROUNDS ?= 20

# The Debian that make test-debian makes.
SUITE ?= trixie

# Where make install puts things. DESTDIR is for packagers; BINARY is what is installed.
PREFIX ?= /usr
DESTDIR ?=
BINARY ?= $${CARGO_TARGET_DIR:-target}/release/cardbridge
SHARE = $(DESTDIR)$(PREFIX)/share
UNITS = $(DESTDIR)$(PREFIX)/lib

.PHONY: help build test test-debian soak fuzz demo demo-live lint lint-units install uninstall release install-packages measure

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

build: install-packages ## the agent and the programs of the harness
	$(CARGO) build --workspace

test: build ## every test
	$(CARGO) test --workspace

test-debian: ## make demo and make test in a fresh minimal Debian, SUITE=trixie or bookworm
	tests/in-debian $(SUITE)

soak: build ## kills, power cuts and chaos, SOAK_ROUNDS=20 rounds of them; SOAK_SEED=... repeats one
	SOAK_ROUNDS=$(SOAK_ROUNDS) $(CARGO) test --test soak -- --nocapture --test-threads=1

fuzz: install-packages ## every fuzz target, FUZZ_SECONDS=60 each
	@CARGO="$(CARGO)" FUZZ_SECONDS="$(FUZZ_SECONDS)" tests/fuzz/run

demo: build ## one card on its way from a virtual reader to CM's record
	$(BIN)/demo --agent $(BIN)/cardbridge

demo-live: build ## the same world, left running for trying things by hand
	$(BIN)/demo --agent $(BIN)/cardbridge --live

lint: install-packages lint-units ## format, clippy, documentation, licences, the unit
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

# 15 is an exposure of 1.5; everything that is left open says why in the unit.
lint-units: install-packages ## the unit against what systemd thinks of it
	systemd-analyze security --no-pager --offline=yes --threshold=15 systemd/cardbridge.service

# The date of the source is a witness against a clock that is behind (docs/decisions/0025).
release: ## the program as it is installed
	SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}" \
		$(CARGO) build --release

# Builds nothing: `make release` does, as a user who has a toolchain. A configuration that is there
# stays as it is.
install: ## program, unit, user, polkit rule, manual and completions, below DESTDIR
	@test -x "$(BINARY)" || { echo "there is no $(BINARY): run make release first" >&2; exit 1; }
	install -D -m 0755 "$(BINARY)" $(DESTDIR)$(PREFIX)/bin/cardbridge
	install -D -m 0644 systemd/cardbridge.service $(UNITS)/systemd/system/cardbridge.service
	sed -i 's|^ExecStart=/usr/|ExecStart=$(PREFIX)/|' $(UNITS)/systemd/system/cardbridge.service
	install -D -m 0644 systemd/cardbridge.sysusers.conf $(UNITS)/sysusers.d/cardbridge.conf
	install -D -m 0644 systemd/cardbridge.tmpfiles.conf $(UNITS)/tmpfiles.d/cardbridge.conf
	install -D -m 0644 systemd/polkit/49-cardbridge.rules $(SHARE)/polkit-1/rules.d/49-cardbridge.rules
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions \
		$(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	umask 022; "$(BINARY)" man > $(SHARE)/man/man1/cardbridge.1
	umask 022; "$(BINARY)" completions bash > $(SHARE)/bash-completion/completions/cardbridge
	umask 022; "$(BINARY)" completions zsh > $(SHARE)/zsh/site-functions/_cardbridge
	umask 022; "$(BINARY)" completions fish > $(SHARE)/fish/vendor_completions.d/cardbridge.fish
	install -d -m 0750 $(DESTDIR)/etc/cardbridge $(DESTDIR)/etc/cardbridge/conf.d
	@test -e $(DESTDIR)/etc/cardbridge/cardbridge.toml || { \
		install -m 0640 /dev/null $(DESTDIR)/etc/cardbridge/cardbridge.toml && \
		"$(BINARY)" config example > $(DESTDIR)/etc/cardbridge/cardbridge.toml; }
	install -d $(SHARE)/doc/cardbridge/docs/decisions
	install -m 0644 README.md LICENSE-APACHE LICENSE-MIT $(SHARE)/doc/cardbridge
	install -m 0644 docs/*.md docs/architecture.svg $(SHARE)/doc/cardbridge/docs
	install -m 0644 docs/decisions/*.md $(SHARE)/doc/cardbridge/docs/decisions

# What the site wrote stays: /etc/cardbridge, /var/lib/cardbridge and the user.
uninstall: ## everything that make install put there, but the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/cardbridge $(UNITS)/systemd/system/cardbridge.service \
		$(UNITS)/sysusers.d/cardbridge.conf $(UNITS)/tmpfiles.d/cardbridge.conf \
		$(SHARE)/polkit-1/rules.d/49-cardbridge.rules $(SHARE)/man/man1/cardbridge.1 \
		$(SHARE)/bash-completion/completions/cardbridge $(SHARE)/zsh/site-functions/_cardbridge \
		$(SHARE)/fish/vendor_completions.d/cardbridge.fish
	rm -rf $(SHARE)/doc/cardbridge

install-packages: ## the Debian packages that all of this needs
	@tests/install-packages

measure: build ## numbers of the built agent
	tests/measure
