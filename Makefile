# DashFS. `make help` lists the targets.
CONFIG ?= release
PACKAGES = build-essential binutils liburing-dev pkg-config strace valgrind sqlite3 python3

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps:
	@for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; fi

.PHONY: build
build: deps ## everything, optimised
	swift build -c $(CONFIG)

.PHONY: test
test: build ## every test
	swift build -c $(CONFIG) --build-tests
	swift test -c $(CONFIG) --skip-build

.PHONY: clean
clean: ## removes what was built
	rm -rf .build
