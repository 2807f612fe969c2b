// SPDX-License-Identifier: MIT

// Package micro has the benchmarks of bench/micro once more, in Go: what a Go program pays for the
// same. BenchmarkCtxTimeout here is ctx_timeout there. `make bench-micro` runs them side by side.
package micro
