// SPDX-License-Identifier: MIT

package micro

import (
	"context"
	"testing"
	"time"
)

const (
	tree     = 1000
	branches = 10
	depth    = 10
)

type key int

var sink any

// cancelable is a context that can end, as a request's can.
func cancelable(b *testing.B) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	return ctx
}

func BenchmarkCtxTimeout(b *testing.B) {
	parent := cancelable(b)
	b.ResetTimer()
	for range b.N {
		_, cancel := context.WithTimeout(parent, time.Second)
		cancel()
	}
}

// makeTree makes a tree whose contexts have ten children each, but for those at its end.
func makeTree(parent context.Context, ctxs *[tree]context.Context, cancels *[tree]context.CancelFunc) {
	for i := range tree {
		if i > 0 {
			parent = ctxs[(i-1)/branches]
		}
		ctxs[i], cancels[i] = context.WithCancel(parent)
	}
}

// The cancel alone. The time is taken here, because stopping the timer takes longer than it.
func BenchmarkCtxCancelTree(b *testing.B) {
	var ctxs [tree]context.Context
	var cancels [tree]context.CancelFunc
	var elapsed time.Duration
	parent := cancelable(b)
	for range b.N {
		makeTree(parent, &ctxs, &cancels)
		start := time.Now()
		cancels[0]()
		elapsed += time.Since(start)
	}
	b.ReportMetric(float64(elapsed.Nanoseconds())/float64(b.N), "ns/op")
}

// Made, cancelled and given up: every cancel is called, as vet asks for.
func BenchmarkCtxTree(b *testing.B) {
	var ctxs [tree]context.Context
	var cancels [tree]context.CancelFunc
	parent := cancelable(b)
	b.ResetTimer()
	for range b.N {
		makeTree(parent, &ctxs, &cancels)
		for i := range tree {
			cancels[i]()
		}
	}
}

func BenchmarkCtxValue(b *testing.B) {
	ctx := cancelable(b)
	for i := range depth {
		ctx = context.WithValue(ctx, key(i), i)
	}
	b.ResetTimer()
	for range b.N {
		sink = ctx.Value(key(0))
	}
}
