# SPDX-License-Identifier: MIT
# Curfew. `make help` lists the targets; CONTRIBUTING.md says which of them one needs when.
#
# Every variable here can be set on the command line or in config.mk. A new source file needs no
# edit, and other flags make everything again. V=1 shows the commands.

-include config.mk

# Settings

MODE   ?= release    # release, debug, asan, tsan, fuzz, race (release that can take its fences down)
FIBER  ?= auto       # auto: assembly where there is some; ucontext: everywhere
ARCH   ?=            # arm64: for another machine, with what `make deps-arm64` has fetched
WERROR ?= -Werror    # packagers: WERROR=
V      ?= 0
PREFIX ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man

# Of libcurfew.so: CONTRIBUTING.md says when it changes.
SOVERSION  := 0

MODE   := $(strip $(MODE))
FIBER  := $(strip $(FIBER))
ARCH   := $(strip $(ARCH))

CFLAGS_release = -O2 -g -U_FORTIFY_SOURCE $(HARDENING)
CFLAGS_race    = $(CFLAGS_release) -DCF_FENCE_TEST
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
                  -fno-sanitize-recover=all
CFLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                  -fno-sanitize-recover=all -DCF_FUZZ
CC_tsan        := clang
CC_fuzz        := clang
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_tsan   := -fsanitize=thread
LDFLAGS_fuzz   := -fsanitize=fuzzer,address,undefined

ifeq ($(CFLAGS_$(MODE)),)
$(error MODE=$(MODE): not one of release, debug, asan, tsan, fuzz, race)
endif
ifeq ($(filter auto ucontext,$(FIBER)),)
$(error FIBER=$(FIBER): not one of auto, ucontext)
endif
ifneq ($(filter-out arm64,$(ARCH)),)
$(error ARCH=$(ARCH): not arm64, nor empty)
endif
ifeq ($(origin CC),default)
CC := $(or $(CC_$(MODE)),gcc)
endif

B := build/$(MODE)$(if $(filter ucontext,$(FIBER)),-ucontext)$(ARCH:%=-%)

PKG_CONFIG ?= pkg-config

SYSROOT := build/sysroot-arm64
ifeq ($(ARCH),arm64)
CC         := aarch64-linux-gnu-gcc --sysroot=$(abspath $(SYSROOT))
AR         := aarch64-linux-gnu-ar
EMULATOR   := qemu-aarch64-static -L $(SYSROOT)
PKG_CONFIG := PKG_CONFIG_SYSROOT_DIR=$(SYSROOT) \
              PKG_CONFIG_LIBDIR=$(SYSROOT)/usr/lib/aarch64-linux-gnu/pkgconfig $(PKG_CONFIG)
endif

PACKAGES   := libmicrohttpd libpq jansson libuv libcurl openssl zlib
# What the service needs beside the library.
SVC_PACKAGES := libjpeg libpng libwebp

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wold-style-definition \
            -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wredundant-decls -Wundef -Wvla \
            -Wformat=2 -Wdouble-promotion -Wdate-time -Wno-missing-field-initializers

# What hardens the code, of which the compiler at hand may know only a part. Without the clash
# protection a large frame would step over the guard page of a fiber's stack.
HARDEN := -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection \
          -fcf-protection=full -ftrivial-auto-var-init=zero -fzero-call-used-regs=used-gpr \
          -fstrict-flex-arrays=3
HARDENING = $(call once,HARDENING,$(call known,$(HARDEN)))
known     = $(foreach flag,$(1),$(shell $(CC) -O2 -Werror $(flag) -x c -c /dev/null -o /dev/null \
            2>/dev/null && echo '$(flag)'))

# $(call once,NAME,value): evaluate `value` when NAME is first used, and only then: on a fresh
# machine there is no pkg-config before `make deps`.
once = $(eval $(1) := $(2))$($(1))
PKG_CFLAGS   = $(call once,PKG_CFLAGS,$(shell $(PKG_CONFIG) --cflags $(PACKAGES) $(SVC_PACKAGES)))
PKG_LIBS     = $(call once,PKG_LIBS,$(shell $(PKG_CONFIG) --libs $(PACKAGES)))
SVC_LIBS     = $(call once,SVC_LIBS,$(shell $(PKG_CONFIG) --libs $(SVC_PACKAGES)) -lm)
CHECK_CFLAGS = $(call once,CHECK_CFLAGS,$(shell $(PKG_CONFIG) --cflags check))
CHECK_LIBS   = $(call once,CHECK_LIBS,$(shell $(PKG_CONFIG) --libs check))

INCLUDES = -Iinclude -Isrc -D_GNU_SOURCE $(if $(filter ucontext,$(FIBER)),-DCF_FIBER_UCONTEXT) \
           $(PKG_CFLAGS)
# No fused multiply-add: sums come out the same on arm64, where it is there, as on x86-64.
COMPILE  = $(CC) -std=gnu11 -ffp-contract=off $(INCLUDES) $(WARNINGS) $(WERROR) -fvisibility=hidden -pthread \
           $(CFLAGS_$(MODE)) $(PIC) $(CPPFLAGS) $(CFLAGS) -MMD -MP
LINK     = $(CC) -pthread -Wl,--as-needed -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS_$(MODE)) $(LDFLAGS)

# Sources and what is made of them

KINDS   := unit integration e2e
FAULTS  := alloc fault # Kinds that `make test` leaves out: they take long.
HEADERS := $(wildcard include/curfew/*.h)
LIB_SRC := $(wildcard src/curfew/*/*.c src/curfew/*/*.S)
SVC_SRC := $(wildcard src/curfewd/*.c src/curfewd/*/*.c)
OURS     = $(shell find include src tests bench examples -name '*.[ch]' 2>/dev/null)

object   = $(addprefix $(B)/obj/,$(addsuffix .o,$(basename $(1))))
LIB      := $(B)/libcurfew.a
VERSION  := $(shell sed -n 's/^\#define CF_VERSION "\(.*\)"/\1/p' include/curfew/base.h)
SHARED   := $(B)/libcurfew.so.$(VERSION)
MAN      := $(B)/man/curfewd.1 $(B)/man/curfewd.5
# The service is a library and a main(), so that unit tests can reach its parts.
SVC_LIB  := $(B)/libcurfewd.a
MAIN_OBJ := $(call object,$(filter src/curfewd/main.c,$(SVC_SRC)))
EXAMPLES := $(patsubst examples/%.c,example-%,$(wildcard examples/*.c))
BINS     := $(KINDS:%=test-%) $(patsubst bench/%.c,bench-%,$(filter-out bench/kit.c,$(wildcard bench/*.c))) $(EXAMPLES)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all bins $(BINS) help deps deps-test deps-tools deps-arm64 deps-fault deps-deb \
        deps-systems deps-list run test test-long test-trixie $(KINDS) $(FAULTS:%=test-%) \
        unit-arm64 asan tsan valgrind fuzz lint fmt fmt-check check-headers check-readme \
        check-guide check-tests check-symbols check-hardening check-install check-cluster readme examples bench \
        bench-micro hit miss race pg-url pg-stop install uninstall deb test-install test-docker clean \
        FORCE

# $(call say,VERB,object) prints a line; Q hides the command. With V=1 it is the other way round.
ifeq ($(V),1)
Q   :=
say  =
else
Q   := @
say  = @printf '  %-5s %s\n' '$(1)' '$(2)'
endif

# Rules

all: $(LIB) $(B)/curfewd $(EXAMPLES) ## build library, service, examples (MODE=, FIBER=, V=1, WERROR=)
ifeq ($(MODE)$(ARCH),release)
all: $(SHARED) $(MAN) $(B)/curfew.pc
endif

bins: all $(BINS) $(B)/bench-micro $(FAULTS:%=$(B)/test-%) $(B)/nth.so
$(BINS): %: $(B)/% ; @:

# These two change when what they hold does, and what depends on them is made again.
$(B)/flags: HOLDS = $(COMPILE) $(PIC_LIB) $(LINK)
$(B)/files: HOLDS = $(LIB_SRC) $(SVC_SRC) $(wildcard tests/*/*.c bench/*.c bench/*/*.c)
$(B)/flags $(B)/files: FORCE
	@mkdir -p $(@D)
	@echo '$(HOLDS)' | cmp -s - $@ || echo '$(HOLDS)' >$@

define compile
$(call say,CC,$<)
@mkdir -p $(@D)
$(Q)$(COMPILE) $(1) -c -o $@ $<
endef

# One object serves both libraries. Without the second flag a function of the interface could be
# replaced by another one of its name, and would never be inlined.
PIC_LIB := -fPIC -fno-semantic-interposition
$(B)/obj/src/curfew/%.o: private PIC := $(PIC_LIB)

define archive
$(call say,AR,$@)
@rm -f $@
$(Q)$(AR) rcs $@ $(filter %.o,$^)
endef

define link
$(call say,LINK,$@)
$(Q)$(LINK) -o $@ $(filter %.o %.a,$^) $(PKG_LIBS) $(1)
endef

$(B)/obj/%.o: %.c Makefile $(B)/flags
	$(call compile)
$(B)/obj/%.o: %.S Makefile $(B)/flags
	$(call compile)
# What the assembler puts in, the compiler does not list.
$(call object,src/curfewd/openapi.c): src/curfewd/openapi.json

$(LIB): $(call object,$(LIB_SRC)) $(B)/files
	$(archive)
$(SHARED): $(call object,$(LIB_SRC)) $(B)/files
	$(call say,LINK,$@)
	$(Q)$(LINK) -shared -Wl,-soname,libcurfew.so.$(SOVERSION),-Bsymbolic-functions,-z,defs -o $@ \
		$(filter %.o,$^) $(PKG_LIBS)
$(SVC_LIB): $(filter-out $(MAIN_OBJ),$(call object,$(SVC_SRC))) $(B)/files
	$(archive)
$(B)/curfewd: $(MAIN_OBJ) $(SVC_LIB) $(LIB)
	$(call link,$(SVC_LIBS))
$(filter $(B)/bench-%,$(BINS:%=$(B)/%)): $(B)/bench-%: $(B)/obj/bench/%.o $(B)/obj/bench/kit.o $(LIB)
	$(call link)
$(B)/bench-micro: $(call object,$(wildcard bench/micro/*.c)) $(LIB) $(B)/files
	$(call link)
$(EXAMPLES:%=$(B)/%): $(B)/example-%: $(B)/obj/examples/%.o $(LIB)
	$(call link)

# One binary for each kind of test. tests/lib is compiled for each, with the kind's own suites.h;
# tests/lib/fault.c, where allocations are made to fail, stands between our calls and malloc, and
# tests/lib/rwlocks.c, which counts, between them and the locks.
# The inputs of fuzzing are unit tests as well.
comma := ,
PARTS_unit := fuzz
# tests/unit/asked.c stands between handlers, and the arguments and the database;
# tests/unit/test_ctx_race.c between a cancel and its descriptor; test_address.c before the resolver.
WRAP_unit  := $(addprefix -Wl$(comma)--wrap=,cf__target_arg cf_pg_query dashboards_get eventfd_write \
              getaddrinfo)
WRAP  := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc pthread_rwlock_rdlock \
         pthread_rwlock_wrlock)
define test_rules
$(B)/obj-$(1)/%.o: %.c Makefile $(B)/flags
	$$(call compile,$(addprefix -Itests/,$(1) lib $(PARTS_$(1))) $$(CHECK_CFLAGS) -Wno-missing-prototypes)
$(B)/test-$(1): $(patsubst %.c,$(B)/obj-$(1)/%.o,$(foreach part,lib $(1) $(PARTS_$(1)),$(wildcard tests/$(part)/*.c))) \
		$(SVC_LIB) $(LIB) $(B)/files
	$$(call link,$$(WRAP) $$(WRAP_$(1)) $$(SVC_LIBS) $$(CHECK_LIBS))
endef
$(foreach kind,$(KINDS) $(FAULTS),$(eval $(call test_rules,$(kind))))

# What is loaded into the service to have its allocations fail. No sanitizer: it brings its own.
$(B)/nth.so: tests/alloc/preload/nth.c tests/alloc/nth.h Makefile $(B)/flags
	$(call say,LINK,$@)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARNINGS) $(WERROR) -O2 -g -fPIC -shared \
		-fvisibility=hidden -fno-builtin -Wno-missing-prototypes -pthread -o $@ $<

# A target of fuzzing is a program of clang's libFuzzer, and a part of the unit tests.
$(B)/obj-fuzz/%.o: %.c Makefile $(B)/flags
	$(call compile,-Wno-missing-prototypes)
$(B)/fuzz-%: $(B)/obj-fuzz/tests/fuzz/%.o $(B)/obj-fuzz/tests/fuzz/kit.o $(SVC_LIB) $(LIB)
	$(call link,$(SVC_LIBS))

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# Run and test

# Another make, because what `deps` installed changes what this one would find; and all cores,
# unless -j was said already.
MAKE_ALL = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
CLUSTER  = sql/cluster.sh

run: deps ## run the service on a private PostgreSQL, until Ctrl-C (CURFEW_LISTEN=, DATABASE_URL=)
	+@$(MAKE_ALL) all
	@CURFEW_DEMO=$${CURFEW_DEMO-1} exec $(CLUSTER) run $(B)/curfewd

test: deps-test ## build and run every test (CK_RUN_SUITE=, CK_RUN_CASE=, CF_TEST_PG_URL=)
	+@$(MAKE_ALL) bins
	+@failed=; for kind in $(KINDS) examples check-install check-cluster; do \
		$(MAKE) --no-print-directory $$kind || failed="$$failed $$kind"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-long: ## the same with every stress test at its full size; of test-alloc too
	+@CF_TEST_LONG=1 $(MAKE) --no-print-directory test
	+@CF_TEST_LONG=1 $(MAKE) --no-print-directory $(FAULTS:%=test-%)

test-trixie: deps-systems ## the same on Debian 13, in var/trixie (root, debootstrap)
	+@tests/trixie.sh test

# Sanitizers slow a test down. clang's of version 14 and gcc's of version 12 stumble over the
# widest address randomization, so it is off where the system lets us.
TSAN_SUPP    := $(patsubst %,:suppressions=%,$(abspath $(wildcard tests/tsan.supp)))
RUN_ENV       = CK_TIMEOUT_MULTIPLIER=$${CK_TIMEOUT_MULTIPLIER:-$(if $(ENV_$(MODE))$(EMULATOR),5,1)} \
                CF_TEST_BIN=$(abspath $(B)/curfewd) $(ENV_$(MODE))
SAME_LAYOUT   = $$(setarch -R true 2>/dev/null && echo setarch -R)
ENV_asan      = ASAN_OPTIONS=$${ASAN_OPTIONS:-detect_stack_use_after_return=0} \
                UBSAN_OPTIONS=$${UBSAN_OPTIONS:-print_stacktrace=1} $(SAME_LAYOUT)
ENV_tsan      = TSAN_OPTIONS=$${TSAN_OPTIONS:-second_deadlock_stack=1$(TSAN_SUPP)} $(SAME_LAYOUT)

unit: $(B)/test-unit ## unit tests: no network, no database (MODE=)
	@env $(RUN_ENV) $(EMULATOR) $<

# Without those that ask the kernel for limits and figures, of which qemu has its own.
unit-arm64: deps-arm64 ## unit tests on arm64, by qemu
	+@$(MAKE_ALL) ARCH=arm64 test-unit
	@CK_EXCLUDE_TAGS=kernel $(MAKE) --no-print-directory ARCH=arm64 unit

check-install: $(SHARED) $(MAN) $(B)/curfew.pc ## install into a directory, compile README's example with that
	@env $(RUN_ENV) tests/install/check.sh

check-cluster: deps ## who interrupts `make run` while it starts leaves no PostgreSQL behind
	@tests/cluster.sh

integration: $(B)/test-integration $(B)/curfewd ## the library against a real PostgreSQL (MODE=)
e2e: $(B)/test-e2e $(B)/curfewd ## the built service over real sockets (MODE=)
integration e2e:
	@DATABASE_URL=$${CF_TEST_PG_URL:-$$DATABASE_URL} $(CLUSTER) run env $(RUN_ENV) $<

test-alloc: $(B)/test-alloc $(B)/curfewd $(B)/nth.so ## the service when its n-th allocation fails
	@DATABASE_URL=$${CF_TEST_PG_URL:-$$DATABASE_URL} $(CLUSTER) run env $(RUN_ENV) \
		CF_TEST_NTH=$(abspath $(B)/nth.so) LD_PRELOAD=$(abspath $(B)/nth.so) $<

# Most of its three minutes it waits for what is broken.
test-fault: deps-fault $(B)/test-fault $(B)/curfewd ## the service while PostgreSQL, network or machine fail
	@DATABASE_URL=$${CF_TEST_PG_URL:-$$DATABASE_URL} $(CLUSTER) run env $(RUN_ENV) $(B)/test-fault

# Without arguments, by hand, it takes 19 seconds.
ARGS_fetch := 150 100

examples: $(EXAMPLES) ## run each example, and compare what it prints with examples/expected
	@failed=; $(foreach name,$(EXAMPLES:example-%=%), \
		out=$$(env $(RUN_ENV) $(B)/example-$(name) $(ARGS_$(name))) || failed="$$failed $(name)"; \
		echo "$$out" | diff -u examples/expected/$(name).txt - || failed="$$failed $(name)";) \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

asan tsan: deps-tools ## unit tests under gcc's ASan and UBSan; under clang's TSan
	+@$(MAKE_ALL) MODE=$@ unit

VALGRIND ?= valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
            --errors-for-leak-kinds=definite \
            $(patsubst %,--suppressions=%,$(wildcard tests/valgrind.supp))

# Valgrind takes some of what libjpeg-turbo's vector code computes, and throws away, for used.
valgrind: deps-tools ## unit tests under valgrind, in one process
	+@$(MAKE_ALL) MODE=debug test-unit
	@JSIMD_FORCENONE=1 CK_FORK=no CK_EXCLUDE_TAGS='fork stress' $(VALGRIND) build/debug/test-unit

FUZZ_SECONDS ?= 600
FUZZ_TARGET  ?= $(filter-out kit,$(basename $(notdir $(wildcard tests/fuzz/*.c))))

fuzz: deps-tools ## search for inputs that break a promise (FUZZ_TARGET=all, FUZZ_SECONDS=600 each)
	+@$(MAKE_ALL) MODE=fuzz $(FUZZ_TARGET:%=build/fuzz/fuzz-%)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.sh build/fuzz $(FUZZ_TARGET)

ROUNDS      ?= 500
RACE_CANCELS ?= 100000
WITH_URL     = $(CLUSTER) run sh -ec

# Without Go, without its figures.
GO          ?= go
GO_PEER      = command -v '$(GO)' >/dev/null && \
               $(GO) -C bench/peers/go build -o $(abspath $(B))/peer-$(1) ./$(1) && echo '--peer $(B)/peer-$(1)'

bench: deps ## orphan time, beside that of Go (ROUNDS=500, GO=), then a short race
	+@$(MAKE_ALL) all bench-orphan bench-race
	@peer=$$($(call GO_PEER,service)); \
	$(WITH_URL) "$(B)/bench-orphan --url \"\$$CF_TEST_PG_URL\" --bin $(B)/curfewd --rounds $(ROUNDS) $$peer; \
		$(B)/bench-race --url \"\$$CF_TEST_PG_URL\" --cancels 1500 --way control"

DASHBOARD_ROUNDS ?= 20

# Go has as many threads as we have loops.
hit miss: deps ## processor time of a dashboard from the cache, or PostgreSQL, beside Go's (DASHBOARD_ROUNDS=20, GO=)
	+@$(MAKE_ALL) all bench-dashboard
	@peer=$$($(if $(filter hit,$@),$(call GO_PEER,hit),$(call GO_PEER,service))); \
	$(WITH_URL) "GOMAXPROCS=1 $(B)/bench-dashboard --url \"\$$CF_TEST_PG_URL\" --bin $(B)/curfewd \
		$(if $(filter miss,$@),--miss) --rounds $(DASHBOARD_ROUNDS) $$peer"

# Without Go, our own figures.
bench-micro: $(B)/bench-micro ## each primitive beside the same in Go, ns an operation (MICRO=, MICRO_ROUNDS=10, GO=)
	@peer=; if command -v '$(GO)' >/dev/null; then \
		peer=$(abspath $(B))/peer-micro; $(GO) -C bench/peers/go test -c -o $$peer . || exit 1; \
	else \
		echo "bench-micro: no Go to compare with: '$(GO)' is not in the PATH (https://go.dev/dl; GO=/where/it/is)" >&2; \
	fi; bench/micro/run.sh $< $$peer

# The way that takes libpq 17.
RACE_ASYNC = $(shell $(PKG_CONFIG) --atleast-version=17 libpq && \
             echo '"async --cancels $(RACE_CANCELS)" "async --skip f1 --seconds 10"')

# Those with --skip must find the fault that the missing fence lets through.
race: deps ## prove the two fences (RACE_CANCELS=100000)
	+@$(MAKE_ALL) MODE=race bench-race
	@$(WITH_URL) 'for how in "control --cancels $(RACE_CANCELS)" "pqcancel --cancels $(RACE_CANCELS)" \
		"pqcancel --skip f1 --seconds 10" "control --skip f2 --seconds 10" \
		$(RACE_ASYNC); do \
		echo "bench-race --way $$how"; \
		build/race/bench-race --url "$$CF_TEST_PG_URL" --way $$how; done'

pg-url: deps ## print the URL of the PostgreSQL that run and test use; start it if needed
	@$(CLUSTER) load
	@$(CLUSTER) url

pg-stop: ## stop that PostgreSQL
	@$(CLUSTER) stop

# Installing

# What takes the place of a name between @ signs in a file whose name ends in .in.
FILL = sed -e 's|@VERSION@|$(VERSION)|' -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
       -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@PACKAGES@|$(PACKAGES)|'

$(B)/curfew.pc: packaging/curfew.pc.in Makefile FORCE
	@$(FILL) $< >$@
$(B)/man/curfewd.1: BY := flag
$(B)/man/curfewd.5: BY := variable
$(MAN): $(B)/man/%: docs/man/%.in docs/man/settings.awk $(B)/help Makefile
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	@awk -v by=$(BY) -f docs/man/settings.awk $(B)/help >$@.settings
	@$(FILL) -e '/^@SETTINGS@$$/{ r $@.settings' -e 'd }' $< >$@

# Where each file goes, for install and uninstall.
define each_file
	$(call $(1),755,$(B)/curfewd,$(BINDIR))
	$(call $(1),644,$(LIB) $(SHARED),$(LIBDIR))
	$(call $(1),644,$(B)/curfew.pc,$(LIBDIR)/pkgconfig)
	$(call $(1),644,$(HEADERS),$(INCLUDEDIR)/curfew)
	$(call $(1),644,$(B)/man/curfewd.1,$(MANDIR)/man1)
	$(call $(1),644,$(B)/man/curfewd.5,$(MANDIR)/man5)
	$(call $(1),644,$(wildcard sql/*.sql),$(DATADIR)/curfew/sql)
endef
put  = $(Q)install -d $(DESTDIR)$(3) && install -m $(1) $(2) $(DESTDIR)$(3)
drop = $(Q)rm -f $(addprefix $(DESTDIR)$(3)/,$(notdir $(2)))

install: $(LIB) $(SHARED) $(B)/curfewd $(MAN) $(B)/curfew.pc ## install (PREFIX=/usr/local, DESTDIR=, LIBDIR=, ...)
	$(call each_file,put)
	$(Q)ln -sf $(notdir $(SHARED)) $(DESTDIR)$(LIBDIR)/libcurfew.so.$(SOVERSION)
	$(Q)ln -sf libcurfew.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libcurfew.so

uninstall: ## remove what install has installed, with the same settings
	$(call each_file,drop)
	$(Q)rm -f $(DESTDIR)$(LIBDIR)/libcurfew.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libcurfew.so
	$(Q)rmdir $(DESTDIR)$(INCLUDEDIR)/curfew $(DESTDIR)$(DATADIR)/curfew/sql $(DESTDIR)$(DATADIR)/curfew \
		2>/dev/null || true

deb: deps-deb ## build the packages curfewd, libcurfew0 and libcurfew-dev, into build/deb
	@packaging/deb.sh

test-install: deb deps-systems ## install those on a fresh Debian 12, in var/bookworm (root, debootstrap)
	@tests/install/bookworm.sh

# Minutes, most of them for images.
test-docker: ## bring docker/compose.yaml up on a docker engine, and use it (docker, docker-compose)
	@tests/docker/run.sh

# Style

lint: deps-tools ## clang-tidy, fmt-check and the checks below
	+@$(MAKE_ALL) -k $(patsubst %,$(B)/tidy/%.ok,$(filter %.c,$(LIB_SRC) $(SVC_SRC))) \
		fmt-check check-headers check-readme check-guide check-tests check-symbols check-hardening

$(B)/tidy/%.ok: % .clang-tidy Makefile $(HEADERS) $(shell find src -name '*.h' 2>/dev/null)
	$(call say,TIDY,$<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- -std=gnu11 $(INCLUDES) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

fmt: deps-tools ## format all C sources in place
	clang-format -i $(OURS)

# clang-format leaves comments as they are, so their width is looked at besides.
fmt-check: ## fail if a C source is not formatted, or a line is wider than 100 columns
	@clang-format --dry-run --Werror $(OURS)
	@! LC_ALL=C.UTF-8 grep -nE '.{101}' $(OURS) >&2 || \
		{ echo 'fmt-check: the lines above are wider than 100 columns' >&2; exit 1; }

# As C11 and as C++, each header alone: with its example's first line and nothing before it.
check-headers: ## each public header compiles on its own, as C11 and as C++
	@for header in $(HEADERS:include/%=%); do for as in 'gcc -std=c11 -x c' 'clang -std=c++11 -x c++'; do \
		echo "#include <$$header>" | $$as -Wall -Wextra -Werror -fsyntax-only -Iinclude $(PKG_CFLAGS) - \
			|| exit 1; done; done

$(B)/help: $(B)/curfewd
	@$< --help >$@

check-readme: $(B)/help ## the README's example compiles, its settings are those of --help
	@sed -n '/^```c$$/,/^```$$/{ /^```/d; p }' README.md | \
		gcc -std=c11 -x c -Wall -Wextra -Werror -Wno-missing-field-initializers -fsyntax-only -Iinclude -
	@sed -n '/^\$$ curfewd --help$$/,/^```$$/{ //d; p }' README.md | \
		diff -u --label README.md --label 'curfewd --help (make readme)' - $(B)/help >&2

# All C of a chapter is one file, whose lines have the chapter's numbers.
check-guide: ## the C of docs/guide compiles, and its index has every chapter
	@for chapter in $(wildcard docs/guide/*.md); do \
		awk -v name=$$chapter 'BEGIN { printf "# 1 \"%s\"\n", name } /^```/ { c = $$0 == "```c"; print ""; next } \
			{ print c ? $$0 : "" }' $$chapter | \
			gcc -std=c11 -x c -Wall -Wextra -Werror -Wno-missing-field-initializers -fsyntax-only -Iinclude - \
			|| exit 1; \
		case $$chapter in */README.md) ;; *) grep -q "($${chapter##*/})" docs/guide/README.md || \
			{ echo "check-guide: $$chapter is not in the index" >&2; exit 1; } ;; esac; done

# A name in a table with two underscores or more, and perhaps a star. A suite is chosen with
# CK_RUN_SUITE=name, and CK_RUN_CASE=name after that chooses one of its cases: both are quoted in its file.
check-tests: ## the tests, suites and cases that the documents name are there
	@mkdir -p $(B)
	@grep -rhoE 'START_(TEST|ONBOTH)\(\w+' tests --include='*.c' | sed 's/.*(//' >$(B)/tests; \
	for name in $$(grep '^|' tests/README.md | grep -oE '`[a-z][a-z0-9]*(_[a-z0-9*]+){2,}`' | tr -d '`' | sort -u); do \
		grep -qx "$$(echo "$$name" | sed 's/\*/.*/')" $(B)/tests || \
			{ echo "check-tests: no test is called $$name" >&2; bad=1; }; done; \
	for chosen in $$(grep -rhoE 'CK_RUN_SUITE=\w+( CK_RUN_CASE=\w+)?' --include='*.md' README.md CONTRIBUTING.md tests docs | \
			sed -E 's/CK_RUN_(SUITE|CASE)=//g; s/ /:/' | sort -u); do \
		suite=$${chosen%:*}; case=$$(expr "$$chosen" : '.*:\(.*\)'); \
		files=$$(grep -rl "suite_create(\"$$suite\")" tests) || \
			{ echo "check-tests: no suite is called $$suite" >&2; bad=1; continue; }; \
		[ -z "$$case" ] || grep -qE "(add\w*\(suite, |tcase_create\()\"$$case\"" $$files || \
			{ echo "check-tests: the suite $$suite has no case $$case" >&2; bad=1; }; done; [ -z "$$bad" ]

readme: $(B)/help ## bring the README's settings up to date
	@sed -i -e '/^\$$ curfewd --help$$/,/^```$$/{ //!d }' -e '/^\$$ curfewd --help$$/r $(B)/help' README.md

check-symbols: $(LIB) $(SHARED) ## the libraries export cf_ names only, and hide cf__ names
	@readelf --syms --wide $(LIB) | awk '\
		$$5 == "GLOBAL" && $$7 != "UND" && ($$8 !~ /^cf_/ || ($$8 ~ /^cf__/) == ($$6 == "DEFAULT")) \
		{ print "check-symbols: " $$8 " (" $$6 ")"; bad = 1 } END { exit bad }'
	@readelf --dyn-syms --wide $(SHARED) | awk '\
		$$5 ~ /GLOBAL|WEAK/ && $$7 != "UND" { n++; if ($$8 !~ /^cf_[^_]/) \
		{ print "check-symbols: $(SHARED): " $$8; bad = 1 } } END { exit bad || n == 0 }'

# Every line must be there, and no stack be executable.
check-hardening: $(B)/curfewd ## the service is PIE, full RELRO, NX, with canaries and fortified calls
	@all=$$(readelf --wide --file-header --program-headers --dynamic --syms $<); \
	for want in 'Type: *DYN' 'GNU_RELRO' 'FLAGS.*BIND_NOW' 'GNU_STACK .* RW ' '__stack_chk_fail' \
			'__[a-z]*_chk'; do \
		echo "$$all" | grep -q "$$want" || { echo "check-hardening: $<: no $$want" >&2; exit 1; }; \
	done

# What apt brings

DEBS_run   := gcc libc6-dev pkg-config libmicrohttpd-dev libpq-dev libjansson-dev libuv1-dev \
              uthash-dev libxxhash-dev libcurl4-openssl-dev libssl-dev zlib1g-dev libjpeg-dev \
              libpng-dev libwebp-dev libstb-dev postgresql
DEBS_test  := check curl openssl pgbouncer g++ valgrind
DEBS_fault := faketime
DEBS_deb   := debhelper dpkg-dev fakeroot
DEBS_tools := clang clang-tidy clang-format valgrind
DEBS_arm64 := gcc-aarch64-linux-gnu qemu-user-static
HAS_run    := command -v gcc && command -v psql && \
              $(PKG_CONFIG) --exists $(PACKAGES) $(SVC_PACKAGES) && \
              printf "\#include <%s>\n" uthash.h xxhash.h stb/stb_image.h | gcc -E - && \
              { [ -n "$$DATABASE_URL$$PGHOST$$PG_BINDIR" ] || command -v initdb || \
                ls /usr/lib/postgresql/*/bin/initdb; }
HAS_test   := command -v curl && command -v g++ && command -v valgrind && command -v openssl && $(PKG_CONFIG) --exists check && \
              PATH=$$PATH:/usr/sbin command -v pgbouncer
HAS_fault  := command -v faketime
HAS_deb    := command -v dh && command -v dpkg-buildpackage && command -v fakeroot
HAS_tools  := for tool in $(DEBS_tools); do command -v $$tool || exit; done && \
              test -e "$$(clang --print-file-name=libclang_rt.tsan-$$(uname -m).a)"
HAS_arm64  := command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64-static
# The sanitizers' runtime has the version of clang in its name.
DEB_RT     := libclang-rt-$$(apt-cache depends clang 2>/dev/null | \
              sed -n "s/.*Depends: clang-//p" | grep . || echo 14)-dev

# $(call need,probe,packages): install the packages if the probe fails, or say how to.
define need
@( $(1) ) >/dev/null 2>&1 && exit; \
	as=; [ $$(id -u) = 0 ] || as='sudo -n'; \
	if ! command -v apt-get >/dev/null || ! $$as true 2>/dev/null; then \
		echo "Packages are missing. Please install them, here with the names of Debian and Ubuntu:" >&2; \
		echo "  sudo apt-get install -y --no-install-recommends $(2)" >&2; exit 1; \
	fi; \
	echo "  APT   $(2)" >&2; log=$$(mktemp); \
	{ $$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends $(2); } >"$$log" 2>&1 || { cat "$$log" >&2; rm "$$log"; exit 1; }; \
	rm "$$log"
endef

deps: ## install what building and running need, if anything is missing (apt)
	$(call need,$(HAS_run),$(DEBS_run))
deps-test: ## the same for `make test`
	$(call need,$(HAS_run) && $(HAS_test),$(DEBS_run) $(DEBS_test))
deps-fault: ## the same for `make test-fault`
	$(call need,$(HAS_run) && $(HAS_test) && $(HAS_fault),$(DEBS_run) $(DEBS_test) $(DEBS_fault))
deps-deb: ## the same for `make deb`
	$(call need,$(HAS_run) && $(HAS_deb),$(DEBS_run) $(DEBS_deb))
deps-tools: ## the same for sanitizers, valgrind and lint
	$(call need,$(HAS_run) && $(HAS_test) && $(HAS_tools),$(DEBS_run) $(DEBS_test) $(DEBS_tools) $(DEB_RT))

deps-list: # for tests/trixie.sh
	@echo $(DEBS_run) $(DEBS_test)

deps-systems: ## the same for `make test-trixie` and `make test-install`
	$(call need,command -v debootstrap,debootstrap)

deps-arm64: ## the same for `make unit-arm64`, and the libraries, which go to build/
	$(call need,$(HAS_arm64),$(DEBS_arm64))
	@[ -e $(SYSROOT)/complete ] || { echo "  APT   $(SYSROOT)"; \
		tests/sysroot.sh $(SYSROOT) arm64 $(filter-out pkg-config postgresql gcc,$(DEBS_run)) check && \
		touch $(SYSROOT)/complete; }

clean: ## remove what was built; the cluster in var/ stays
	rm -rf build

help: ## print this list
	@awk -F ' ## ' '/^[a-z][a-z0-9 -]*:.* ## / { sub(/:.*/, "", $$1); printf "  %-14s %s\n", $$1, $$2 }' \
		Makefile
