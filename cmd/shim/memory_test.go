package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCgroupLimit(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unlimited, old, real, missing := write("a", "max\n"), write("b", "9223372036854771712\n"), write("c", "536870912\n"), filepath.Join(dir, "nosuch")
	for _, tc := range []struct {
		files []string
		want  int64
	}{
		{[]string{missing, real}, 512 << 20},
		{[]string{real, unlimited}, 512 << 20},
		{[]string{unlimited}, 0},
		{[]string{old}, 0},
		{[]string{missing}, 0},
	} {
		if got, ok := cgroupLimit(tc.files); got != tc.want || ok != (tc.want != 0) {
			t.Errorf("%v: %d %v", tc.files, got, ok)
		}
	}
}
