// SPDX-License-Identifier: MIT

package micro

import (
	"testing"

	"golang.org/x/sync/errgroup"
)

func BenchmarkGroupThree(b *testing.B) {
	parent := cancelable(b)
	nothing := func() error { return nil }
	b.ResetTimer()
	for range b.N {
		group, _ := errgroup.WithContext(parent)
		group.Go(nothing)
		group.Go(nothing)
		group.Go(nothing)
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
