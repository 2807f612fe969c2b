// SPDX-License-Identifier: MIT

package micro

import (
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
)

const callers = 100

func BenchmarkFlightDo(b *testing.B) {
	var flight singleflight.Group
	load := func() (any, error) { return "value", nil }
	for range b.N {
		if _, err, _ := flight.Do("key", load); err != nil {
			b.Fatal(err)
		}
	}
}

// An operation is one caller, with the goroutine that it is.
func BenchmarkFlightJoin(b *testing.B) {
	var flight singleflight.Group
	var arrived atomic.Int64
	loadForAll := func() (any, error) {
		for arrived.Load() < callers {
			runtime.Gosched()
		}
		return "value", nil
	}
	join := func() error {
		arrived.Add(1)
		_, err, _ := flight.Do("key", loadForAll)
		return err
	}
	parent := cancelable(b)
	b.ResetTimer()
	done := 0
	for ; done < b.N; done += callers {
		arrived.Store(0)
		group, _ := errgroup.WithContext(parent)
		for range callers {
			group.Go(join)
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/op") // More than b.N.
}
