package password

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/crypto/bcrypt"
)

// ErrMismatch says that a password is not the one that was hashed.
var ErrMismatch = errors.New("password does not match")

// Costs that bcrypt knows.
const (
	CostMin     = 4
	CostMax     = 31
	CostDefault = 10
)

// bytesMax is how much of a password bcrypt takes.
const bytesMax = 72

// Hasher hashes with one cost.
type Hasher struct {
	cost  int
	turns chan struct{}
}

// NewHasher returns a Hasher of a cost (etcd's --bcrypt-cost): 2^cost rounds. One that bcrypt does not know stands for CostDefault, as
// in etcd.
func NewHasher(cost int) *Hasher {
	if cost < CostMin || cost > CostMax {
		cost = CostDefault
	}
	return &Hasher{cost: cost, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Validate is bcrypt's error for a password that is too long to be hashed.
func Validate(password string) error {
	if len(password) > bytesMax {
		return bcrypt.ErrPasswordTooLong
	}
	return nil
}

// Hash is the hash of a password. The error is that of the context, or bcrypt's for a password that is too long.
func (h *Hasher) Hash(ctx context.Context, password string) (hash []byte, err error) {
	terr := h.turn(ctx, func() { hash, err = bcrypt.GenerateFromPassword([]byte(password), h.cost) })
	if terr != nil {
		return nil, terr
	}
	return hash, err
}

// Check compares a password with a hash, of whatever cost. The error is ErrMismatch, also for what is no hash, or that of the context.
func (h *Hasher) Check(ctx context.Context, hash []byte, password string) (err error) {
	terr := h.turn(ctx, func() {
		if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
			err = ErrMismatch
		}
	})
	if terr != nil {
		return terr
	}
	return err
}

// turn runs fn when a place is free.
func (h *Hasher) turn(ctx context.Context, fn func()) error {
	select {
	case h.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.turns }()
	if err := ctx.Err(); err != nil { // both were ready
		return err
	}
	fn()
	return nil
}
