package main

import (
	"log/slog"
	"testing"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestUnusedCertificates: where no address for clients is secure, nobody reads
// the files of their certificates, as with etcd.
func TestUnusedCertificates(t *testing.T) {
	bindWith := func(scheme, metrics string, files ...string) error {
		url := scheme + "://" + freeport.Addr(t)
		args := append(files, "--data-dir="+t.TempDir(), "--listen-client-urls="+url, "--advertise-client-urls="+url,
			"--listen-peer-urls=http://"+freeport.Addr(t), "--listen-metrics-urls="+metrics+"://"+freeport.Addr(t))
		c, _, err := parse(args, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := bind(t.Context(), c, slog.New(slog.DiscardHandler))
		if err == nil {
			l.close()
		}
		return err
	}
	for _, files := range [][]string{
		{"--cert-file=/nope/c", "--key-file=/nope/k", "--trusted-ca-file=/nope/ca", "--client-cert-auth"},
		{"--cert-file=/nope/c"}, {"--key-file=/nope/k"},
	} {
		if err := bindWith("http", "http", files...); err != nil {
			t.Errorf("%q: %v", files, err)
		}
		for _, schemes := range [][2]string{{"https", "http"}, {"http", "https"}} {
			if bindWith(schemes[0], schemes[1], files...) == nil {
				t.Errorf("%q: %q are served without a certificate", files, schemes)
			}
		}
	}
}
