# DashFS. `make help` lists the targets.
CONFIG ?= release
PREFIX ?= /usr/local
VERSION = 0.1.0
BUILT = .build/$(CONFIG)
PACKAGES = liburing-dev pkg-config gcc g++ libc6-dev binutils linux-libc-dev strace valgrind fio sqlite3 libsqlite3-dev python3 \
	tar gzip bzip2 xz-utils diffutils findutils patch git gpgv debian-archive-keyring dpkg
NVME_PACKAGES = qemu-system-x86 busybox-static cpio kmod e2fsprogs util-linux procps sqlite3 python3 xz-utils gcc libc6-dev linux-libc-dev
PROGRAM_PACKAGES = gnupg gpg-agent tmux bash coreutils findutils diffutils util-linux procps gcc libc6-dev sqlite3 python3 libpython3.11-testsuite redis-server libleveldb-dev vim nano tar gzip bzip2 xz-utils cpio rsync zip unzip make binutils git python3-venv postgresql-15 librocksdb-dev fio libaio1

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# install-missing PACKAGES: those of Debian's packages that are not here yet
define install-missing
@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
[ -z "$$missing" ] || { SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; export DEBIAN_FRONTEND=noninteractive; \
$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends $$missing; }
endef

.PHONY: deps
deps: ## what the build and the tests need from Debian, if it is missing
	$(call install-missing,$(PACKAGES))
	@command -v swift >/dev/null || { echo "make: there is no swift in PATH: install Swift 6.2 or newer (https://swift.org/install)" >&2; exit 69; }

.PHONY: deps-nvme
deps-nvme: ## what test-nvme and bench-nvme need from Debian besides, if it is missing
	$(call install-missing,$(NVME_PACKAGES))

.PHONY: deps-programs
deps-programs: ## what test-programs needs from Debian besides, if it is missing: no database is made, and zlib's sources come to .build
	@[ -e /etc/postgresql-common/createcluster.conf ] || { SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; $$SUDO mkdir -p /etc/postgresql-common; \
	echo 'create_main_cluster = false' | $$SUDO tee /etc/postgresql-common/createcluster.conf >/dev/null; }
	$(call install-missing,$(PROGRAM_PACKAGES))
	Tests/Programs/real/sources .build/programs zlib

.PHONY: build
build: deps ## everything, optimised
	swift build -c $(CONFIG)

.PHONY: test
test: build deps-nvme deps-programs ## every test
	swift build -c $(CONFIG) --build-tests
	swift test -c $(CONFIG) --skip-build
	DASHFS=$(BUILT)/dashfs Tests/Programs/real/run
	DASHFS=$(BUILT)/dashfs Tests/Guest/run

.PHONY: test-nvme
test-nvme: build deps-nvme ## of them, those of NVMe disks and VFIO in an emulated machine
	DASHFS=$(BUILT)/dashfs Tests/Guest/run

.PHONY: test-programs
test-programs: build deps-programs ## of them, the real programs on DashFS, each with its own verdict
	DASHFS=$(BUILT)/dashfs Tests/Programs/real/run

.PHONY: demo
demo: build ## real programs on a volume, a killed server, and what is left of it
	DASHFS=$(BUILT)/dashfs scripts/demo

.PHONY: bench
bench: build ## latencies and bandwidths beside the kernel's
	$(BUILT)/dashfs bench

.PHONY: bench-nvme
bench-nvme: build deps-nvme ## durable writes on the NVMe driver beside ext4, in an emulated machine: times, then instructions
	DASHFS=$(BUILT)/dashfs scripts/nvme-latency
	DASHFS=$(BUILT)/dashfs INSTRUCTIONS=$(BUILT)/dashfs-instructions scripts/nvme-latency --instructions

.PHONY: instructions
instructions: build ## instructions of each operation, by callgrind
	INSTRUCTIONS=$(BUILT)/dashfs-instructions scripts/instructions

.PHONY: install
install: build ## the program, its libraries and the C header, under PREFIX
	install -D -m 755 $(BUILT)/dashfs $(DESTDIR)$(PREFIX)/bin/dashfs
	install -D -m 644 $(BUILT)/libdashfs-preload.so $(DESTDIR)$(PREFIX)/lib/dashfs/libdashfs-preload.so
	install -D -m 644 $(BUILT)/libdashfs-c.so $(DESTDIR)$(PREFIX)/lib/libdashfs.so.1
	ln -sf libdashfs.so.1 $(DESTDIR)$(PREFIX)/lib/libdashfs.so
	install -D -m 644 include/dashfs.h $(DESTDIR)$(PREFIX)/include/dashfs.h
	@mkdir -p $(addprefix $(DESTDIR)$(PREFIX)/,lib/pkgconfig share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d)
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: dashfs' 'Description: files of a DashFS server, through shared memory' 'Version: $(VERSION)' \
		'Libs: -L$${prefix}/lib -ldashfs' 'Cflags: -I$${prefix}/include' >$(DESTDIR)$(PREFIX)/lib/pkgconfig/dashfs.pc
	$(BUILT)/dashfs --generate-completion-script bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/dashfs
	$(BUILT)/dashfs --generate-completion-script zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_dashfs
	$(BUILT)/dashfs --generate-completion-script fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/dashfs.fish

.PHONY: clean
clean: ## removes what was built
	rm -rf .build
