// SPDX-License-Identifier: MIT

// Command hit serves one dashboard from a cache, as a Go program would: what bench-hit compares
// curfewd with. Standard input has the reply to send, descriptor 3 is the socket to listen on. It
// writes no log.
package main

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

type page struct {
	header http.Header
	body   []byte
}

type safeCache struct {
	mu    sync.RWMutex
	pages map[string]page
}

func (c *safeCache) get(key string) (page, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p, ok := c.pages[key]
	return p, ok
}

func readPage(from io.Reader) page {
	reply, err := http.ReadResponse(bufio.NewReader(from), nil)
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		log.Fatal(err)
	}
	reply.Header.Del("Date")
	return page{reply.Header, body}
}

func main() {
	cache := &safeCache{pages: map[string]page{"42": readPage(os.Stdin)}}
	http.HandleFunc("GET /v1/dashboard", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		p, ok := cache.get(r.URL.Query().Get("user_id"))
		if !ok || ctx.Err() != nil {
			http.NotFound(w, r)
			return
		}
		for name, values := range p.header {
			w.Header()[name] = values
		}
		w.Write(p.body)
	})
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, nil))
}
