// Package token makes the tokens of auth and says whose they are. They are etcd's: what --auth-token and --auth-token-ttl say.
//
// # The kinds
//
//   - simple: 16 random letters, a dot, and the index of the log entry that the login was. The letters are drawn by the member that was
//     asked; every member puts the token into its table where it applies the entry. A token is good for TTL after its last use at
//     this member. It ends with its user, with the user's password, and with auth.
//   - jwt: signed by the member that was asked, checked by everybody with the key. Nothing is kept, so nothing ends it before its time;
//     but it names the auth revision it was made at, and reads and writes of keys are refused once that is not the revision any more. What
//     needs root goes by the name alone, as in etcd, until the token expires.
//   - none (an empty --auth-token): logins fail; users come by their certificates alone.
//
// # Data flow
//
//	Authenticate -> Prefix -> the log -> apply: Assign (all members) -> Issue -> the client
//	a call's token -> Index: to be applied first -> Info -> auth.Info
//
// # Goroutines
//
// None. A Provider may be used by all goroutines; Assign, Invalidate and InvalidateAll are called by the one that applies.
//
// # Invariants
//
//  1. A simple token is known to Info from its Assign on until TTL has passed since its last use, or until Invalidate or InvalidateAll.
//  2. The table is in the order of expiry: all have the same TTL, and each use puts a token at the end.
//
// # Limits
//
// limits.go. The table holds simpleTokensMax tokens; one more ends the one that was not used for the longest time, whose client
// logs in again. Tokens are not written down: a member that starts again knows those of logins that it applies from then on, as etcd.
package token
