// Package auth is who may do what: users, roles, permissions on keys, whether
// that is asked for at all, and the auth revision. What it answers is what etcd
// 3.7.3 answers, with its errors in its order.
//
// # Purpose
//
// A State is a value. It never changes: Apply answers the next one, which
// shares all that is the same. So a View of the store holds one at no cost, and
// whoever has it may ask it without a lock. The package is pure: no clock, disk,
// network, randomness or password check. Passwords come as bcrypt hashes that
// were made before the log, tokens are made and known elsewhere.
//
// # Data flow
//
//	command of the log --Apply--> the next State, answer
//	                      |
//	                      +-- CheckPut, CheckRange, CheckDeleteRange, CheckAdmin   (writes where they are applied, reads on a View)
//	                      +-- UserGet, RoleGet, UserList, RoleList                 (reads)
//	                      +-- Since --> Delta --> rows of a checkpoint --> Load
//
// # Who asks
//
// An Info is the name of a user and the auth revision at which that was found
// out. A check of a key refuses one that is older than the State, so that what
// was decided under other permissions does not count. The zero Info is nobody.
// A check of CheckAdmin takes the name alone, as in etcd.
//
// # The auth revision
//
// It begins at 1 and grows by one with each change of users, roles and
// permissions, and when auth is switched off; not when it is switched on, and
// not when a role is granted that the user has.
//
// # Permissions
//
// A permission is for one key (no range end), for [key, range end), or with the
// range end "\0" for all keys from key on. What a role may read, and what it
// may write, is merged into ranges that neither overlap nor touch when the role
// changes. A range of keys is granted if the ranges of all roles of the user
// together cover it without a gap; no single permission has to. The role root
// may do everything, whatever permissions it has been given.
//
// # Invariants
//
//  1. The lists of users and roles are in the order of names; a user's roles are
//     sorted, and a role's permissions are by key.
//  2. Sum depends on users and roles alone, not on how they came to be. Equal
//     states have equal sums.
//  3. A refused command leaves the State as it is: the same pointer.
//
// # Differences from etcd, on purpose
//
//   - A range that ends where it begins or before, which reads nothing, is granted
//     to who may have its first key. etcd's answer may then depend on the shape of
//     its tree of permissions.
//   - Among the permissions of a role for one and the same key a new one comes
//     last. etcd sorts unstably, so that their order is open beyond twelve.
//   - A user whose password comes in the clear is refused. etcd takes that from
//     logs that etcd before 3.5 has written.
//
// # Limits
//
// A change copies the list of pointers to users or roles: 8 bytes each. A check
// costs a search for the user and for each of its roles; nothing is cached.
package auth
