package etcdapi

import (
	"strings"
	"testing"
)

// The relations that the encoder relies on.
var (
	_ [encodeWholeBytesMax - encodeShareBytesMin]struct{} // a value that is shared fits a whole response
	_ [encodeChunkBytes - encodeShareBytesMin]struct{}    // a value that is copied fits a chunk
	_ [maxSendBytes - grpcOverheadBytes - maxRequestBytesDefault]struct{}
)

func TestOptionsDefaults(t *testing.T) {
	var o Options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if o.MaxRequestBytes != 1536*1024 || o.MaxTxnOps != 128 || o.KeepAliveMinTime.Seconds() != 5 {
		t.Errorf("defaults: %+v", o)
	}
	kept := Options{MaxTxnOps: 7}
	kept.EnsureDefaults()
	if kept.MaxTxnOps != 7 {
		t.Error("a set option was replaced")
	}
}

func TestOptionsReportAllThatIsWrong(t *testing.T) {
	o := Options{MaxRequestBytes: -1, KeepAliveMinTime: -1, KeepAliveTimeout: 1, ReadBufferBytes: -1, ListBytes: -1}
	err := o.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("one line for each of four: %v", err)
	}
}
