# Two targets for newcomers: `make demo` (watch a VM's monitor be replaced under it) and `make test` (all that CI runs).
# The rest is for those who work on it; `make help` lists them. Set-up happens by itself, in .venv and .cache.

PYTHON ?= python3
export PYTHON
export PATH := $(PATH):$(CURDIR)/.cache/peers
VENV := .venv/bin
SOURCES := $(shell find src -name '*.py')
CORE := setup.py pyproject.toml $(shell find src/instar/cpu/rv64 src/instar/*/compiled src/instar/cpu/kvm/compiled -name '*.p*' -not -name '*.pyc' -o -name '*.c' -path '*/compiled/*')
PYTEST := $(VENV)/python -m pytest -q
BENCH_UPDATE = $(RUNS:%=--runs %) $(MEMORY:%=--memory %) $(STATES:%=--states %) $(MODES:%=--modes %) $(NICE:%=--nice=%) $(QUICK:%=--quick) $(GOALS:%=--goals) $(PUBLISH:%=--publish)
TESTS := unit guest peers faults golden
LIVELY := tests/faults tests/guest tests/peers

.DEFAULT_GOAL := help
.PHONY: help demo test test-still test-lab lint types $(TESTS:%=test-%) test-kvm fuzz matrix soak bench bench-update bench-connections bench-kvm docs venv build clean
.DELETE_ON_ERROR:

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

demo: build  ## boot Debian, replace the monitor twice under it, show what that cost (fetches what it needs)
	$(VENV)/instar image pull debian
	$(VENV)/python tools/demo

test: venv build  ## everything that CI runs
	$(VENV)/instar image pull debian
	$(MAKE) --no-print-directory -j2 $(if $(MAKE_TERMOUT),,-Otarget) test-still test-lab
	$(PYTEST) $(LIVELY)

test-still: build lint types  # what does not care how busy the host is, beside the lab, which does not either
	$(PYTEST) tests --ignore=tests/kvm $(LIVELY:%=--ignore=%)
test-lab: venv build
	tools/lab/run --optional --limit 900 tests/kvm -m "not long" -v

lint: venv  ## style and likely mistakes
	$(VENV)/ruff check
	$(VENV)/ruff format --check

types: venv  ## both type checkers
	$(VENV)/mypy
	$(VENV)/pyright

test-unit: venv build  ## pure tests: no processes, no sockets
	$(PYTEST) tests/unit
test-guest: venv build  ## tests with guests running
	$(VENV)/instar image pull debian
	$(PYTEST) tests/guest
test-peers: venv build  ## tests against other people's programs
	$(PYTEST) tests/peers
test-faults: venv build  ## tests that break things on purpose
	$(PYTEST) tests/faults
test-golden: venv build  ## nothing has changed that others rely on
	$(PYTEST) tests/golden
test-kvm: venv build  ## tests of KVM: on this host if its KVM runs guests, else in a machine that QEMU emulates
	tools/lab/run --limit 3600 tests/kvm

fuzz: venv build .venv/.ready-fuzz  ## look for inputs that break parsers and devices: TARGET= one of them, TIME= seconds for each
	$(VENV)/python tests/fuzz/fuzz_run.py "$(TARGET)" "$(or $(TIME),60)"

matrix: venv build  ## every step of an update x every failure; writes their count into the README
	$(VENV)/instar image pull debian
	$(VENV)/python tools/fault_matrix.py

soak: build  ## COUNT= updates in a row (default 1000) of GUEST= ticker, debian or both (default), with all nets and loads on
	$(VENV)/instar image pull debian
	$(VENV)/python tests/soak/soak.py --guest $(or $(GUEST),both) $(or $(COUNT),1000)

bench: build  ## ratios against Debian's QEMU, in one run
	$(VENV)/instar image pull debian
	PYTHONPATH=tools:tests $(VENV)/python tests/bench/bench.py

bench-update: build  ## what a guest notices of an update: QEMU="chroot DIR qemu-system-riscv64" RUNS= MEMORY= STATES= MODES= NICE= QUICK=1 GOALS=1
	$(VENV)/instar image pull debian
	. .cache/build.env && PYTHONPATH=tools:tests $(VENV)/python tests/bench/bench_update.py --qemu "$(QEMU)" $(BENCH_UPDATE)

bench-connections: build  ## what each open connection of a service adds to its pause: COUNT= connections (default 10000), RUNS=
	$(VENV)/python tests/bench/bench_connections.py $(COUNT:%=--count %) $(RUNS:%=--runs %)

bench-kvm: build  ## Instar beside QEMU on KVM (in the lab where there is none): PEER= what 'tools/peer_qemu.sh PEER x86' made; as root
	tools/lab/run --limit 3600 --command $(abspath $(VENV))/python tests/bench/bench_kvm.py --peer "$(abspath $(PEER))"

docs: build  ## write the reference pages anew from the tables they come from
	set -e; for tool in tools/gen_*.py; do $(VENV)/python $$tool; done

venv: .venv/.ready-test  ## .venv with everything for development
build: .venv/.ready-build  ## the compiled parts and the two programs in .venv/bin

.venv/.ready-venv: requirements-build.txt requirements-compiler.txt tools/bootstrap tools/bootstrap_venv.py
	@tools/bootstrap build
	@touch $@

.venv/.ready-test: requirements-dev.txt .venv/.ready-venv
	@tools/bootstrap test
	@touch $@

.venv/.ready-fuzz: requirements-fuzz.txt .venv/.ready-test
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --no-input -r requirements-fuzz.txt || true
	@touch $@

.venv/.ready-core: .venv/.ready-venv $(CORE)
	. .cache/build.env && $(VENV)/python setup.py --quiet build_ext --inplace
	@touch $@

.venv/.ready-build: .venv/.ready-core tools/launcher.py $(SOURCES)
	@$(VENV)/python -m compileall -q src/instar
	@$(VENV)/python tools/launcher.py
	@touch $@

clean:  ## remove what was made here (not the guest images)
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .hypothesis
	find src -name '*.so' -delete -o -name '__pycache__' -prune -exec rm -rf {} +
