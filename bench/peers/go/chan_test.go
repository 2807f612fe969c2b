// SPDX-License-Identifier: MIT

package micro

import (
	"context"
	"runtime"
	"testing"
)

const capacity = 128

func BenchmarkChanSendRecv(b *testing.B) {
	ch := make(chan int, 1)
	for i := range b.N {
		ch <- i
		<-ch
	}
}

// hop sends b.N elements from one goroutine to another, each on a thread of its own if `threads`.
func hop(b *testing.B, capacity int, threads bool) {
	ch := make(chan int, capacity)
	if threads {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	b.ResetTimer()
	go func() {
		if threads {
			runtime.LockOSThread()
		}
		for i := range b.N {
			ch <- i
		}
	}()
	for range b.N {
		<-ch
	}
}

// hopUnder is hop with a context for every wait.
func hopUnder(b *testing.B, ctx context.Context, capacity int) {
	ch := make(chan int, capacity)
	b.ResetTimer()
	go func() {
		for i := range b.N {
			select {
			case ch <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	for range b.N {
		select {
		case <-ch:
		case <-ctx.Done():
			b.Error(ctx.Err())
			return
		}
	}
}

func BenchmarkChanUnbuffered(b *testing.B) { hop(b, 0, false) }

func BenchmarkChanBuffered(b *testing.B) { hop(b, capacity, false) }

func BenchmarkChanUnbufferedCtx(b *testing.B) { hopUnder(b, cancelable(b), 0) }

func BenchmarkChanBufferedCtx(b *testing.B) { hopUnder(b, cancelable(b), capacity) }

func BenchmarkChanThreadsUnbuffered(b *testing.B) { hop(b, 0, true) }

func BenchmarkChanThreadsBuffered(b *testing.B) { hop(b, capacity, true) }
