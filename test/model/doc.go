// Package model says what etcd answers, as simply as it can be said: Step takes a state and a request, and gives the state after it
// and the response. It has no history, no log and no index; a state is a map that is copied when it changes. Linearizability tests
// search with it, and validators replay a recorded history on it.
//
// It knows Put, DeleteRange, Txn (compares of single keys) and Range of the newest revision, with the options that the tests use, and
// panics on anything else: a test that asks for more has to teach it first. Requests are taken to be valid.
package model
