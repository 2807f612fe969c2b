// SPDX-License-Identifier: MIT

package micro

import (
	"fmt"
	"sync"
	"testing"
)

const keys = 1024

// safeCache is what Go programs write: a map behind an RWMutex.
type safeCache struct {
	mu    sync.RWMutex
	items map[string]string
}

func (c *safeCache) get(key string) (string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	value, ok := c.items[key]
	return value, ok
}

func filled() (*safeCache, []string) {
	cache := &safeCache{items: make(map[string]string)}
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("user:%d", i)
		cache.items[names[i]] = names[i]
	}
	return cache, names
}

func BenchmarkCacheHit(b *testing.B) {
	cache, names := filled()
	b.ResetTimer()
	for i := range b.N {
		if _, ok := cache.get(names[i%keys]); !ok {
			b.Fatal("a miss, where all should hit")
		}
	}
}

func BenchmarkCacheHitAllCores(b *testing.B) {
	cache, names := filled()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := cache.get(names[i%keys]); !ok {
				b.Error("a miss, where all should hit")
			}
		}
	})
}
