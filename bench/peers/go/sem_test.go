// SPDX-License-Identifier: MIT

package micro

import (
	"testing"

	"golang.org/x/sync/semaphore"
)

func BenchmarkSemAcquire(b *testing.B) {
	ctx := cancelable(b)
	sem := semaphore.NewWeighted(8)
	b.ResetTimer()
	for range b.N {
		if err := sem.Acquire(ctx, 1); err != nil {
			b.Fatal(err)
		}
		sem.Release(1)
	}
}
