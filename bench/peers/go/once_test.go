// SPDX-License-Identifier: MIT

package micro

import (
	"sync"
	"testing"
)

func BenchmarkOnceDo(b *testing.B) {
	var once sync.Once
	nothing := func() {}
	for range b.N {
		once.Do(nothing)
	}
}
