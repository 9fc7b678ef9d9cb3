# One entry for everything: make help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ATTACK := .venv-attack
PACKAGE := src/proxmox_cpu_affinity
SOURCES := $(addprefix $(PACKAGE)/latency/,duel.c pingpong.c pool.c main.c)
HEADERS := $(addprefix $(PACKAGE)/latency/,pingpong.h duel.h sides.h clock.h)
CFLAGS ?= -O2 -g
CPPFLAGS ?=
LDFLAGS ?=
STRICT := -std=c11 -Wall -Wextra -Werror -pthread

DESTDIR ?=
PREFIX := /usr
LIBEXEC := $(PREFIX)/libexec/proxmox-cpu-affinity
DIST := $(PREFIX)/lib/python3/dist-packages
PYTHON := $(or $(wildcard $(BIN)/python),python3)

.DEFAULT_GOAL := help
.PHONY: help setup develop demo check test page-test screenshots e2e faults load fuzz api-test audit licences lock bench bench-hook bench-confining bench-placement bench-latency goldens hosts showcase install install-docs deb deb-test clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready build/pingpong ## .venv with what the program needs, and the measuring program

develop: setup $(VENV)/.develop ## beyond that, what check and test need

$(VENV)/.ready: constraints/run.txt constraints/minimum.txt $(wildcard constraints/locked/run-*.txt) scripts/make-venv
	@scripts/make-venv $(VENV)
	@touch $@

$(VENV)/.develop: constraints/locked/develop.txt $(VENV)/.ready
	@echo "installing the development tools"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(ATTACK)/.ready: constraints/locked/attack.txt $(VENV)/.ready
	@echo "installing what attacks and audits"
	@$(BIN)/python -m venv --clear $(ATTACK)
	@$(ATTACK)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

build/pingpong: $(SOURCES) $(HEADERS)
	@command -v $(CC) > /dev/null || { echo "a C compiler is missing: apt install gcc libc6-dev" >&2; exit 1; }
	@mkdir -p build
	$(CC) $(STRICT) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(SOURCES)

demo: setup ## the whole main job on a simulated node; KEEP=1 leaves it running
	@$(BIN)/proxmox-cpu-affinity demo --output build/demo $(if $(KEEP),--keep)

check: develop ## format, lint, types, shell scripts, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --scripts-are-modules scripts/make-showcase scripts/capture-host \
		scripts/make-docs scripts/make-sbom scripts/list-licences
	$(BIN)/shellcheck hook/proxmox-cpu-affinity-hook scripts/make-venv scripts/dummy-guests .ci/run \
		scripts/make-deb scripts/debian-root scripts/lock scripts/audit debian/proxmox-cpu-affinity.p* \
		tests/e2e/agent tests/e2e/in_guest/guest
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

test: check ## check, then unit, scenario and integration tests
	$(BIN)/python -m tests.run

page-test: develop ## the live page in Debian's Chromium: apt install chromium npm; ONLY=words
	@$(BIN)/python -m tests.page.run $(if $(ONLY),-k "$(ONLY)")

screenshots: develop ## rewrite the pictures in docs/page
	$(BIN)/python -m tests.page.screenshots

e2e: setup ## the installed project on a booted Debian; SUITE=bookworm or both, FULL=1
	@$(BIN)/python -m tests.e2e.run --suite $(or $(SUITE),trixie) $(if $(FULL),--full)

faults: develop ## histories and system calls with faults; other numbers: HISTORIES= REAL= STEPS= FIRST= (STEPS=-1: all)
	@$(BIN)/python -m tests.faults.run $(if $(HISTORIES),--memory $(HISTORIES)) \
		$(if $(REAL),--processes $(REAL)) $(if $(STEPS),--steps $(STEPS)) $(if $(FIRST),--first $(FIRST))

load: develop ## 200 guests at once, 100,000 events, 512 CPUs; SHORT=1, EVENTS=5000
	@$(BIN)/python -m tests.load.run $(if $(SHORT),--short) $(if $(EVENTS),--events $(EVENTS))

fuzz: develop ## every reader of others' texts under atheris; SECONDS=600, no less than 2 a target; KEEP=1 into the corpus
	@$(BIN)/python -m tests.fuzz.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(KEEP),--keep)

api-test: develop $(ATTACK)/.ready ## the API attacked over real sockets and by schemathesis; SHORT=1
	@SHORT=$(SHORT) $(BIN)/python -m tests.api.run

audit: $(ATTACK)/.ready ## known vulnerabilities of what is pinned; asks the Python advisory database
	@scripts/audit $(ATTACK)/bin/pip-audit

licences: develop $(ATTACK)/.ready ## rewrite constraints/licences.txt
	$(BIN)/python scripts/list-licences $(VENV) $(ATTACK)

lock: ## rewrite constraints/locked from constraints/*.txt; needs python3.11, python3.13 and pip-tools
	scripts/lock

bench: develop ## one table: start, hook, ps, decisions, memory, idling, beside goals and peers; ONLY=hook,ps
	@$(BIN)/python -m bench.run $(if $(ONLY),--only $(ONLY))

bench-hook: develop ## what the hook's imports cost
	$(BIN)/python bench/hook.py

bench-confining: develop ## in a booted Debian: confining as multiples of set-property
	$(BIN)/python -m tests.e2e.run --full -k times_as_multiples,io_threads

bench-placement: develop ## how far placements are from the best possible, and how quick
	$(BIN)/python bench/placement.py

bench-latency: develop ## measuring beside its peers, under load, and projected to 512 CPUs
	$(BIN)/python bench/latency.py

goldens: develop ## rewrite the scenarios' expectations; review them as a diff
	$(BIN)/python tests/scenarios/make_goldens.py
	$(BIN)/python -m tests.integration.make_cli_goldens

hosts: develop ## rewrite the generated host snapshots
	$(BIN)/python tests/hosts/make_hosts.py

showcase: develop ## rewrite SHOWCASE.md and docs/example.svg
	$(BIN)/python scripts/make-showcase

install: build/pingpong ## into DESTDIR, on Debian's own python3-* packages, without pip
	install -d $(DESTDIR)$(DIST) $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(LIBEXEC)
	install -d $(DESTDIR)/var/lib/vz/snippets $(DESTDIR)/etc/default $(DESTDIR)$(PREFIX)/lib/systemd/system
	find src/proxmox_cpu_affinity \( -name '*.py' -o -path '*/service/page/*' \) -type f -printf '%P\n' | while read -r file; do \
		install -D -m 644 "src/proxmox_cpu_affinity/$$file" "$(DESTDIR)$(DIST)/proxmox_cpu_affinity/$$file" || exit 1; \
	done
	install -m 755 build/pingpong $(DESTDIR)$(LIBEXEC)/pingpong
	install -m 644 hook/notify.py $(DESTDIR)$(LIBEXEC)/notify.py
	install -m 755 hook/proxmox-cpu-affinity-hook $(DESTDIR)$(LIBEXEC)/proxmox-cpu-affinity-hook
	install -m 755 hook/proxmox-cpu-affinity-hook $(DESTDIR)/var/lib/vz/snippets/proxmox-cpu-affinity-hook
	install -m 755 scripts/proxmox-cpu-affinity $(DESTDIR)$(PREFIX)/bin/proxmox-cpu-affinity
	install -m 755 scripts/proxmox-cpu-affinity-service $(DESTDIR)$(PREFIX)/sbin/proxmox-cpu-affinity-service
	install -m 644 scripts/proxmox-cpu-affinity.service $(DESTDIR)$(PREFIX)/lib/systemd/system/proxmox-cpu-affinity.service
	test -e $(DESTDIR)/etc/default/proxmox-cpu-affinity || \
		install -m 644 scripts/proxmox-cpu-affinity.default $(DESTDIR)/etc/default/proxmox-cpu-affinity
	install -D -m 644 scripts/proxmox-cpu-affinity.logrotate $(DESTDIR)/etc/logrotate.d/proxmox-cpu-affinity

build/share/.made: scripts/make-docs debian/changelog scripts/proxmox-cpu-affinity.default $(shell find src -name '*.py')
	$(PYTHON) scripts/make-docs build/share
	@touch $@

install-docs: build/share/.made ## man pages and completions into DESTDIR; needs click
	cd build/share && find . -type f ! -name .made -printf '%P\n' | while read -r file; do \
		install -D -m 644 "$$file" "$(abspath $(DESTDIR)/)$(PREFIX)/share/$$file" || exit 1; \
	done

deb: ## the Debian package, made in a Debian 12 of its own; ARCH=arm64 for another processor
	scripts/make-deb $(ARCH)

deb-test: develop ## the package on both releases, from installation to purge; PLAIN=1, ARM64=1
	$(BIN)/python -m tests.deb.run $(if $(SUITE),--suite $(SUITE)) $(if $(PLAIN),--plain) \
		$(if $(ARM64),--arm64)

clean: ## what was built and set up
	rm -rf build $(VENV) $(ATTACK) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests hook bench -name __pycache__ -type d -prune -exec rm -rf {} +
