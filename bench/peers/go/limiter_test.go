// SPDX-License-Identifier: MIT

package micro

import (
	"testing"

	"golang.org/x/time/rate"
)

func BenchmarkLimiterAllow(b *testing.B) {
	limiter := rate.NewLimiter(1e12, 1000000)
	for range b.N {
		if !limiter.Allow() {
			b.Fatal("refused, where there are tokens enough")
		}
	}
}
