# The usual jobs. `make test` is what continuous integration runs.

.PHONY: test test-long lint docs bench

# Everything: installs what the tests need and is missing (Debian), then runs all tests. Under continuous integration (`CI` is set) tests
# with a long run take it.
test:
	scripts/test-setup.sh
	$(if $(CI),SIGNALMAN_LONG=1) cargo test --locked

# The same with the long runs: 500 kills, 60 power cuts, 400 damages, and so on; a quarter of an hour.
test-long:
	$(MAKE) test CI=1

# Form, warnings, and the sample site.
lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo run --locked --quiet -- lint

# The pages of the reference that come from the code. Written beside first, so that a failure leaves the page as it was.
docs:
	mkdir -p docs/reference
	cargo run --locked --quiet -- reference reasons > docs/reference/reasons.md.new
	mv docs/reference/reasons.md.new docs/reference/reasons.md
	cargo run --locked --quiet -- reference cli > docs/reference/cli.md.new
	mv docs/reference/cli.md.new docs/reference/cli.md
	cargo run --locked --quiet -- reference api > docs/reference/api.md.new
	mv docs/reference/api.md.new docs/reference/api.md
	cargo run --locked --quiet -- reference scripts > docs/reference/scripts.md.new
	mv docs/reference/scripts.md.new docs/reference/scripts.md

# Throughput, latency and memory on this machine.
bench:
	cargo run --release --locked -- bench
