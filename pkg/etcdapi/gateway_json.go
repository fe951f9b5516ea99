package etcdapi

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// newGatewayMux is the router of the JSON API with etcd's choices: the names of
// the fields as in the .proto files, nothing for what is zero, and no complaint
// about fields that are not known.
func newGatewayMux(messageMax int64) *runtime.ServeMux {
	m := &gatewayMarshaler{
		Marshaler: &runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}},
		tooLarge: fmt.Errorf("grpc: received message larger than max (JSON of more than %d bytes)", messageMax),
		max:      messageMax,
	}
	return runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, m), runtime.WithMetadata(annotate), runtime.WithErrorHandler(m.answerError))
}

// gatewayMarshaler bounds the messages it reads. etcd reads a message of any
// size into memory, to have it refused by its gRPC server then.
type gatewayMarshaler struct {
	runtime.Marshaler
	tooLarge error
	max      int64
}

// NewDecoder implements runtime.Marshaler. The bound is one of each message: a
// stream of them may go on for ever.
func (m *gatewayMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	b := &boundedReader{r: r, err: m.tooLarge}
	d := m.Marshaler.NewDecoder(b)
	return runtime.DecoderFunc(func(v any) error {
		b.left = m.max
		return d.Decode(v)
	})
}

// answerError writes an error. One of decoding comes as InvalidArgument, and a
// message that is too large is ResourceExhausted, as gRPC's own refusal is.
func (m *gatewayMarshaler) answerError(ctx context.Context, mux *runtime.ServeMux, out runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if status.Convert(err).Message() == m.tooLarge.Error() {
		err = status.Error(codes.ResourceExhausted, m.tooLarge.Error())
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, out, w, r, err)
}

// boundedReader fails with err after left bytes.
type boundedReader struct {
	r    io.Reader
	left int64
	err  error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
