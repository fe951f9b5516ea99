package token

import "time"

const (
	// TTLDefault is how long a token is good if no other time is given (etcd's --auth-token-ttl, and the option ttl of jwt).
	TTLDefault = 5 * time.Minute

	// prefixLetters is the length of the random part of a simple token: 91 bits.
	prefixLetters = 16
	// simpleTokensMax bounds the table of simple tokens, at about 250 bytes each. It is 16 logins a second for more than an hour; one
	// core checks as many passwords at the default cost.
	simpleTokensMax = 1 << 16
)
