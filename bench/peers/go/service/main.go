// SPDX-License-Identifier: MIT

// Command service is what curfewd is compared with where PostgreSQL answers: a dashboard of three
// queries at once, and a query that sleeps, as a Go program would write them (net/http, errgroup,
// pgx). DATABASE_URL says where PostgreSQL is, descriptor 3 is the socket to listen on. It writes no
// log.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// The same as the service has in the benchmarks.
const (
	poolSize = 16
	timeout  = 60 * time.Second
)

type moment struct{ time.Time }

func (m moment) MarshalJSON() ([]byte, error) {
	return m.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

type user struct {
	ID        int64  `json:"id"`
	Email     string `json:"email"`
	Name      string `json:"name"`
	CreatedAt moment `json:"created_at"`
}

type order struct {
	ID         int64  `json:"id"`
	UserID     int64  `json:"user_id"`
	Status     string `json:"status"`
	TotalCents int64  `json:"total_cents"`
	CreatedAt  moment `json:"created_at"`
}

type metrics struct {
	OrderCount int64 `json:"order_count"`
	TotalCents int64 `json:"total_cents"`
}

type dashboard struct {
	User    user    `json:"user"`
	Orders  []order `json:"orders"`
	Metrics metrics `json:"metrics"`
}

type server struct{ pool *pgxpool.Pool }

func (s *server) user(ctx context.Context, id int64) (u user, err error) {
	err = s.pool.QueryRow(ctx, `SELECT id, email, name, created_at FROM users WHERE id = $1`, id).
		Scan(&u.ID, &u.Email, &u.Name, &u.CreatedAt.Time)
	return u, err
}

func (s *server) orders(ctx context.Context, userID int64) ([]order, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, user_id, status, total_cents, created_at FROM orders`+
		` WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 10`, userID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o order, err error) {
		err = row.Scan(&o.ID, &o.UserID, &o.Status, &o.TotalCents, &o.CreatedAt.Time)
		return o, err
	})
}

func (s *server) metrics(ctx context.Context, userID int64) (m metrics, err error) {
	err = s.pool.QueryRow(ctx, `SELECT count(*), coalesce(sum(total_cents), 0)::bigint FROM orders`+
		` WHERE user_id = $1`, userID).Scan(&m.OrderCount, &m.TotalCents)
	return m, err
}

func (s *server) dashboard(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.URL.Query().Get("user_id"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var d dashboard
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { d.User, err = s.user(ctx, id); return err })
	group.Go(func() (err error) { d.Orders, err = s.orders(ctx, id); return err })
	group.Go(func() (err error) { d.Metrics, err = s.metrics(ctx, id); return err })
	if err := group.Wait(); err != nil {
		fail(w, err)
		return
	}
	body, err := json.Marshal(d)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

func (s *server) sleep(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	if _, err := s.pool.Exec(ctx, `SELECT pg_sleep($1)`, seconds); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, context.DeadlineExceeded):
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	config.MinConns, config.MaxConns = poolSize, poolSize
	config.ConnConfig.RuntimeParams["application_name"] = "peer"
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		log.Fatal(err)
	}
	s := &server{pool}
	http.HandleFunc("GET /v1/dashboard", s.dashboard)
	http.HandleFunc("GET /v1/sleep", s.sleep)
	log.Fatal(http.Serve(listener, nil))
}
