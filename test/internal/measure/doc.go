// Package measure has what the programs that measure servers share: operations
// that are due at a steady rate (Pacer), quantiles, the machine that figures
// depend on, and tables in the README that a program writes.
//
// Goroutines: none.
package measure
