package main

import (
	"context"
	"fmt"
	"sync/atomic"
)

// flights are the numbers of requests in flight that are compared.
var flights = []int{1, 64, 1000}

// rowFlights creates and gets objects with few and with many requests in
// flight. The figure is the rate. The numbers take turns, twice each, so that
// a drift of the machine meets all of them; what is reported is the sum.
func rowFlights(ctx context.Context, d *dataset) error {
	const turns = 2
	creates, gets := map[int]figures{}, map[int]figures{}
	next := 0
	for range turns {
		for _, n := range flights {
			ops := limit{ops: d.few(16_000), seconds: 5}
			if n == 1 {
				ops.ops /= 8
			}
			base := next
			next += ops.ops
			f, err := drive(ctx, d.s, n, ops, func(ctx context.Context, w, i int) error {
				var mod atomic.Int64
				return d.create(ctx, w, otherKey("configmaps", base+i), payload(leaseBytes, uint64(i)), &mod)
			})
			if err != nil {
				return err
			}
			creates[n] = creates[n].plus(f)
			if f, err = d.gets(ctx, n, ops.ops); err != nil {
				return err
			}
			gets[n] = gets[n].plus(f)
		}
	}
	d.addRates("create", creates)
	d.addRates("get", gets)
	return nil
}

func (d *dataset) addRates(name string, by map[int]figures) {
	for _, n := range flights {
		f := by[n]
		f.Value = f.Rate
		d.add(fmt.Sprintf("%s, %d in flight", name, n), "ops/s", f)
	}
}

// plus is both turns together; the quantiles are the larger ones.
func (f figures) plus(g figures) figures {
	g.Ops += f.Ops
	g.Seconds += f.Seconds
	g.CPU += f.CPU
	g.ClientCPU += f.ClientCPU
	g.Written += f.Written
	g.Switches += f.Switches
	g.Calls += f.Calls
	g.P50, g.P99, g.Max = max(f.P50, g.P50), max(f.P99, g.P99), max(f.Max, g.Max)
	g.Rate = float64(g.Ops) / g.Seconds
	return g
}

// rowValues creates and updates objects of several sizes.
func rowValues(ctx context.Context, d *dataset) error {
	for _, v := range []struct {
		bytes, ops int
		name       string
	}{
		{400, 20_000, "400 B"}, {3_000, 12_000, "3 kB"}, {20_000, 4_000, "20 kB"}, {100_000, 1_000, "100 kB"},
	} {
		ops := d.few(v.ops)
		mods := make([]atomic.Int64, ops)
		for round, name := range []string{"create", "update"} {
			f, err := drive(ctx, d.s, inFlight, limit{ops: ops, seconds: 2 * kvSeconds}, func(ctx context.Context, w, i int) error {
				key, value := otherKey("values-"+v.name, i), payload(v.bytes, uint64(i+round*ops))
				if round == 0 {
					return d.create(ctx, w, key, value, &mods[i])
				}
				return d.update(ctx, w, key, value, &mods[i])
			})
			if err != nil {
				return err
			}
			f.Value = f.perOp()
			f.Bytes = int64(f.Ops) * int64(v.bytes)
			d.add(fmt.Sprintf("%s, %s", name, v.name), "µs CPU/op", f)
		}
	}
	return nil
}
